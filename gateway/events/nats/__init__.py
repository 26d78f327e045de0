"""Events room, NATS: the distributed engine, JetStream behind the three protocols.

    names        streams, subjects and consumers, and how handler names become subject tokens
    connection   one connection that is always trying; what is not there now is `EventEngineUnavailable`
    streams      streams and consumers, made idempotently
    message      an event as a message and back
    pulls        asking a consumer for messages
    records      what went well, written in batches
    queue        Queue          outbox   Outbox          ledger   Ledger
    sync         does the server sync before it says yes?
    engine       all of it, put together from the settings

The rule: JetStream counts, redelivers, replicates and forgets; nothing here keeps state of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import ConfigError
from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.events.nats.engine import NatsEngine


def make_engine(settings: Settings, node: str) -> NatsEngine:
    """Return the engine that `--events nats://...` asks for, not yet connected.

    `node` names this process in the records of runs. Raises `ConfigError` where the client library is
    not installed, or credentials cannot be read.
    """
    try:
        from gateway.events.nats.engine import NatsEngine  # an extra: the journal needs none
    except ImportError as fault:
        raise ConfigError(
            f"--events {settings.events} needs the NATS client library ({fault.name}):"
            " run pip install '.[nats]' in the checkout"
        ) from None
    return NatsEngine(settings, node)
