"""The short path: a whole small request is served straight from its connection's `data_received`.

The task and the objects that aiohttp makes for each request cost more than a small upload. So a request
that is whole, small, plain and alone on its connection is first offered to `Take`, a plain function. It
takes the request before any side effect, or leaves it; then aiohttp's task serves the very same message,
as it serves all others. While a request is served here, further bytes wait unparsed: responses keep the
order of the requests, and the parser sees nothing meanwhile.

It relies on how aiohttp's `RequestHandler` works inside: each minor version is tested before it is
allowed (`setup.cfg`).
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiohttp import HttpVersion11, StreamReader, web
from aiohttp.http import RawRequestMessage

from gateway.http.ambiguity import find_ambiguity
from gateway.http.connection import ClientConnection
from gateway.http.limits import ConnectionLimits
from gateway.http.short_request import Respond, ShortRequest, Take

MAX_BODY_BYTES: Final = 64 << 10
"""Bytes of a body that the short path serves."""

MAX_HELD_BYTES: Final = 64 << 10
"""Bytes behind a request from which on the connection is not read until that is answered."""

BODY_TIMEOUT: Final = 0.05
"""Seconds that the rest of a small body is awaited, before aiohttp's task gets the request."""

MAX_REMEMBERED_BYTES: Final = 2 << 10
"""Bytes of header lines that a connection remembers as plain: most clients send the same ones again."""

_SPECIAL: Final = ("Expect", "Upgrade")
"""Headers that need the ordinary path, whatever the request is."""


class ShortPathConnection(ClientConnection):
    """A connection whose requests are offered to `take` first."""

    def __init__(self, take: Take, limits: ConnectionLimits, *arguments: Any, **named: Any) -> None:
        super().__init__(limits, *arguments, **named)
        self._take = take
        self._short = False
        self._ordinary = False
        self._respond: Respond | None = None
        self._plain_lines: tuple[tuple[bytes, bytes], ...] | None = None
        self.memo: object = None
        """What an endpoint remembers of the last request, for one that is like it."""
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._body_timer: asyncio.TimerHandle | None = None

    # -- what arrives

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, and serve what is whole; keep it where a request is being served here."""
        if self._short:
            self._hold(data)
            return
        waiter, self._waiter = self._waiter, None  # the parser must not wake aiohttp's task
        try:
            super().data_received(data)
        finally:
            self._waiter = waiter
        if self._messages:
            self._serve_next()

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > MAX_HELD_BYTES:
            self._pause_transport_reading()

    def _serve_next(self) -> None:
        """Offer the request that waits; wake aiohttp's task for what is left, or not alone."""
        waiter = self._waiter
        if self._ordinary or (waiter is not None and waiter.done()):
            return  # the task looks for the next request by itself
        message, payload = self._messages[0]
        alone = len(self._messages) == 1
        if alone and isinstance(message, RawRequestMessage) and self._is_plain(message):
            if not payload.is_eof() and payload.exception() is None:
                self._await_body()
                return
            if self._offer(message, payload):
                return
        self._wake_task()

    def _is_plain(self, message: RawRequestMessage) -> bool:
        """Tell whether a request may be one for the short path, as far as HTTP goes."""
        if self._paused or self._reading_paused or self._buffer_paused or self._refused:
            return False
        if self._close or self._force_close or self._upgraded or message.upgrade:
            return False
        if message.version != HttpVersion11 or not message.path.startswith("/"):
            return False
        lines = message.raw_headers
        if lines == self._plain_lines:
            return True
        if not _has_plain_headers(message):
            return False
        if sum([len(name) + len(value) for name, value in lines]) <= MAX_REMEMBERED_BYTES:
            self._plain_lines = lines
        return True

    def _offer(self, message: RawRequestMessage, payload: StreamReader) -> bool:
        self._cancel_body_timer()
        if payload.exception() is not None:
            return False
        return self._take(ShortRequest(self, message, payload))

    def _await_body(self) -> None:
        """Wait a moment for the rest of a small body: over a network it comes in a few segments."""
        if self._body_timer is None:
            self._body_timer = self._loop.call_later(BODY_TIMEOUT, self._wake_task)

    def _wake_task(self) -> None:
        self._cancel_body_timer()
        if self._messages and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _cancel_body_timer(self) -> None:
        timer, self._body_timer = self._body_timer, None
        if timer is not None:
            timer.cancel()

    # -- a request of the short path

    def begin_request(self) -> None:
        """Take the first request that waits from aiohttp's queue."""
        self._messages.popleft()
        self._latest_body = None  # it is whole: nothing keeps it but the request
        if self._parser is not None:
            self._parser.message_consumed()
        if self._manager is not None:
            self._manager.requests_count += 1
        self._short = self._request_in_progress = True

    def end_request(self, response: bytes | None, *, close: bool) -> None:
        """Send a response; then go on with what has arrived meanwhile."""
        self._short = self._request_in_progress = False
        if self._handler_waiter is not None and not self._handler_waiter.done():
            self._handler_waiter.set_result(None)
        transport = self.transport
        if transport is None:
            return
        if response is None:
            transport.abort()
            return
        transport.write(response)
        if close or self._close or self._force_close:
            self.force_close()
            return
        self._restart_keepalive()
        self._release_held()

    def hand_over_request(
        self, message: RawRequestMessage, payload: StreamReader, respond: Respond
    ) -> None:
        """Put a request back in front, for aiohttp's task, which calls `respond` for it.

        The task of a connection that is being closed takes no request any more: that one is aborted.
        """
        if self._close or self._force_close:
            self.end_request(None, close=True)
            return
        self._short, self._ordinary = False, True
        self._respond = respond
        self._messages.appendleft((message, payload))
        self._wake_task()
        self._release_held()

    def _release_held(self) -> None:
        if self._held:
            held, paused = b"".join(self._held), self._held_bytes > MAX_HELD_BYTES
            self._held, self._held_bytes = [], 0
            if paused and not self._reading_paused and not self._buffer_paused:
                self._resume_transport_reading()
            self.data_received(held)

    def _restart_keepalive(self) -> None:
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(
                self._next_keepalive_close_time, self._process_keepalive
            )

    def _process_keepalive(self) -> None:
        """Close an idle connection: one that is served here is not idle, though its task waits."""
        if self._short or self._body_timer is not None:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Drop what waits; a request that waits for its body begins first, and fails as others do."""
        self._held.clear()
        if self._body_timer is None:
            super().connection_lost(exc)
            return
        self._wake_task()
        # Behind two steps: aiohttp's task takes the request, and the task that it starts begins it.
        self._loop.call_soon(self._loop.call_soon, super().connection_lost, exc)

    # -- a request of the ordinary path

    def begin_ordinary(self) -> None:
        """Note that aiohttp's task has taken a request."""
        self._cancel_body_timer()
        self._ordinary = True

    async def _handle_request(
        self,
        request: web.BaseRequest,
        start_time: float | None,
        request_handler: Respond,
    ) -> tuple[web.StreamResponse, bool]:
        """Serve a request; one that was handed over has been dispatched already."""
        respond, self._respond = self._respond, None
        return await super()._handle_request(request, start_time, respond or request_handler)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """End a request of the ordinary path.

        The next one may come before the task waits again: from here on it can be served at once.
        """
        response, reset = await super().finish_response(request, resp, start_time)
        if not reset and response.keep_alive and request.content.is_eof():
            self._ordinary = False
        return response, reset


def _has_plain_headers(message: RawRequestMessage) -> bool:
    """Tell whether the headers of a request to HTTP/1.1 are clear, and need nothing special."""
    headers = message.headers
    if message.should_close or message.chunked or any(name in headers for name in _SPECIAL):
        return False
    length = headers.get("Content-Length")
    if length is not None and (len(length) > 5 or int(length) > MAX_BODY_BYTES):
        return False
    return find_ambiguity(message.version, message.path, headers) is None
