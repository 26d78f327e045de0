"""Small requests of plain routes, served at once: forwarded without a task or a future.

The checks are those of the ordinary path, in the same order. What is refused before anything has an
effect is left to that path. A response that is long, slow or not plainly framed is handed over to it.
"""

from __future__ import annotations

from typing import Final, cast

from aiohttp import hdrs
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.auth.trusted_proxies import Proxies
from gateway.endpoints.routing.model import RequestContext
from gateway.endpoints.routing.proxy.proxy import Proxy
from gateway.endpoints.routing.route_access import check_client
from gateway.endpoints.routing.short_path.plain_text import (
    RequestMemo,
    recall_request,
)
from gateway.endpoints.routing.short_path.short_forward import ShortForward, ShortParts
from gateway.endpoints.routing.steps.route_steps import RouteSteps
from gateway.endpoints.routing.table import RouteTable
from gateway.endpoints.short_path import ShortExchange
from gateway.limits import MinRate

LEFT_METHODS: Final = frozenset({hdrs.METH_HEAD, hdrs.METH_OPTIONS, hdrs.METH_CONNECT, hdrs.METH_TRACE})
"""Methods that are left to the ordinary path: their responses are special, or they are not proxied."""


class ShortRoutes:
    """Requests of routes that are checked and forwarded, and no more (`Route.is_plain`)."""

    def __init__(self, steps: RouteSteps, proxy: Proxy, proxies: Proxies, min_rate: MinRate) -> None:
        self.parts = ShortParts(steps, proxy, min_rate)
        self._proxies = proxies

    def take(self, exchange: ShortExchange, table: RouteTable) -> bool:
        """Serve a request, or leave it. Raises `Refusal`; once it has begun that is the answer."""
        head = exchange.head
        if head.method in LEFT_METHODS:
            return False
        memo = recall_request(exchange.request, table)
        match = memo.match if memo is not None else table.find(head)
        route, steps = match.route, self.parts.steps
        if route.name not in table.plain_routes or steps.cors_policy(route) is not None:
            return False
        exchange.facts.route = route.label
        received = cast(CIMultiDictProxy[str], head.headers)
        context = RequestContext(
            incoming=head,
            route=route,
            operation=match.operation,
            resources=match.resources,
            raw_resources=match.raw_resources,
            params=head.params,
            headers=memo.headers if memo is not None else CIMultiDict(received),
            remote=self._proxies.client_address(head.remote, head.headers),
            path=match.path,
            body=exchange.body,
        )
        check_client(route.clients, context.remote)
        if not steps.authorize.authorize_now(context):
            return False
        exchange.begin()
        memo = memo or RequestMemo(table, match, context.headers)
        ShortForward(self.parts, exchange, context, memo).start()
        return True
