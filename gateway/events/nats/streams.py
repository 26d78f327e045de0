"""The three streams and the consumers, created and adjusted.

    queue   a work queue: a message stays until its delivery is settled. A full one refuses, so that
            what does not fit stays in the journal; nothing is dropped silently
    dead    dead deliveries, until an operator decides
    runs    ended runs, and notes on delayed deliveries; the oldest are dropped first

Creating them again changes nothing, and nothing that an operator enlarged is made smaller.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import Any, Final

import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)

from gateway.events.nats.connection import Connection, describe
from gateway.events.nats.names import StreamNames
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.nats")

DUPLICATE_WINDOW: Final = 900.0
"""Seconds in which a repetition is recognised: a relay that lost its answer tries again by then."""

RUNS_TTL: Final = 7 * 86_400.0
MAX_RUNS_BYTES: Final = 1 << 30

MAX_REPLICAS: Final = 3
_MUTABLE: Final = ("subjects", "discard", "max_age", "duplicate_window", "allow_msg_ttl", "allow_direct")

MAX_WAITING_PULLS: Final = 8192
"""Waiting pulls of one consumer: one for each idle node that has its handler."""


@dataclass(frozen=True, slots=True)
class Streams:
    """The configuration of the streams. `replicas` None: as many as the cluster has servers, up to 3.

    `named` is how many servers the settings name: one that is unavailable counts too, otherwise streams
    made meanwhile would keep fewer copies. `max_bytes` bounds the queue, None leaves that to the server.
    """

    names: StreamNames
    replicas: int | None = None
    max_bytes: int | None = None
    named: int = 1
    _logged: set[str] = field(default_factory=set)

    async def prepare(self, connection: Connection) -> bool:
        """Create or adjust all three. Raises `nats.errors.Error` where that is not possible now.

        Returns False where existing streams could not get more copies now.
        """
        servers = max(self.named, cluster_size(connection))
        wanted = self.replicas or min(MAX_REPLICAS, servers)
        done = [await self._ensure(connection, config, wanted) for config in self._configs()]
        return all(done)

    def _configs(self) -> tuple[StreamConfig, ...]:
        names, own = self.names, self.names.prefix
        return (
            _stream(
                names.queue,
                [f"{own}.q.*.*"],
                retention=RetentionPolicy.WORK_QUEUE,
                discard=DiscardPolicy.NEW,
                max_bytes=self.max_bytes or -1,
            ),
            _stream(names.dead, [f"{own}.dead.*.*"]),
            _stream(
                names.runs,
                [f"{own}.run.*.*", f"{own}.wait.*.*"],
                max_age=RUNS_TTL,
                max_bytes=MAX_RUNS_BYTES,
                allow_msg_ttl=True,
            ),
        )

    async def _ensure(self, connection: Connection, config: StreamConfig, replicas: int) -> bool:
        js, name = connection.raw_js, str(config.name)
        try:
            current = (await js.stream_info(name)).config
        except nats.js.errors.NotFoundError:
            await js.add_stream(config, num_replicas=replicas)
            return True
        changed: dict[str, Any] = {
            key: getattr(config, key)
            for key in _MUTABLE
            if getattr(config, key) != getattr(current, key)
        }
        if _max_age(current) > _max_age(config):
            changed.pop("max_age", None)
        if self.max_bytes is not None and name == self.names.queue:
            changed |= {"max_bytes": self.max_bytes} if current.max_bytes != self.max_bytes else {}
        if changed:
            await js.update_stream(current := current.evolve(**changed))
        more = self.replicas not in (None, current.num_replicas) or replicas > (
            current.num_replicas or 1
        )
        return not more or await self._set_copies(js, current.evolve(num_replicas=replicas))

    async def _set_copies(self, js: JetStreamContext, config: StreamConfig) -> bool:
        """Set the number of copies; return False where that is refused, as while a server is down.

        The stream is used all the same: events go through the copies that exist.
        """
        try:
            await js.update_stream(config)
        except nats.js.errors.APIError as error:
            if config.name not in self._logged:
                log.warning(
                    "%s cannot have %d copies yet: %s",
                    config.name,
                    config.num_replicas,
                    describe(error),
                    extra=event("copies.missing", stream=config.name),
                )
            self._logged.add(str(config.name))
            return False
        self._logged.discard(str(config.name))
        return True


def cluster_size(connection: Connection) -> int:
    """Return how many servers the cluster has (1 for a single one)."""
    return max(1, len(connection.client._server_info.get("connect_urls") or ()))


async def ensure_consumer(
    connection: Connection, names: StreamNames, handler: str, lease: float
) -> None:
    """Create the consumer of a handler, or adjust its lease.

    Delayed retries count against `max_ack_pending`, and past `max_deliver` a server stops delivering
    without a word: neither has a limit, the gateway keeps both. Raises `nats.errors.Error`.
    """
    await connection.js.add_consumer(
        names.queue,
        ConsumerConfig(
            name=names.consumer(handler),
            durable_name=names.consumer(handler),
            description=handler,
            filter_subject=names.subject(handler),
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=lease,
            max_ack_pending=-1,
            max_deliver=-1,
            max_waiting=MAX_WAITING_PULLS,
        ),
    )


def _max_age(config: StreamConfig) -> float:
    """Return how many seconds a stream keeps a message. For the server, 0 means for ever."""
    return config.max_age or math.inf


def _stream(name: str, subjects: list[str], **special: Any) -> StreamConfig:
    """Return a stream's configuration. It keeps its messages for ever unless `special` says
    otherwise."""
    return StreamConfig(
        name=name,
        subjects=subjects,
        storage=StorageType.FILE,
        duplicate_window=DUPLICATE_WINDOW,
        allow_direct=True,
        **{"max_age": 0.0, **special},
    )
