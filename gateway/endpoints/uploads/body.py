"""Receives a body through the event loop: buffered where it is small and has arrived, else streamed.

Only "all declared bytes" or "a clean last chunk" is an end; everything else raises.
"""

from __future__ import annotations

import asyncio

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.commit.writer import PendingWrite
from gateway.endpoints.inflight import Progress
from gateway.errors import Refusal
from gateway.http.protocol import send_continue
from gateway.storage.local.incoming import MAX_IN_MEMORY_BYTES


class BrokenBodyError(Exception):
    """The client disconnected in the middle of the body: there is nothing to commit or to answer."""


def body_is_buffered(request: web.BaseRequest) -> bool:
    """Tell whether a whole small body is in memory already, as a few KiB usually are.

    Such an upload needs no thread and no file before its commit, which checks the target and the
    space for many uploads at once. Not so where the client waits for `100 Continue`, or for
    `If-Match`: the commit would create a missing folder to check it.
    """
    content = request.content
    if not content.is_eof() or content.total_bytes > MAX_IN_MEMORY_BYTES:
        return False
    if content.exception() is not None:
        return False
    return "Expect" not in request.headers and "If-Match" not in request.headers


def read_buffered(request: web.BaseRequest) -> bytes:
    """Return the body of a request for which `body_is_buffered` is true."""
    content = request.content
    return b"" if content.at_eof() else content.read_nowait(-1)


async def send_continue_or_disconnect(request: web.BaseRequest) -> None:
    """Send `100 Continue`. Raises `BrokenBodyError`."""
    try:
        await send_continue(request)
    except OSError as error:
        raise BrokenBodyError("the client did not wait for 100 Continue") from error


def check_received(received: int, limit: int | None) -> None:
    """Check the bytes received so far against the size limit (None: none). Raises `Refusal`."""
    if limit is not None and received > limit:
        raise Refusal("too_large", f"the upload is larger than {limit} bytes")


def idle_refusal(seconds: float) -> Refusal:
    """Return the refusal for a client that sends nothing for `seconds`."""
    return Refusal("idle_timeout", f"no byte came for {seconds:g} seconds")


class BodyChunkReader:
    """Reads one body chunk by chunk. `idle_timeout` is the time without a byte, in seconds."""

    def __init__(self, content: StreamReader, idle_timeout: float) -> None:
        self._content = content
        self._idle_timeout = idle_timeout

    async def next_chunk(self) -> bytes:
        """Return the next chunk, b"" at the clean end.

        Raises `Refusal` (`idle_timeout`, `incomplete_body`) or `BrokenBodyError`.
        """
        content = self._content
        try:
            async with asyncio.timeout(self._idle_timeout):
                while not content.at_eof():
                    if chunk := await content.readany():
                        return chunk
        except TimeoutError:
            raise idle_refusal(self._idle_timeout) from None
        except OSError as error:
            raise BrokenBodyError(str(error) or type(error).__name__) from error
        except (web.RequestPayloadError, HttpProcessingError) as error:
            raise Refusal("incomplete_body", "the body is not well-formed") from error
        return b""


async def receive_streamed(
    request: web.BaseRequest, progress: Progress, pending: PendingWrite, idle_timeout: float
) -> None:
    """Read the body to its end; the client is read no faster than the storage writes.

    Raises `Refusal` (`too_large`, `no_space`, `idle_timeout`, `incomplete_body`) or `BrokenBodyError`
    when the connection is closed.
    """
    upload = progress.upload
    reader = BodyChunkReader(request.content, idle_timeout)
    while chunk := await reader.next_chunk():
        progress.received += len(chunk)
        check_received(progress.received, upload.max_bytes)
        await pending.write(chunk)
    if upload.content_length is not None and progress.received != upload.content_length:
        raise Refusal("incomplete_body", "the body ended before its declared length")
