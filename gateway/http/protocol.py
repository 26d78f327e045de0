"""HTTP as this project speaks it, on aiohttp's low-level server.

One handler gets every request right after its headers: nothing is routed, read or answered with
`100 Continue` before it decides (aiohttp's own application would do all three). Here are the
protocol's settings and the bounded drain.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final

from aiohttp import HttpVersion10, HttpVersion11, StreamReader, web
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy
from aiohttp.web_protocol import _ErrInfo

from gateway.errors import ConfigError, Refusal
from gateway.http.responses import refusal_answer
from gateway.telemetry.redaction import INTERNAL_HEADER

log = logging.getLogger("gateway.http")

READ_BUFFER: Final = 512 << 10
KEEP_ALIVE: Final = 75.0
"""Seconds an idle connection, or one that never sends a request, is kept."""

DRAIN_BYTES: Final = 256 << 20
DRAIN_SECONDS: Final = 10.0
DRAIN_SECONDS_EXPECT: Final = 2.0
"""A client that was told to wait for `100 Continue` has hardly anything on its way."""

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
SERVER: Final = "upload-gateway"

UPLOAD_ID: Final = web.RequestKey("upload_id", str)
"""Where a door leaves the id of the upload, for the log line of its request."""

SPOKEN: Final = (HttpVersion10, HttpVersion11)

_INTERNAL: Final = INTERNAL_HEADER.lower()
_HOST: Final = re.compile(r"[A-Za-z0-9._~:\[\]!$&'()*+;=%-]*")
_ABSOLUTE: Final = re.compile(r"https?://([^/?#]+)", re.IGNORECASE)

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class _Protocol(web.RequestHandler):
    """aiohttp's connection, with malformed requests answered in our own words."""

    _latest_body: StreamReader | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.when_lost: set[Callable[[], None]] = set()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell whoever waits for something else that the client has gone."""
        super().connection_lost(exc)
        for callback in tuple(self.when_lost):
            callback()

    def data_received(self, data: bytes) -> None:
        """Parse what came. Where the parser gives up inside a body, fail that body.

        aiohttp (3.14) only queues an error behind the request, whose reader would wait in vain.
        """
        known = self._request_count
        super().data_received(data)
        if self._request_count == known:
            return
        message, body = self._messages[-1]
        broken = self._latest_body
        if isinstance(message, _ErrInfo) and broken is not None and not broken.is_eof():
            broken.set_exception(web.RequestPayloadError("the body is not well-formed"))
        self._latest_body = body

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Go on reading; where reading never stopped (aiohttp asks at every piece) do nothing."""
        if self._reading_paused or self._buffer_paused:
            super().resume_reading(resume_parser)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Turn what the parser could not read into an error of the table."""
        if status >= 500:
            log.error("a request broke the server", exc_info=exc)
            return refusal_answer(Refusal("internal", "the server made a mistake; its log knows more"))
        log.info("malformed request", extra={"facts": {"status": "400", "remote": request.remote}})
        first_line = (message or "it is not HTTP").strip().splitlines()[0]
        answer = refusal_answer(Refusal("bad_request", f"malformed request: {first_line}"))
        answer.force_close()
        # aiohttp takes such a request for HTTP/1.0, where closing goes without saying.
        answer.headers["Connection"] = "close"
        return answer


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Protocol(self, loop=self._loop, **self._kwargs)


def make_runner(handler: Handler) -> web.ServerRunner:
    """Return a runner whose every unambiguous request goes to `handler`, body unread and undecoded.

    Raises `ConfigError` where aiohttp has only its parser in Python, which is more lenient.
    """
    if HttpRequestParser is HttpRequestParserPy:
        raise ConfigError(
            "aiohttp runs without its C parser: unset AIOHTTP_NO_EXTENSIONS, or install it from a wheel"
        )
    server = _Server(
        _refusing_ambiguous(handler),
        auto_decompress=False,
        read_bufsize=READ_BUFFER,
        keepalive_timeout=KEEP_ALIVE,
        lingering_time=0.0,
        access_log=None,
        logger=log,
        max_line_size=16384,
        max_field_size=16384,
    )
    return web.ServerRunner(server, handle_signals=False, shutdown_timeout=1.0)


def _refusing_ambiguous(handler: Handler) -> Handler:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        fault = _ambiguity(request)
        if "Upgrade" in request.headers:
            # We stay with HTTP/1.1, but aiohttp (3.14) loses bytes behind such a request: what came
            # next could be read from its middle.
            request._message = request._message._replace(should_close=True)
        if fault is None:
            return await handler(request)
        log.info("ambiguous request", extra={"facts": {"status": "400", "remote": request.remote}})
        if request.version not in SPOKEN:
            # The answer's first line repeats the version, and must not claim to speak it.
            request._cache["version"] = HttpVersion10
        answer = refusal_answer(Refusal("bad_request", f"malformed request: {fault}"))
        await answer_unread(request, answer)
        return answer

    return handle


def _ambiguity(request: web.BaseRequest) -> str | None:
    """Return what the parser lets pass, yet others might read otherwise: smuggling starts there."""
    if request.version not in SPOKEN:
        return "only HTTP/1.0 and HTTP/1.1 are spoken here"
    codings = request.headers.get("Transfer-Encoding")
    if codings is not None and codings.strip().lower() != "chunked":
        return "the only transfer coding known here is chunked"
    if codings is not None and request.version < HttpVersion11:
        return "HTTP/1.0 knows no Transfer-Encoding"  # RFC 9112 section 6.1
    host = request.headers.get("Host", "")
    if not _HOST.fullmatch(host):
        return "the Host is none"  # RFC 9112 section 3.2
    absolute = None if request.raw_path.startswith("/") else _ABSOLUTE.match(request.raw_path)
    if absolute is not None and absolute[1].lower() != host.lower():
        return "the Host is another than that of the target"
    return None


# -- the request's headers


def readable(value: str) -> str:
    """Return a header's value as proper text.

    aiohttp leaves bytes that are no UTF-8 as surrogates, and those can be written down nowhere.
    """
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def joined(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers as a plain dict; lines of one name are joined (RFC 9110 section 5.2).

    An internal credential stays out: it is for `auth` alone, not for scripts.
    """
    found: dict[str, str] = {}
    names: dict[str, str] = {}
    for name, raw in headers.items():
        lowered = name.lower()
        if lowered == _INTERNAL:
            continue
        value = raw if raw.isascii() else readable(raw)
        first = names.setdefault(lowered, name)
        if first in found:
            value = f"{found[first]}{'; ' if lowered == 'cookie' else ', '}{value}"
        found[first] = value
    return found


# -- the request's body


def expects_continue(request: web.BaseRequest) -> bool:
    """Tell whether the client waits for `100 Continue` (RFC 9110 section 10.1.1).

    Raises `Refusal("expectation_failed")` for an expectation we do not know.
    """
    expectation = request.headers.get("Expect")
    if expectation is None or request.version < (1, 1):
        return False
    if expectation.strip().lower() != "100-continue":
        raise Refusal("expectation_failed", "the only expectation met here is 100-continue")
    return True


async def send_continue(request: web.BaseRequest) -> None:
    """Let the client send its body. Raises `ConnectionError` if it has gone."""
    writer = request.writer
    await writer.write(CONTINUE)
    writer.output_size = 0


async def answer_unread(request: web.BaseRequest, answer: web.StreamResponse) -> None:
    """Send `answer` to a request whose body was not (wholly) read, and say that we close.

    Then swallow what the client still sends, bounded: closing over unread bytes would reset
    the connection, and the client would lose the status that it is owed.
    """
    answer.force_close()
    await answer.prepare(request)
    await answer.write_eof()
    waiting = "Expect" in request.headers
    if waiting and request.transport is not None and request.transport.can_write_eof():
        # It need not sit out our drain to see that nothing more will come.
        request.transport.write_eof()
    await _drain(request, DRAIN_SECONDS_EXPECT if waiting else DRAIN_SECONDS)


async def _drain(request: web.BaseRequest, seconds: float) -> None:
    left = DRAIN_BYTES
    try:
        async with asyncio.timeout(seconds):
            while left > 0 and not request.content.at_eof():
                left -= len(await request.content.readany())
    except Exception as fault:  # a broken, slow or gone client: nothing is owed to it any more
        log.debug("drain ended: %r", fault)


def is_unread(request: web.BaseRequest) -> bool:
    """Tell whether bytes of this request may still be on their way."""
    return not request.content.is_eof()


@contextlib.contextmanager
def on_disconnect(request: web.BaseRequest, callback: Callable[[], None]) -> Iterator[None]:
    """While in this context, call `callback` once the client's connection is lost, or already is.

    aiohttp cancels nothing then: an upload decides for itself what the loss means.
    """
    if request.transport is None:
        callback()
    protocol = request.protocol
    told = protocol.when_lost if isinstance(protocol, _Protocol) else set()
    told.add(callback)
    try:
        yield
    finally:
        told.discard(callback)


def abort(request: web.BaseRequest) -> None:
    """Close the connection at once, without an answer."""
    if request.transport is not None:
        request.transport.abort()
