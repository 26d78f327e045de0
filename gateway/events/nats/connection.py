"""One connection to the NATS servers, which reconnects in the background.

A call that gets no answer raises `EventEngineUnavailable` within `REQUEST_TIMEOUT`; it is never buffered
to be sent later. Lives on the server's loop.
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
from gateway.storage.waiting import cancel_and_wait
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.nats")

REQUEST_TIMEOUT: Final = 5.0
"""Seconds of one request. An election takes longer: then the caller tries again."""

DEFAULT_MAX_PAYLOAD: Final = 1 << 20
"""Bytes of a message that servers take by default (`max_payload`)."""

CONNECT_TIMEOUT: Final = 3
RECONNECT_DELAY: Final = 1
RETRY_DELAY: Final = 0.5
INCOMPLETE_DELAY: Final = 60.0
"""Seconds until an incomplete preparation is repeated."""

CHECK_INTERVAL: Final = 5.0
"""Seconds between two checks of a client that should be connected."""

PING_INTERVAL: Final = 10
"""Seconds between two pings. A server that leaves two unanswered is left for another one."""

CLIENT_ERRORS: Final = (nats.errors.Error, TimeoutError, OSError)

Prepare = Callable[["Connection"], Awaitable[bool]]
"""Make what is needed. False: it can be used, and is to be prepared again later."""


@contextlib.asynccontextmanager
async def mapped_errors() -> AsyncIterator[None]:
    """Map the client library's errors to `EventEngineUnavailable`."""
    try:
        yield
    except CLIENT_ERRORS as error:
        raise EventEngineUnavailable(f"NATS: {describe(error)}") from error


def describe(error: BaseException) -> str:
    """Return an error of the client library in one line."""
    if isinstance(error, nats.js.errors.APIError) and error.description:
        return str(error.description)
    return str(error).removeprefix("nats: ").strip() or type(error).__name__


class Connection:
    """The connection. After each (re)connect `prepare` runs until it succeeds; then it is `ready`."""

    def __init__(self, servers: Servers, name: str, prepare: Prepare) -> None:
        self._servers = servers
        self._name = name
        self._prepare = prepare
        self._client: Client | None = None
        self._context: JetStreamContext | None = None
        self._task: asyncio.Task[None] | None = None
        self._stale = asyncio.Event()
        self._ready = asyncio.Event()
        self._logged = False
        self.on_change: list[Callable[[], None]] = []
        """Called when the connection is lost, and when there is a new one."""
        self.generation = 0
        """Grows with each (re)connect: what was known before may no longer hold."""
        self.max_payload = DEFAULT_MAX_PAYLOAD
        """Bytes that a message may have, as the servers said when they were last prepared."""

    def start(self) -> None:
        """Begin to connect; return at once."""
        self._task = asyncio.create_task(self._stay_connected())

    @property
    def ready(self) -> bool:
        """Whether calls may succeed now."""
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
        """JetStream in any state of its streams, for `prepare`. Raises `EventEngineUnavailable`."""
        if self._context is None:
            raise EventEngineUnavailable("NATS cannot be reached")
        return self._context

    async def request(self, subject: str, payload: bytes) -> None:
        """Send and wait for the server's answer. Raises `EventEngineUnavailable`."""
        async with mapped_errors():
            await self.client.request(subject, payload, timeout=REQUEST_TIMEOUT)

    async def api(self, verb: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Call JetStream's API as it is on the wire. Raises `nats.js.errors.APIError` and others."""
        response = await self.client.request(
            f"$JS.API.{verb}", json.dumps(request).encode(), timeout=REQUEST_TIMEOUT
        )
        fields: dict[str, Any] = json.loads(response.data)
        if "error" in fields:
            raise nats.js.errors.APIError.from_error(fields["error"])
        return fields

    def prepare_again(self) -> None:
        """Run `prepare` again: something that it had made is missing."""
        self.generation += 1
        self._ready.clear()
        self._stale.set()

    async def close(self) -> None:
        """Close the connection. Not with `drain()`, which waits for pull subscriptions in vain."""
        if self._task is not None:
            await cancel_and_wait(self._task)
        if self._client is not None:
            with contextlib.suppress(*CLIENT_ERRORS):
                await self._client.close()

    # -- staying connected

    async def _stay_connected(self) -> None:
        while True:
            self._stale.clear()
            if self._client is None or self._client.is_closed:
                await self._reconnect()
            await self._wait_until_stale(await self._try_prepare())

    async def _wait_until_stale(self, seconds: float) -> None:
        """Wait until there is something to do, up to `seconds`.

        The client library does not always report that it has closed itself, so that is checked, too.
        """
        until = time.monotonic() + seconds
        while not self._stale.is_set() and (remaining := until - time.monotonic()) > 0:
            if self._client is None or self._client.is_closed:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(remaining, CHECK_INTERVAL)):
                    await self._stale.wait()

    async def _reconnect(self) -> None:
        """Connect with a new client: one that got an error from a server never connects again."""
        self._ready.clear()
        if self._client is not None:
            self._log_unavailable(self._client.last_error or nats.errors.ConnectionClosedError())
            await asyncio.sleep(RETRY_DELAY)
        await self._connect()
        self._notify()

    async def _connect(self) -> None:
        self._client = client = Client()
        while True:
            try:
                await client.connect(
                    **self._servers.options(),
                    name=self._name,
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=RECONNECT_DELAY,
                    connect_timeout=CONNECT_TIMEOUT,
                    ping_interval=PING_INTERVAL,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnect,
                    reconnected_cb=self._on_reconnect,
                    closed_cb=self._on_close,
                )
            except CLIENT_ERRORS as error:
                self._log_unavailable(error)
                await asyncio.sleep(RETRY_DELAY)
            else:
                self._context = client.jetstream(timeout=REQUEST_TIMEOUT)
                self.generation += 1
                return

    async def _try_prepare(self) -> float:
        """Prepare; return the seconds until that is to be done again."""
        try:
            self.max_payload = self.client.max_payload
            complete = await self._prepare(self)
        except (EventEngineUnavailable, *CLIENT_ERRORS) as error:
            self._log_unavailable(error)
            return RETRY_DELAY
        if not self._ready.is_set():
            log.info("connected to %s", self._servers.shown, extra=event("engine.connected"))
        self._ready.set()
        self._logged = False
        return math.inf if complete else INCOMPLETE_DELAY

    async def _on_error(self, error: Exception) -> None:
        self._log_unavailable(error)

    async def _on_disconnect(self) -> None:
        self._ready.clear()
        self._notify()

    async def _on_reconnect(self) -> None:
        self.prepare_again()
        self._notify()

    async def _on_close(self) -> None:
        self._ready.clear()
        self._stale.set()

    def _notify(self) -> None:
        for callback in self.on_change:
            callback()

    def _log_unavailable(self, error: BaseException) -> None:
        """Log the first failure as a warning; the further ones are for debugging."""
        level = logging.DEBUG if self._logged else logging.WARNING
        self._logged = True
        shown, why = self._servers.shown, describe(error)
        log.log(level, "%s is unavailable, retrying: %s", shown, why, extra=event("engine.unavailable"))
