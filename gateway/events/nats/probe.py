"""Asks NATS servers what they are, without making anything there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import nats
import nats.js.errors

from gateway.errors import EventEngineUnavailable
from gateway.events.nats.connection import CONNECT_TIMEOUT, mapped_errors
from gateway.events.nats.engine import MIN_VERSION
from gateway.events.nats.servers import nats_servers
from gateway.settings import Settings

_NO_JETSTREAM: Final = "JetStream is off: add a `jetstream` block to the servers' configuration"


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says of itself: `max_payload` in bytes, `syncs` whether it can sync first."""

    shown: str
    version: str
    max_payload: int
    syncs: bool


async def probe_servers(settings: Settings) -> ServerFacts:
    """Connect, ask and disconnect. Raises `EventEngineUnavailable`, `ConfigError` for credentials."""
    servers = nats_servers(settings)
    async with mapped_errors():
        client = await nats.connect(
            **servers.options(),
            allow_reconnect=False,
            connect_timeout=CONNECT_TIMEOUT,
            max_reconnect_attempts=1,
            error_cb=_ignore,
        )
        try:
            await client.jetstream(timeout=CONNECT_TIMEOUT).account_info()
        except nats.js.errors.ServiceUnavailableError as error:
            raise EventEngineUnavailable(_NO_JETSTREAM) from error
        finally:
            await client.close()
    version = client.connected_server_version
    return ServerFacts(
        servers.shown,
        f"{version.major}.{version.minor}.{version.patch}",
        client.max_payload,
        (version.major, version.minor) >= MIN_VERSION,
    )


async def _ignore(error: Exception) -> None:
    """The call itself raises what matters."""
