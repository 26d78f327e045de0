"""An API as the upstream of a route: a real aiohttp server, and routes that lead to it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.support.routing.scripted import route

ApiHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Api:
    """A server for one handler. `asked`: the requests that it got, in order."""

    authority: str
    asked: list[web.Request] = field(default_factory=list)

    def route(self, path: str = "/r", script: str | None = None, more: str = "", **named: str) -> str:
        """As `scripted.route`, with this server as the upstream."""
        text = route(path, script, more, **named)
        return text.replace("upstreams: []", f"upstreams: ['{self.authority}']", 1)


@contextlib.asynccontextmanager
async def api(handler: ApiHandler, max_bytes: int = 1 << 20) -> AsyncIterator[Api]:
    """Serve every path and method with `handler`; a request's body has at most `max_bytes`."""

    async def handle(request: web.Request) -> web.StreamResponse:
        served.asked.append(request)
        await request.read()
        return await handler(request)

    application = web.Application(client_max_size=max_bytes)
    application.router.add_route("*", "/{path:.*}", handle)
    async with TestServer(application, host="127.0.0.1") as server:
        served = Api(f"{server.host}:{server.port}")
        yield served
