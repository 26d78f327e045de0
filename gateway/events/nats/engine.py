"""The NATS engine, assembled from the settings, and the check of the servers' durability.

The start waits for nothing. Until the servers answer, every call raises `EventEngineUnavailable`, and
events stay queued in the journals.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any, Final

import aiohttp

from gateway.errors import EventEngineUnavailable
from gateway.events.nats.connection import CLIENT_ERRORS, Connection
from gateway.events.nats.ledger import NatsLedger
from gateway.events.nats.message import MAX_ENVELOPE_BYTES
from gateway.events.nats.outbox import MAX_HEADER_BYTES, NatsOutbox
from gateway.events.nats.queue import NatsQueue
from gateway.events.nats.servers import Servers, nats_servers
from gateway.events.nats.stream_reader import StreamReader
from gateway.events.nats.streams import StreamNames, Streams
from gateway.events.protocols import QueueName
from gateway.settings import Settings
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.nats")

MIN_VERSION: Final = (2, 12)
"""The first server version that can be configured to sync before it acknowledges."""

MONITORING_PORT: Final = 8222
CHECK_TIMEOUT: Final = 2.0
"""Seconds that one durability check may take."""

_ADVICE: Final = "set `jetstream { sync_interval: always }` in its configuration"


class NatsEngine:
    """JetStream as an event engine. `node` names this process in the log of runs.

    Raises `ConfigError` for credentials or a CA that cannot be read.
    """

    def __init__(self, settings: Settings, node: str) -> None:
        self._servers = nats_servers(settings)
        names = StreamNames(settings.events_prefix)
        self._streams = Streams(
            names, settings.events_replicas, settings.events_max_bytes, named=len(self._servers.urls)
        )
        self._connection = Connection(self._servers, f"upload-gateway {node}", self._prepare)
        self.queue = NatsQueue(self._connection, names, lease=settings.events_lease, node=node)
        self.outbox = NatsOutbox(self._connection, names, self.queue.ensure_consumer)
        self.ledger = NatsLedger(self._connection, self.queue, StreamReader(self._connection, names))
        self.queue_name = QueueName(self.shown, settings.events_prefix)
        self._checked = False

    @property
    def shown(self) -> str:
        """The servers as a URL without secrets."""
        return self._servers.shown

    @property
    def ready(self) -> bool:
        """Whether calls may succeed now."""
        return self._connection.ready

    async def wait_ready(self) -> None:
        """Wait until the streams are there. The caller bounds it."""
        await self._connection.wait_ready()

    @property
    def max_event_bytes(self) -> int:
        """Bytes of an event's body, as JSON, that surely fit into a message of the servers."""
        return self._connection.max_payload - MAX_HEADER_BYTES - MAX_ENVELOPE_BYTES

    def start(self) -> None:
        """Begin to connect; return at once. Call on the server's loop."""
        self._connection.start()

    async def close(self) -> None:
        """Close the connection. Call when nothing is claimed any more."""
        await self.queue.close()
        await self._connection.close()

    async def _prepare(self, connection: Connection) -> bool:
        complete = await self._streams.prepare(connection)
        if not self._checked:
            self._checked = True
            version = connection.client.connected_server_version
            if (version.major, version.minor) < MIN_VERSION:
                log.warning(
                    "nats-server %s cannot sync before it acknowledges: a power failure may cost"
                    " acknowledged events; use 2.12 or newer",
                    connection.client._server_info.get("version"),
                    extra=event("durability.missing"),
                )
            else:
                asyncio.get_running_loop().create_task(check_durability(connection, self._servers))
        return complete


async def check_durability(connection: Connection, servers: Servers) -> bool | None:
    """Warn where a power failure may cost events; return whether all sync, None if that is unknown.

    By default a server syncs every two minutes. An ordinary client cannot ask for that, so the system
    account and the monitoring port are tried.
    """
    always = _sync_always(await _varz_of_system_account(connection))
    if always is None:
        answers = await asyncio.gather(*(_varz_of_monitoring(host) for host in servers.hosts))
        syncs = [sync for sync in map(_sync_always, answers) if sync is not None]
        always = all(syncs) if syncs else None
    if always is None:
        log.warning(
            "cannot check whether the NATS servers sync before they acknowledge: %s; without it a power"
            " failure may cost up to two minutes of events, which `gateway events replay --since` can"
            " deliver again",
            _ADVICE,
            extra=event("durability.unknown"),
        )
    elif not always:
        log.error(
            "a NATS server acknowledges before it syncs: a power failure may cost up to two minutes of"
            " events; %s",
            _ADVICE,
            extra=event("durability.missing"),
        )
    return always


def _sync_always(varz: dict[str, Any] | None) -> bool | None:
    """Read `sync_always` out of /varz, or its like of the system account."""
    config = ((varz or {}).get("jetstream") or {}).get("config")
    return bool(config.get("sync_always", False)) if isinstance(config, dict) else None


async def _varz_of_system_account(connection: Connection) -> dict[str, Any] | None:
    try:
        reply = await connection.client.request("$SYS.REQ.SERVER.PING.VARZ", b"", timeout=CHECK_TIMEOUT)
        varz: dict[str, Any] = json.loads(reply.data).get("data")
    except (EventEngineUnavailable, *CLIENT_ERRORS, ValueError, AttributeError):
        return None
    return varz


async def _varz_of_monitoring(host: str) -> dict[str, Any] | None:
    timeout = aiohttp.ClientTimeout(total=CHECK_TIMEOUT)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"http://{host}:{MONITORING_PORT}/varz", allow_redirects=False) as response,
        ):
            varz = json.loads(await response.read()) if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return None
    return varz if isinstance(varz, dict) else None
