"""A plain connection to an upstream, on aiohttp's C parser: one exchange at a time.

The request is whole and is written at once; the response is given out as soon as its head is here, and
its body is a `StreamReader` with back-pressure. What was not framed beyond doubt ends the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import aiohttp
from aiohttp import StreamReader, hdrs
from aiohttp.base_protocol import BaseProtocol
from aiohttp.helpers import EMPTY_BODY_STATUS_CODES
from aiohttp.http import HttpResponseParser, RawResponseMessage
from aiohttp.streams import EMPTY_PAYLOAD

from gateway.http.tracebacks import drop_tracebacks

READ_BUFFER_BYTES: Final = 64 << 10
MAX_FIELD_BYTES: Final = 64 << 10
"""Bytes of a body that is read ahead, and of a line in a head."""

SWITCHING_PROTOCOLS: Final = 101


class ResponseMissingError(Exception):
    """An exchange has ended without a response. `closed`: the upstream closed the connection."""

    def __init__(self, *, closed: bool = False, timed_out: bool = False) -> None:
        super().__init__("no response")
        self.closed = closed
        self.timed_out = timed_out


Receive = Callable[["PlainResponse | None", ResponseMissingError | None], None]
"""Gets the response of an exchange, or why there is none. Called once, from the loop."""


class PlainResponse:
    """A response whose head is here; `content` is its body.

    `on_end` is called once the body has ended, well or not, if it had not ended before.
    """

    __slots__ = ("_connection", "content", "headers", "message", "method", "on_end", "reason", "status")

    connection: Final = None
    """None: where the connection is lost, `content` fails by itself."""

    def __init__(
        self,
        connection: UpstreamConnection,
        method: str,
        message: RawResponseMessage,
        body: StreamReader,
    ) -> None:
        self._connection = connection
        self.method = method
        self.message = message
        self.status = message.code
        self.reason = message.reason
        self.headers = message.headers
        self.content = body
        self.on_end: Callable[[], None] | None = None

    @property
    def memo(self) -> object:
        """What is remembered of the last response on the same connection."""
        return self._connection.memo

    @memo.setter
    def memo(self, memo: object) -> None:
        self._connection.memo = memo

    def has_ended(self) -> bool:
        """Tell whether the body is here to its end, or will never be."""
        return self.content.is_eof() or self.content.exception() is not None

    def release(self) -> None:
        """Let the connection serve the next exchange if this one has ended cleanly; else close it."""
        self._connection.end(self, reuse=self.content.is_eof() and self.content.exception() is None)

    def close(self) -> None:
        """Close the connection."""
        self._connection.end(self, reuse=False)


class UpstreamConnection(BaseProtocol):
    """`idle` gets the connection when it can be used again, `lost` when it no longer can.

    `tail` is what came behind the head of a 101: bytes of the other protocol.
    """

    __slots__ = (
        "_deadline", "_idle", "_lost", "_method", "_receive", "_response", "_reusable", "_timer",
        "memo", "tail", "upstream",
    )  # fmt: skip

    def __init__(
        self,
        upstream: str,
        idle: Callable[[UpstreamConnection], None],
        lost: Callable[[UpstreamConnection], None],
    ) -> None:
        super().__init__(asyncio.get_running_loop())
        self.upstream = upstream
        self._idle = idle
        self._lost = lost
        self._receive: Receive | None = None
        self._response: PlainResponse | None = None
        self._method = hdrs.METH_GET
        self._reusable = True
        self.memo: object = None
        self.tail = b""
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def is_usable(self) -> bool:
        """Tell whether the next exchange can begin."""
        transport = self.transport
        return self._reusable and transport is not None and not transport.is_closing()

    # -- an exchange

    def send(self, request: bytes, method: str, idle: float, receive: Receive) -> None:
        """Send a request, and wait `idle` seconds for the head of its response."""
        transport = self.transport
        if transport is None:
            raise RuntimeError("the connection is closed")
        self._receive, self._method = receive, method
        self._parser = HttpResponseParser(
            self,
            self._loop,
            READ_BUFFER_BYTES,
            max_line_size=MAX_FIELD_BYTES,
            max_field_size=MAX_FIELD_BYTES,
            payload_exception=aiohttp.ClientPayloadError,
            response_with_body=method != hdrs.METH_HEAD,
            read_until_eof=True,
            auto_decompress=False,
        )
        transport.write(request)
        self.expire_after(idle)

    def stop_reading(self) -> None:
        """Read no more: what follows is for another protocol, which takes the transport."""
        self._pause_transport_reading()

    def cancel(self) -> None:
        """Close the connection without a word to the receiver."""
        self._receive = None
        self._abort()

    def end(self, response: PlainResponse, *, reuse: bool) -> None:
        """Let go of a response; a second call does nothing."""
        if self._response is not response:
            return
        self._response = None
        transport = self.transport
        if transport is None:
            return
        if reuse and self.is_usable() and self._is_clean(transport):
            self._idle(self)
        else:
            self._abort()

    def _is_clean(self, transport: asyncio.Transport) -> bool:
        """Tell whether nothing of this exchange is left: no byte to be sent, and none behind the end."""
        if transport.get_write_buffer_size() or self._parser is None:
            return False
        try:
            return self._parser.feed_eof() is None  # a message where another one has begun
        except Exception as error:
            drop_tracebacks(error)
            return False

    def data_received(self, data: bytes) -> None:
        """Parse what arrived. Empty data resumes a parser that was paused."""
        parser = self._parser
        if parser is None or (self._receive is None and self._response is None):
            self._abort()  # bytes without a request
            return
        try:
            messages, switched, self.tail = parser.feed_data(data)
        except Exception as error:
            self._fail(ResponseMissingError())
            drop_tracebacks(error)
            return
        if messages or switched:
            self._take(messages, switched)
        elif self._response is not None:
            self._report_end(self._response)

    def _take(self, messages: list[tuple[RawResponseMessage, StreamReader]], switched: bool) -> None:
        """Give out the response. What comes behind it ends the connection."""
        if switched:
            self._reusable = False
        received = False
        for message, body in messages:
            if self._response is not None:
                self._reusable = False
                break
            if 100 <= message.code < 200 and message.code != SWITCHING_PROTOCOLS:
                continue
            empty = message.code in EMPTY_BODY_STATUS_CODES or self._method == hdrs.METH_HEAD
            response = PlainResponse(self, self._method, message, EMPTY_PAYLOAD if empty else body)
            self._response, received = response, True
            if message.should_close:
                self._reusable = False
        receive = self._receive
        if received and receive is not None:
            self._receive = self._deadline = None
            receive(self._response, None)

    def _report_end(self, response: PlainResponse) -> None:
        if response.on_end is not None and response.has_ended():
            on_end, response.on_end = response.on_end, None
            on_end()

    def _fail(self, error: ResponseMissingError) -> None:
        """End the exchange: what is not HTTP, or came too late, or never."""
        self._reusable = False
        receive, self._receive = self._receive, None
        response = self._response
        self._abort()
        if receive is not None:
            receive(None, error)
        elif response is not None:
            if not response.has_ended():
                response.content.set_exception(
                    aiohttp.ClientPayloadError("the upstream's body is not well-formed")
                )
            self._report_end(response)

    def _abort(self) -> None:
        self._reusable = False
        if self.transport is not None:
            self.transport.abort()

    # -- the connection

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the exchange. A body without a declared end has ended well if no error says otherwise."""
        parser, response = self._parser, self._response
        super().connection_lost(exc)
        self._reading_paused = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._lost(self)
        if exc is None and parser is not None and response is not None and not response.has_ended():
            try:
                parser.feed_eof()
            except Exception as error:
                drop_tracebacks(error)
        self._fail(ResponseMissingError(closed=True))
        self._parser = None

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Resume reading; do nothing where it never stopped (aiohttp calls this for every chunk)."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    # -- time

    def expire_after(self, seconds: float) -> None:
        """Wait so long for a response, or idle for the next exchange.

        The timer is moved only where it would come too late: most waits are short.
        """
        deadline = self._deadline = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > deadline:
            self._set_timer(deadline)

    def _set_timer(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._check)

    def _check(self) -> None:
        self._timer = None
        if self._deadline is None:  # a response is on its way: its reader limits the time
            return
        if self._loop.time() < self._deadline:
            self._set_timer(self._deadline)
        else:
            self._fail(ResponseMissingError(timed_out=True))
