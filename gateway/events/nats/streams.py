"""Events room, NATS: the three streams and the consumers, made and kept as they must be.

    queue   a work queue: a message stays until its delivery is settled. A full one refuses, so that
            what does not fit stays in the outbox; nothing is ever dropped silently
    dead    what was given up: for ever, until somebody decides
    runs    what ended and how, and what waits for its next run; the oldest go first

The rule: making them again changes nothing, and nothing that an operator enlarged is made smaller.
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

log = logging.getLogger("gateway.nats")

DUPLICATE_SECONDS: Final = 900.0
"""How long the same publication is recognised: a relay that lost its answer tries again by then."""

RUNS_SECONDS: Final = 7 * 86_400.0
RUNS_BYTES: Final = 1 << 30

MOST_REPLICAS: Final = 3
_MUTABLE: Final = ("subjects", "discard", "max_age", "duplicate_window", "allow_msg_ttl", "allow_direct")

WAITING_PULLS: Final = 8192
"""UnknownOutcome pulls of one consumer: one for each idle node that has its handler."""


@dataclass(frozen=True, slots=True)
class Streams:
    """What the streams shall be. `replicas` None: as many as the cluster has servers, 3 at the most.

    `named` is how many servers the settings name: one that is away just now counts too, else what is
    made meanwhile would stay with fewer copies. `max_bytes` bounds the queue, None leaves that to the
    server's own limits.
    """

    names: StreamNames
    replicas: int | None = None
    max_bytes: int | None = None
    named: int = 1
    _told: set[str] = field(default_factory=set)

    async def prepare(self, connection: Connection) -> bool:
        """Make or adjust all three. Raises `nats.errors.Error` where that cannot be done now.

        Returns False where streams that were there could not be given more copies now.
        """
        servers = max(self.named, cluster_size(connection))
        wanted = self.replicas or min(MOST_REPLICAS, servers)
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
                max_age=RUNS_SECONDS,
                max_bytes=RUNS_BYTES,
                allow_msg_ttl=True,
            ),
        )

    async def _ensure(self, connection: Connection, config: StreamConfig, replicas: int) -> bool:
        js, name = connection.raw_js, str(config.name)
        try:
            found = (await js.stream_info(name)).config
        except nats.js.errors.NotFoundError:
            await js.add_stream(config, num_replicas=replicas)
            return True
        changed: dict[str, Any] = {
            key: getattr(config, key) for key in _MUTABLE if getattr(config, key) != getattr(found, key)
        }
        if _lasting(found) > _lasting(config):
            changed.pop("max_age", None)
        if self.max_bytes is not None and name == self.names.queue:
            changed |= {"max_bytes": self.max_bytes} if found.max_bytes != self.max_bytes else {}
        if changed:
            await js.update_stream(found := found.evolve(**changed))
        more = self.replicas not in (None, found.num_replicas) or replicas > (found.num_replicas or 1)
        return not more or await self._copied(js, found.evolve(num_replicas=replicas))

    async def _copied(self, js: JetStreamContext, config: StreamConfig) -> bool:
        """Change how many copies there are; False where that is refused, as while a server is away.

        That is no reason to do without the stream: events go through those copies that there are.
        """
        try:
            await js.update_stream(config)
        except nats.js.errors.APIError as fault:
            if config.name not in self._told:
                why = describe(fault)
                log.warning("%s cannot have %d copies yet: %s", config.name, config.num_replicas, why)
            self._told.add(str(config.name))
            return False
        self._told.discard(str(config.name))
        return True


def cluster_size(connection: Connection) -> int:
    """Return how many servers the cluster is known to have (1 for a single one)."""
    return max(1, len(connection.client._server_info.get("connect_urls") or ()))


async def ensure_consumer(
    connection: Connection, names: StreamNames, handler: str, lease: float
) -> None:
    """Make the consumer of a handler, or adjust its lease.

    Delayed retries count against `max_ack_pending`, and past `max_deliver` a server just falls
    silent: so neither has a limit, and both are ours to mind. Raises `nats.errors.Error`.
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
            max_waiting=WAITING_PULLS,
        ),
    )


def _lasting(config: StreamConfig) -> float:
    """Return how many seconds a stream keeps a message. The server's word for "for ever" is 0."""
    return config.max_age or math.inf


def _stream(name: str, subjects: list[str], **special: Any) -> StreamConfig:
    """Return what a stream shall be. It keeps its messages for ever where `special` does not say."""
    return StreamConfig(
        name=name,
        subjects=subjects,
        storage=StorageType.FILE,
        duplicate_window=DUPLICATE_SECONDS,
        allow_direct=True,
        **{"max_age": 0.0, **special},
    )
