"""Receives a body through the event loop: buffered where it is small and has arrived, else streamed.

Only "all declared bytes" or "a clean last chunk" is an end; everything else raises.
"""

from __future__ import annotations

from aiohttp import web

from gateway.commit.writer import PendingWrite
from gateway.endpoints.inflight import Progress
from gateway.errors import Refusal
from gateway.http.request_body import read_chunk
from gateway.storage.local.incoming import MAX_IN_MEMORY_BYTES


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


def check_received(received: int, limit: int | None) -> None:
    """Check the bytes received so far against the size limit (None: none). Raises `Refusal`."""
    if limit is not None and received > limit:
        raise Refusal("too_large", f"the upload is larger than {limit} bytes")


async def receive_streamed(
    request: web.BaseRequest, progress: Progress, pending: PendingWrite, idle_timeout: float
) -> None:
    """Read the body to its end; the client is read no faster than the storage writes.

    Raises `Refusal` (`too_large`, `no_space`, `idle_timeout`, `incomplete_body`),
    `ClientDisconnected`.
    """
    upload = progress.upload
    while chunk := await read_chunk(request.content, idle_timeout):
        progress.received += len(chunk)
        check_received(progress.received, upload.max_bytes)
        await pending.write(chunk)
    if upload.content_length is not None and progress.received != upload.content_length:
        raise Refusal("incomplete_body", "the body ended before its declared length")
