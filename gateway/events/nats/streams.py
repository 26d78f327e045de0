"""The three streams and the consumers: their names, how they are created and adjusted.

    queue   a work queue: a message stays until its delivery is settled. A full one refuses, so that
            what does not fit stays in the journal; nothing is dropped silently
    dead    dead deliveries, until an operator decides
    runs    ended runs, and notes on delayed deliveries; the oldest are dropped first

Creating them again changes nothing, and nothing that an operator enlarged is made smaller. Every name
begins with the installation's prefix.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
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

_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]")
MAX_TOKEN_LENGTH: Final = 160
"""Characters of a token: a consumer's name is a folder's name on the server's disk."""


def token(name: str) -> str:
    """Return `name` as one token: letters, digits, `_` and `-` stay, all else is `=XX` per byte.

    Dots, spaces, `*` and `>` mean something in a subject (docs.nats.io, subject-based messaging),
    slashes in a consumer's name. A very long name ends in its hash.
    """
    plain = "".join(c if _PLAIN.match(c) else "".join(f"={b:02X}" for b in c.encode()) for c in name)
    if not plain:
        return "="
    if len(plain) <= MAX_TOKEN_LENGTH:
        return plain
    return f"{plain[: MAX_TOKEN_LENGTH - 33]}~{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def name_of(part: str) -> str:
    """Return the name that `token` was made from; of a very long one, the token itself."""
    if "~" in part or part == "=":
        return part.removeprefix("=")
    pieces = part.split("=")
    raw = pieces[0].encode() + b"".join(bytes.fromhex(p[:2]) + p[2:].encode() for p in pieces[1:])
    return raw.decode(errors="replace")


@dataclass(frozen=True, slots=True)
class StreamNames:
    """The names of one installation. `prefix` is one token, such as `apigw`.

    A handler's name becomes one subject token that no other handler has.
    """

    prefix: str

    @property
    def queue(self) -> str:
        """The stream of deliveries."""
        return f"{self.prefix}-queue"

    @property
    def dead(self) -> str:
        """The stream of dead deliveries."""
        return f"{self.prefix}-dead"

    @property
    def runs(self) -> str:
        """The stream of ended runs, and of notes on delayed deliveries."""
        return f"{self.prefix}-runs"

    def subject(self, handler: str, event_id: str | None = None) -> str:
        """The subject of a delivery; without an event, the filter of the handler's consumer."""
        return self.subject_of("q", handler, event_id)

    def consumer(self, handler: str) -> str:
        """The durable consumer that all nodes share."""
        return token(handler)

    def subject_of(self, kind: str, handler: str | None = None, event_id: str | None = None) -> str:
        """A subject of `kind` (q, dead, run, wait); None matches all."""
        parts = ("*" if text is None else token(text) for text in (handler, event_id))
        return ".".join((self.prefix, kind, *parts))


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
        fields = {key: getattr(config, key) for key in _MUTABLE}
        changed = {key: value for key, value in fields.items() if value != getattr(current, key)}
        if (current.max_age or math.inf) > (config.max_age or math.inf):  # 0 means for ever
            changed.pop("max_age", None)
        if self.max_bytes is not None and name == self.names.queue:
            changed |= {"max_bytes": self.max_bytes} if current.max_bytes != self.max_bytes else {}
        if changed:
            await js.update_stream(current := current.evolve(**changed))
        copies = current.num_replicas or 1
        more = self.replicas not in (None, current.num_replicas) or replicas > copies
        return not more or await self._set_copies(js, current.evolve(num_replicas=replicas))

    async def _set_copies(self, js: JetStreamContext, config: StreamConfig) -> bool:
        """Set the number of copies; return False where that is refused, as while a server is down.

        The stream is used all the same: events go through the copies that exist.
        """
        try:
            await js.update_stream(config)
        except nats.js.errors.APIError as error:
            if config.name not in self._logged:
                values = config.name, config.num_replicas, describe(error)
                missing = "%s cannot have %d copies yet: %s"
                log.warning(missing, *values, extra=event("copies.missing", stream=config.name))
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


def _stream(name: str, subjects: list[str], *, max_age: float = 0.0, **special: Any) -> StreamConfig:
    """Return a stream's configuration; it keeps messages for `max_age` seconds, 0: for ever."""
    return StreamConfig(
        name=name,
        subjects=subjects,
        storage=StorageType.FILE,
        duplicate_window=DUPLICATE_WINDOW,
        allow_direct=True,
        max_age=max_age,
        **special,
    )
