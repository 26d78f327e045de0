"""Reads request bodies: chunk by chunk, or a small one whole.

What can go wrong with a body is mapped to errors here and nowhere else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.auth.trusted_proxies import Proxies
from gateway.domain.proxy_headers import shows_proxy
from gateway.errors import ClientDisconnected, Refusal
from gateway.limits import TransferMeter

SMALL_BODY_TIMEOUT: Final = 10.0
"""Seconds that the whole body of a request to the gateway's own API may take."""


async def read_chunk(
    content: StreamReader, idle_timeout: float | None = None, meter: TransferMeter | None = None
) -> bytes:
    """Return the next chunk of a body, b"" at its clean end; `idle_timeout` is in seconds.

    `meter` judges how fast the body comes. Raises `Refusal` (`idle_timeout`, `incomplete_body`),
    `ClientDisconnected`.
    """
    timeout, started = asyncio.timeout(idle_timeout), time.monotonic()
    try:
        async with timeout:
            while not content.at_eof():
                if chunk := await content.readany():
                    if meter is not None and not content.is_eof():
                        meter.check(time.monotonic() - started, len(chunk))
                    return chunk
    except OSError as error:  # TimeoutError is one of them, from the timer or from the network
        if timeout.expired():
            raise idle_refusal(idle_timeout or 0.0) from None
        raise ClientDisconnected("the client disconnected in the middle of the body") from error
    except (web.RequestPayloadError, HttpProcessingError) as error:
        raise Refusal("incomplete_body", "the body is not well-formed") from error
    finally:
        del timeout  # it holds the task, which may keep an exception that holds this frame
    return b""


def idle_refusal(seconds: float) -> Refusal:
    """Return the refusal of a client that sent nothing for so many seconds."""
    return Refusal("idle_timeout", f"no byte of the body arrived for {seconds:g} seconds")


def body_too_large(limit: int) -> Refusal:
    """Return the refusal of a body of more than `limit` bytes."""
    return Refusal("too_large", f"the body is larger than the {limit} bytes that this path accepts")


def expects_continue(request: web.BaseRequest) -> bool:
    """Tell whether `100 Continue` is expected (RFC 9110 section 10.1.1). Raises `expectation_failed`."""
    expectation = request.headers.get("Expect")
    if expectation is None or request.version < (1, 1):
        return False
    if expectation.strip().lower() != "100-continue":
        raise Refusal("expectation_failed", "the only expectation supported here is 100-continue")
    return True


async def send_continue_or_disconnect(request: web.BaseRequest) -> None:
    """Let a client that waits for `100 Continue` send its body. Raises `ClientDisconnected`."""
    await _write_interim(request, b"HTTP/1.1 100 Continue\r\n\r\n")


def takes_interim(request: web.BaseRequest, proxies: Proxies) -> bool:
    """Tell whether an interim response other than 100 may be sent: HTTP/1.1, and no sign of a proxy.

    nginx takes such a response for the final one, and the final one for its body (1.22.1, measured).
    """
    if request.version < (1, 1) or proxies.believes(request.remote, {}):
        return False
    return not any(shows_proxy(name.lower()) for name in request.headers)


async def send_interim(request: web.BaseRequest, status: str, fields: Mapping[str, str]) -> None:
    """Send an interim response (RFC 9110 section 15.2). Raises `ClientDisconnected`."""
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    await _write_interim(request, "\r\n".join(lines).encode())


async def _write_interim(request: web.BaseRequest, raw: bytes) -> None:
    writer = request.writer
    try:
        await writer.write(raw)
    except OSError as error:
        raise ClientDisconnected("the client did not wait for an interim response") from error
    writer.output_size = 0


async def read_small_body(request: web.BaseRequest, max_bytes: int) -> bytes:
    """Return the whole body of a request to the gateway's own API.

    Raises `Refusal` (`too_large`, `idle_timeout`, `incomplete_body`), `ClientDisconnected`.
    """
    if (request.content_length or 0) > max_bytes:
        raise _too_large(max_bytes)
    if expects_continue(request):
        await send_continue_or_disconnect(request)
    body = bytearray()
    try:
        async with asyncio.timeout(SMALL_BODY_TIMEOUT):
            while chunk := await read_chunk(request.content):
                body += chunk
                if len(body) > max_bytes:
                    raise _too_large(max_bytes)
    except TimeoutError:
        message = f"the body took more than {SMALL_BODY_TIMEOUT:g} seconds"
        raise Refusal("idle_timeout", message) from None
    return bytes(body)


def _too_large(max_bytes: int) -> Refusal:
    return Refusal("too_large", f"the body is larger than the {max_bytes} bytes allowed here")
