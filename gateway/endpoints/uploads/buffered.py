"""Small bodies, the short road.

A body of a few KiB is usually here before anybody asks for it. Such an upload needs no look at the
disk before its body, no thread of its own and no file before its commit: the committer looks at the
target, checks the space and writes the bytes, for many uploads at once. Statuses and promises are
those of the long road. Touches nothing but the request's stream.
"""

from __future__ import annotations

from aiohttp import web

from gateway.storage.local.incoming import MAX_IN_MEMORY_BYTES


def is_here(request: web.BaseRequest) -> bool:
    """Tell whether all of a small body has come, so that the committer's look is soon enough.

    Not so where the client waits to be let in, or for `If-Match`: a folder that is missing must not
    be made to find that out.
    """
    content = request.content
    if (
        not content.is_eof()
        or content.total_bytes > MAX_IN_MEMORY_BYTES
        or content.exception() is not None
    ):
        return False
    return "Expect" not in request.headers and "If-Match" not in request.headers


def take(request: web.BaseRequest) -> bytes:
    """Return the body of a request whose body is here."""
    content = request.content
    return b"" if content.at_eof() else content.read_nowait(-1)
