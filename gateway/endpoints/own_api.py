"""Serves the endpoints below `/-/`: finds the row of `API_ROUTES` and checks its caller."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, Protocol

from gateway.auth.authenticator import Auth
from gateway.auth.principals import JWT
from gateway.auth.request import IncomingRequest
from gateway.auth.roles import UPLOADER
from gateway.domain import paths
from gateway.domain.api_routes import Access, match_api_route
from gateway.errors import Refusal
from gateway.http.responses import ApiHandler, GatewayResponse


class Pages(Protocol):
    """Has the pages for people."""

    @property
    def docs(self) -> str:
        """The path of what lists the endpoints."""

    def page(self, incoming: IncomingRequest) -> GatewayResponse | None:
        """Return the page of a request that a browser sends for a person, None for any other one."""

    def set_vary(self, method: str, raw_path: str, headers: MutableMapping[str, str]) -> None:
        """Tell caches that the path of a page has another answer for a program."""


class OwnApi:
    """Dispatches to `handlers`, which are named as the endpoints of `API_ROUTES`.

    A browser that opens the path of an endpoint for a person gets the page of it.
    """

    def __init__(self, auth: Auth, handlers: Mapping[str, ApiHandler], pages: Pages) -> None:
        self._auth = auth
        self.handlers = dict(handlers)
        self.pages = pages

    async def serve(self, incoming: IncomingRequest) -> GatewayResponse:
        """Serve an endpoint of `API_ROUTES`. An unauthorized client does not learn which ones exist."""
        page = self.pages.page(incoming)
        if page is not None:
            return page
        match = match_api_route(paths.decode(incoming.raw_path))
        if match is not None and match.access is Access.SIGNED_OR_PEER:
            match = None  # `/-/objects` in another spelling: only the plain one is served
        if match is not None and match.access is Access.OWNER and not incoming.owner:
            match = None
        access = Access.OPERATOR if match is None else match.access
        if access is not Access.PUBLIC and not incoming.owner:
            self._auth.local_only.refuse_proxy(incoming.request.headers)
            try:
                incoming.operator = await self._operator(incoming, access)
            except Refusal:
                if access is not Access.DEFAULT:
                    raise
        if match is None:
            raise Refusal("not_found", f"there is no such endpoint; {self.pages.docs} lists them")
        route = match.route(incoming.request.method)
        if route is None:
            allowed = ", ".join(match.allowed)
            raise Refusal("method_not_allowed", f"this endpoint takes {allowed}", {"Allow": allowed})
        incoming.variables = match.variables
        return await self.handlers[route.endpoint](incoming)

    async def _operator(self, incoming: IncomingRequest, access: Access) -> Mapping[str, Any] | None:
        """Return the principal of an operator; None: everyone is one, or the endpoint decides."""
        if access is Access.CALLER:
            return None
        caller = await self._auth.authenticate(incoming, jwt=self._auth.mode == JWT)
        incoming.reject_unenforceable_grant()
        if access is Access.LINK:
            return None
        is_uploader = caller.link is not None or self._auth.role(caller) == UPLOADER
        if access is Access.UPLOADER and is_uploader:
            incoming.uploader = caller.principal
            return None
        return self._auth.operator(caller.principal)
