"""The distributed event engine: NATS JetStream behind `Outbox`, `Queue` and `Ledger`.

JetStream counts, redelivers, replicates and expires; nothing here keeps state of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import ConfigError
from gateway.settings import Settings

if TYPE_CHECKING:
    from gateway.events.nats.engine import NatsEngine


def make_engine(settings: Settings, node: str) -> NatsEngine:
    """Return the engine of `--events nats://...`, not connected yet.

    `node` names this process in the log of runs. Raises `ConfigError` where the client library is
    not installed, or credentials cannot be read.
    """
    try:
        from gateway.events.nats.engine import NatsEngine  # an extra: the journal does not need it
    except ImportError as error:
        raise ConfigError(
            f"--events {settings.events} needs the NATS client library ({error.name}):"
            " run pip install '.[nats]' in the checkout"
        ) from None
    return NatsEngine(settings, node)
