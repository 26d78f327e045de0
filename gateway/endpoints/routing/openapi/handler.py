"""Serves the document: to each caller what it may call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Final

from aiohttp import hdrs

from gateway.auth.authenticator import Auth
from gateway.auth.request import IncomingRequest
from gateway.endpoints.routing.openapi.audience import Audience, VisibleOperations
from gateway.endpoints.routing.openapi.document import document
from gateway.endpoints.routing.table import RouteTable
from gateway.http.responses import ApiHandler, Response
from gateway.settings import Settings

MAX_CACHED_DOCUMENTS: Final = 8
"""Documents to keep, one for callers who see the same; 1,000 operations take tenths of a second."""


class OpenApiEndpoint:
    """Serves `/-/openapi.json`. `table` returns the routes that are loaded now."""

    def __init__(self, settings: Settings, auth: Auth, table: Callable[[], RouteTable]) -> None:
        self._settings = settings
        self._table = table
        self._audience = Audience(auth, settings)
        self._cached_table: RouteTable | None = None
        self._cached: dict[object, bytes] = {}

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is served here."""
        return {"openapi": self._serve}

    async def _serve(self, incoming: IncomingRequest) -> Response:
        table = self._table()
        visible = await self._audience.visible(incoming, table.routes)
        text = await self._document(table, visible)
        caller = incoming.caller.principal if incoming.caller is not None else None
        named = None if caller is None else {"name": caller["name"], "kind": caller["kind"]}
        opening = b'{"x-gateway-caller": ' + json.dumps(named).encode() + b", "
        response = Response(body=opening + text[1:], content_type="application/json", charset="utf-8")
        response.headers[hdrs.CACHE_CONTROL] = "no-store"
        response.headers[hdrs.VARY] = "Authorization, X-Auth-Token"
        return response

    async def _document(self, table: RouteTable, visible: VisibleOperations) -> bytes:
        if table is not self._cached_table:
            self._cached_table, self._cached = table, {}
        cached, identity = self._cached, visible.identity
        if identity not in cached:
            text = await asyncio.to_thread(_encode, visible, self._settings)
            while len(cached) >= MAX_CACHED_DOCUMENTS:
                del cached[next(iter(cached))]
            cached[identity] = text
        return cached[identity]


def _encode(visible: VisibleOperations, settings: Settings) -> bytes:
    return json.dumps(document(visible, settings), ensure_ascii=False, default=str).encode() + b"\n"
