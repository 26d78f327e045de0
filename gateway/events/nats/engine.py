"""Events room, NATS: the engine, put together from the settings.

The rule: starting it waits for nothing. Until the servers answer, every call is
`EventEngineUnavailable`; what is to be delivered waits in the journals.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from gateway.events.nats import servers as places
from gateway.events.nats.connection import Connection
from gateway.events.nats.durability_check import look_at_sync
from gateway.events.nats.ledger import NatsLedger
from gateway.events.nats.names import StreamNames
from gateway.events.nats.outbox import NatsOutbox
from gateway.events.nats.queue import NatsQueue
from gateway.events.nats.stream_reader import StreamReader
from gateway.events.nats.streams import Streams
from gateway.settings import Settings

log = logging.getLogger("gateway.nats")

OLDEST: Final = (2, 12)
"""The first version that can be told to sync before it says yes, per message or batch."""


class NatsEngine:
    """JetStream as an engine of events. `node` names this process in the records of runs.

    Raises `ConfigError` for credentials or a CA that cannot be read.
    """

    def __init__(self, settings: Settings, node: str) -> None:
        self._servers = places.servers(settings)
        names = StreamNames(settings.events_prefix)
        self._streams = Streams(
            names,
            settings.events_replicas,
            settings.events_max_bytes,
            named=len(self._servers.urls),
        )
        self._connection = Connection(self._servers, f"upload-gateway {node}", self._prepare)
        self.queue = NatsQueue(self._connection, names, lease=settings.events_lease, node=node)
        self.outbox = NatsOutbox(self._connection, names, self.queue.ensure)
        self.ledger = NatsLedger(self._connection, self.queue, StreamReader(self._connection, names))
        self._looked = False

    @property
    def shown(self) -> str:
        """Where it is, without any secret."""
        return self._servers.shown

    @property
    def ready(self) -> bool:
        """Whether calls have a chance now."""
        return self._connection.ready

    async def wait_ready(self) -> None:
        """Wait until it can be used. The caller bounds it."""
        await self._connection.wait_ready()

    def start(self) -> None:
        """Begin to connect; returns at once. Call on the server's loop."""
        self._connection.start()

    async def close(self) -> None:
        """Let go of the servers. Call when nothing is claimed any more."""
        await self.queue.close()
        await self._connection.close()

    async def _prepare(self, connection: Connection) -> bool:
        complete = await self._streams.prepare(connection)
        if not self._looked:
            self._looked = True
            version = connection.client.connected_server_version
            if (version.major, version.minor) < OLDEST:
                log.warning(
                    "nats-server %s cannot be told to sync before it says yes: a power failure may cost"
                    " events that it had taken; use 2.12 or newer",
                    connection.client._server_info.get("version"),
                )
            else:
                asyncio.get_running_loop().create_task(look_at_sync(connection, self._servers))
        return complete
