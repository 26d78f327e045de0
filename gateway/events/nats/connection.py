"""Events room, NATS: one connection to the servers, always trying, never waited for.

The rule: a call that cannot be answered now raises `EventEngineUnavailable` within `PATIENCE`
seconds; it is never buffered to be sent in some unknown future. Lives on the server's loop. May
import `errors` and `places`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext

from gateway.errors import EventEngineUnavailable
from gateway.events.nats.servers import Servers

log = logging.getLogger("gateway.nats")

PATIENCE: Final = 5.0
"""Seconds that one request may take. An election takes longer: then the caller tries again."""

CONNECT_SECONDS: Final = 3
RECONNECT_SECONDS: Final = 1
RETRY_SECONDS: Final = 0.5
LATER_SECONDS: Final = 60.0
"""In how long what was left for later is tried again."""

LOOK_SECONDS: Final = 5.0
"""How often a client that should be connected is looked at."""

PING_SECONDS: Final = 10
"""A server that answers two pings in a row with nothing is left for another one."""

_FAULTS: Final = (nats.errors.Error, TimeoutError, OSError)

Prepare = Callable[["Connection"], Awaitable[bool]]
"""Make what is needed. False: it can be used, and there is something left to do later."""


@contextlib.asynccontextmanager
async def reaching() -> AsyncIterator[None]:
    """Turn what the client library raises into `EventEngineUnavailable`."""
    try:
        yield
    except _FAULTS as fault:
        raise EventEngineUnavailable(f"NATS: {describe(fault)}") from fault


def describe(fault: BaseException) -> str:
    """Say a fault of the client library in a line."""
    if isinstance(fault, nats.js.errors.APIError) and fault.description:
        return str(fault.description)
    return str(fault).removeprefix("nats: ").strip() or type(fault).__name__


class Connection:
    """The connection. After each (re)connect `prepare` runs until it succeeds; only then `ready`."""

    def __init__(self, servers: Servers, name: str, prepare: Prepare) -> None:
        self._servers = servers
        self._name = name
        self._prepare = prepare
        self._client: Client | None = None
        self._context: JetStreamContext | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._stale = asyncio.Event()
        self._ready = asyncio.Event()
        self._complained = False
        self.on_change: list[Callable[[], None]] = []
        """Called when the connection is lost, and when there is a new one."""
        self.generation = 0
        """Grows with each (re)connect: what was learnt before may no longer be so."""

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._keeping = asyncio.create_task(self._keep())

    @property
    def ready(self) -> bool:
        """Whether calls have a chance now."""
        return self._ready.is_set() and self._client is not None and self._client.is_connected

    async def wait_ready(self) -> None:
        """Wait until the streams are there. The caller bounds it."""
        await self._ready.wait()

    @property
    def client(self) -> Client:
        """The connected client. Raises `EventEngineUnavailable`."""
        if self._client is None or not self._client.is_connected:
            raise EventEngineUnavailable("NATS cannot be reached")
        return self._client

    @property
    def js(self) -> JetStreamContext:
        """JetStream, with its streams in place. Raises `EventEngineUnavailable`."""
        if not self.ready or self._context is None:
            raise EventEngineUnavailable("NATS cannot be reached, or its streams are not there yet")
        return self._context

    @property
    def raw_js(self) -> JetStreamContext:
        """JetStream whatever state its streams are in, for `prepare`. Raises
        `EventEngineUnavailable`."""
        if self._context is None:
            raise EventEngineUnavailable("NATS cannot be reached")
        return self._context

    async def ask(self, subject: str, payload: bytes) -> None:
        """Send and wait until the server has it. Raises `EventEngineUnavailable`."""
        async with reaching():
            await self.client.request(subject, payload, timeout=PATIENCE)

    async def api(self, verb: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Call JetStream's API as it is on the wire. Raises `nats.js.errors.APIError` and others."""
        answer = await self.client.request(
            f"$JS.API.{verb}", json.dumps(request).encode(), timeout=PATIENCE
        )
        read: dict[str, Any] = json.loads(answer.data)
        if "error" in read:
            raise nats.js.errors.APIError.from_error(read["error"])
        return read

    def doubt(self) -> None:
        """Something was missing that had been made: let `prepare` look again."""
        self.generation += 1
        self._ready.clear()
        self._stale.set()

    async def close(self) -> None:
        """End the connection. Not `drain()`: that waits for pull subscriptions in vain."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        if self._client is not None:
            with contextlib.suppress(*_FAULTS):
                await self._client.close()

    # -- staying connected

    async def _keep(self) -> None:
        while True:
            self._stale.clear()
            if self._client is None or self._client.is_closed:
                await self._begin_again()
            await self._until_stale(await self._try_prepare())

    async def _until_stale(self, patience: float) -> None:
        """Wait until there is something to do; `patience` seconds at the most.

        The client library does not always say that it has closed itself, so it is looked at, too.
        """
        until = time.monotonic() + patience
        while not self._stale.is_set() and (left := until - time.monotonic()) > 0:
            if self._client is None or self._client.is_closed:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stale.wait(), min(left, LOOK_SECONDS))

    async def _begin_again(self) -> None:
        """Connect with a new client: one that a server has told of an error never connects again."""
        self._ready.clear()
        if self._client is not None:
            self._complain(self._client.last_error or nats.errors.ConnectionClosedError())
            await asyncio.sleep(RETRY_SECONDS)
        await self._connect()
        self._tell()

    async def _connect(self) -> None:
        self._client = client = Client()
        while True:
            try:
                await client.connect(
                    **self._servers.options(),
                    name=self._name,
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=RECONNECT_SECONDS,
                    connect_timeout=CONNECT_SECONDS,
                    ping_interval=PING_SECONDS,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnect,
                    reconnected_cb=self._on_reconnect,
                    closed_cb=self._on_close,
                )
            except _FAULTS as fault:
                self._complain(fault)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._context = client.jetstream(timeout=PATIENCE)
                self.generation += 1
                return

    async def _try_prepare(self) -> float:
        """Prepare; return in how many seconds that is to be done again."""
        try:
            complete = await self._prepare(self)
        except (EventEngineUnavailable, *_FAULTS) as fault:
            self._complain(fault)
            return RETRY_SECONDS
        if not self._ready.is_set():
            log.info("connected to %s", self._servers.shown)
        self._ready.set()
        self._complained = False
        return math.inf if complete else LATER_SECONDS

    async def _on_error(self, fault: Exception) -> None:
        self._complain(fault)

    async def _on_disconnect(self) -> None:
        self._ready.clear()
        self._tell()

    async def _on_reconnect(self) -> None:
        self.doubt()
        self._tell()

    async def _on_close(self) -> None:
        self._ready.clear()
        self._stale.set()

    def _tell(self) -> None:
        for callback in self.on_change:
            callback()

    def _complain(self, fault: BaseException) -> None:
        """Say it once, not at every attempt."""
        level = logging.DEBUG if self._complained else logging.WARNING
        self._complained = True
        log.log(level, "%s cannot be used, trying again: %s", self._servers.shown, describe(fault))
