"""Lets pages of any origin use the signed URLs that they were given.

The rule: it is the signature that allows, and it stands in the URL: a browser adds nothing of its
own to such a request, so there is nothing for a foreign page to borrow. Source: Fetch standard,
CORS protocol.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Final

from aiohttp import hdrs, web

from gateway.errors import Refusal

METHODS: Final = "GET, HEAD, PUT"
READABLE: Final = "Content-Range, ETag, Location, X-Request-Id"
"""Headers of answers that a page may read, beside those that it always may."""

SECONDS: Final = "3600"
"""For how long a browser remembers that it has asked."""

Serve = Callable[[], Awaitable[web.StreamResponse]]


async def for_any_origin(request: web.BaseRequest, serve: Serve) -> web.StreamResponse:
    """Answer a preflight; else serve, and let the page that asks read the answer, refusals too."""
    if hdrs.ORIGIN not in request.headers:
        return await serve()
    asked = hdrs.ACCESS_CONTROL_REQUEST_METHOD
    if request.method == "OPTIONS" and asked in request.headers:
        return _preflight(request)
    try:
        answer = await serve()
    except Refusal as refusal:
        _allow(refusal.headers)
        raise
    _allow(answer.headers)
    return answer


def _preflight(request: web.BaseRequest) -> web.Response:
    answer = web.Response(status=204)
    answer.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = "*"
    answer.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = METHODS
    headers = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS)
    if headers:
        answer.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = headers
    answer.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = SECONDS
    return answer


def _allow(headers: MutableMapping[str, str]) -> None:
    headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = "*"
    headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = READABLE
