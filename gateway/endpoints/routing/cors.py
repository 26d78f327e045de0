"""The step that lets pages of other origins call from a browser, or not.

One rule: every answer of a route that has `cors` carries its headers, refusals too: a page cannot
read an error otherwise. Preflights are answered here, before authorization: browsers send none with
them. Source: Fetch standard, CORS protocol.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from typing import Final

from aiohttp import hdrs, web

from gateway.endpoints.routing.model import CorsPolicy, Next, RequestContext, Route
from gateway.errors import Refusal
from gateway.plugins.scripting.namespace import METHODS

ASKED_METHOD: Final = hdrs.ACCESS_CONTROL_REQUEST_METHOD
_ANSWERED: Final = (
    hdrs.ACCESS_CONTROL_ALLOW_ORIGIN,
    hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS,
    hdrs.ACCESS_CONTROL_EXPOSE_HEADERS,
)


def preflight_method(request: web.BaseRequest) -> str | None:
    """Return the method that a preflight asks about, or None: this is no preflight."""
    if request.method != "OPTIONS" or hdrs.ORIGIN not in request.headers:
        return None
    return request.headers.get(ASKED_METHOD)


class CorsStep:
    """The step. `everywhere` holds for routes that do not say `cors`; None leaves them alone."""

    def __init__(self, everywhere: CorsPolicy | None) -> None:
        self._everywhere = everywhere

    def of(self, route: Route) -> CorsPolicy | None:
        """Return what holds for a route."""
        return route.cors or self._everywhere

    async def __call__(self, exchange: RequestContext, following: Next) -> web.StreamResponse:
        """Answer a preflight; else put the headers on whatever answer there is."""
        cors = self.of(exchange.route)
        if cors is None:
            return await following(exchange)
        if preflight_method(exchange.request) is not None:
            return _preflight(exchange, cors)
        try:
            answer = await following(exchange)
        except Refusal as refusal:
            _allow(exchange, cors, refusal.headers)
            raise
        for name in _ANSWERED:  # an upstream's own are for its own address
            answer.headers.popall(name, None)
        _allow(exchange, cors, answer.headers)
        return answer


def _preflight(exchange: RequestContext, cors: CorsPolicy) -> web.Response:
    answer = web.Response(status=204)
    asked = exchange.request.headers
    if not _allow(exchange, cors, answer.headers):
        raise Refusal("forbidden", "pages of this origin may not call here", {"Vary": "Origin"})
    methods = cors.methods or exchange.route.methods or METHODS
    answer.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = ", ".join(methods)
    headers = ", ".join(cors.headers) or asked.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "")
    if headers:
        answer.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = headers
    answer.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = str(cors.max_age)
    answer.headers[hdrs.VARY] = f"Origin, {ASKED_METHOD}, {hdrs.ACCESS_CONTROL_REQUEST_HEADERS}"
    return answer


def _allow(exchange: RequestContext, cors: CorsPolicy, headers: MutableMapping[str, str]) -> bool:
    """Write what holds for the caller's origin; tell whether it is welcome."""
    headers[hdrs.VARY] = _with_origin(headers.get(hdrs.VARY))
    origin = exchange.request.headers.get(hdrs.ORIGIN)
    if origin is None or not _welcome(origin, cors.origins):
        return False
    anybody = "*" in cors.origins and not cors.credentials
    headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = "*" if anybody else origin
    if cors.credentials:
        headers[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"
    if cors.expose:
        headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = ", ".join(cors.expose)
    return True


def _welcome(origin: str, origins: Iterable[str]) -> bool:
    return any(known in ("*", origin.lower(), origin) for known in origins)


def _with_origin(vary: str | None) -> str:
    if not vary:
        return "Origin"
    named = {name.strip().lower() for name in vary.split(",")}
    return vary if named & {"origin", "*"} else f"{vary}, Origin"
