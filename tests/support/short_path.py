"""A server that says which path of the connection served a request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from gateway.http.protocol import make_runner
from gateway.http.responses import Response, SmallResponse, encode_response
from gateway.http.short_request import ShortRequest
from tests.support.harness import RawConnection, request_head


class Server:
    """A server that says which path served a request, and how many bytes its body had.

    Requests for `/ordinary` are left by the short path; those for `/held/` wait for `release`; those for
    `/kept` are answered by the test.
    """

    def __init__(self, order: str = "at once") -> None:
        self.address = ("127.0.0.1", 0)
        self.release = asyncio.Event()
        self.short: list[str] = []
        self.ordinary: list[str] = []
        self.lost: list[str] = []
        self.kept: list[ShortRequest] = []
        self._order = order
        self._tasks: set[asyncio.Task[None]] = set()
        self.runner: web.ServerRunner | None = None

    def take(self, request: ShortRequest) -> bool:
        """Serve a request on the short path, or leave it."""
        path = request.raw_path
        if path.startswith("/ordinary"):
            return False
        self.short.append(path)
        content = _content(path, request.body)
        request.begin()
        if path.startswith("/kept"):
            request.on_disconnect(lambda: self.lost.append(path))
            self.kept.append(request)
            return True
        if path.startswith("/held") or self._order == "later":
            request.on_disconnect(lambda: self.lost.append(path))
            task = asyncio.create_task(self._answer(request, content))
            self._tasks.add(task)
        else:
            self._end(request, content)
        return True

    async def _answer(self, request: ShortRequest, content: bytes) -> None:
        if request.raw_path.startswith("/held"):
            await self.release.wait()
        else:
            await asyncio.sleep(0)
        self._end(request, content)

    def _end(self, request: ShortRequest, content: bytes) -> None:
        request.end(encode_response(SmallResponse(200, {"Content-Type": "text/plain"}, content)))

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve a request of the ordinary path."""
        self.ordinary.append(request.raw_path)
        body = await request.content.read()
        response = Response(body=_content(request.raw_path, body), content_type="text/plain")
        await response.send(request)
        return response


def _content(path: str, body: bytes) -> bytes:
    return f"{path} {len(body)} {sum(body)}".encode()


@contextlib.asynccontextmanager
async def serving(
    order: str = "at once", *, short: bool = True, server: Server | None = None
) -> AsyncIterator[Server]:
    """Run a server, with or without the short path."""
    server = server or Server(order)
    runner = make_runner(server.handle, take=server.take if short else None)
    server.runner = runner
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.address = runner.addresses[0]
    try:
        yield server
    finally:
        await runner.cleanup()


def whole_put(path: str, body: bytes, *lines: str) -> bytes:
    """Return a whole upload."""
    return request_head("PUT", path, f"Content-Length: {len(body)}", *lines) + body


async def read_contents(connection: RawConnection, count: int) -> list[str]:
    """Read so many responses."""
    return [(await connection.answer()).body.decode() for _ in range(count)]


def connections_of(server: Server) -> list[Any]:
    """Return the connections that are open."""
    assert server.runner is not None
    assert server.runner.server is not None
    return list(server.runner.server.connections)
