"""Routing door: the step that says who calls and whether that is enough.

One rule: everybody is authenticated, whatever the route asks for; credentials that are meant for
this gateway go no further than here. May import `routing.model`, auth and the foundations.
"""

from __future__ import annotations

from typing import Final

from aiohttp import hdrs, web

from gateway.auth import CHALLENGE, Auth
from gateway.errors import Refusal
from gateway.redaction import INTERNAL_HEADER
from gateway.routing.model import Exchange, Next

TOKEN_HEADERS: Final = (hdrs.AUTHORIZATION, "X-Auth-Token")


class Authorize:
    """The step. `axis` is the default authorization, `token` asks for one even where that is none."""

    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    async def __call__(self, exchange: Exchange, following: Next) -> web.StreamResponse:
        """Fill the principal. Raises Refusal `unauthorized`."""
        request = exchange.request
        headers = request.headers
        exchange.principal = await self._auth.identify(headers, request.method, request.raw_path)
        self._auth.keeps_terms(headers, request.method, request.raw_path)
        await self._keep_credentials_here(exchange)
        mode = exchange.route.auth_mode
        if mode == "axis":
            self._auth.authorize(exchange.principal)
        elif mode == "token" and exchange.principal is None:
            raise Refusal("unauthorized", "this path needs a token", CHALLENGE)
        return await following(exchange)

    async def _keep_credentials_here(self, exchange: Exchange) -> None:
        """Take our own tokens out of what goes upstream; others are the upstream's and stay."""
        exchange.headers.popall(INTERNAL_HEADER, None)
        for name in TOKEN_HEADERS:
            value = exchange.headers.get(name)
            if value is not None and await self._auth.identify({name: value}) is not None:
                exchange.headers.popall(name)
