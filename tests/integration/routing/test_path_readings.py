"""A protected route beside an open one: no spelling of a path leads to the protected place.

Real servers read paths in their own ways: nginx decodes and merges slashes before it chooses a
location, a WSGI server decodes before the application routes, aiohttp decodes once.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from aiohttp import web

from tests.conftest import StartGateway
from tests.support.harness import RawResponse, raw_connection, request_head, write_plugin
from tests.support.routing.nginx import nginx
from tests.support.routing.proxying import aiohttp_upstream

pytestmark = pytest.mark.both_paths

SECRET = b"ADMIN"
ROUTES = """
- upstreams: [{authority}]
  proxy: {{path: '/web/{{rest:path}}', authorization: {{auth: none}}}}
  target: {{path: '/{{rest:path}}'}}
- upstreams: [{authority}]
  proxy: {{path: '/web/admin/{{rest:path}}', authorization: {{auth: token}}}}
  target: {{path: '/admin/{{rest:path}}'}}
"""
AWAY = [
    "admin%2Fx", "admin%2fx", "admin%252Fx", "%2Fadmin/x", "/admin/x", "//admin/x", "admin;a=1/x",
    ";/admin/x", "admin%3B/x", "..;/admin/x", "x/..;/admin/x", "%2e%2e%2fadmin/x", "./admin/x",
    "x/../admin/x", "x/%2e%2e/admin/x", "x%2f..%2fadmin/x", "x%5c..%5cadmin/x", "x/.%2e/admin/x",
    "%252e%252e/admin/x", "admin%00/x", "ADMIN/x", "Admin%2Fx", "admin./x", "admin%20/x", "admin",
]  # fmt: skip
"""What follows `/web/`, and does not lead to the protected route."""

Server = Callable[[Path], AbstractAsyncContextManager[str]]


@contextlib.asynccontextmanager
async def nginx_server(folder: Path) -> AsyncIterator[str]:
    with nginx(folder / "nginx") as server:
        (server.files / "admin").mkdir()
        (server.files / "admin/x").write_bytes(SECRET)
        (server.files / "public").write_bytes(b"open")
        yield server.authority


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextlib.asynccontextmanager
async def wsgi_server(_: Path) -> AsyncIterator[str]:
    """A WSGI server: the application sees the decoded path."""

    def application(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        start("200 OK", [("Content-Type", "text/plain")])
        return [_page(environ["PATH_INFO"])]

    with make_server("127.0.0.1", 0, application, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextlib.asynccontextmanager
async def aiohttp_server(_: Path) -> AsyncIterator[str]:
    async def respond(request: web.BaseRequest) -> web.Response:
        return web.Response(body=_page(request.path))

    async with aiohttp_upstream(respond) as authority:
        yield authority


def _page(path: str) -> bytes:
    """Route as frameworks do that ignore case, merge slashes and drop parameters."""
    names = [name.partition(";")[0].lower().rstrip(". ") for name in path.split("/")]
    names = [name for name in names if name]
    return SECRET if names[:1] == ["admin"] else b"open"


needs_nginx = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")


SERVERS = [pytest.param(nginx_server, marks=needs_nginx), wsgi_server, aiohttp_server]


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("host", ["", "A.EXAMPLE.:80"])
async def test_no_spelling_leads_around_the_authorization_of_a_route_below(
    start_gateway: StartGateway, tmp_path: Path, server: Server, host: str
) -> None:
    routes = ROUTES.replace("- upstreams", "- hosts: [a.example]\n  upstreams") if host else ROUTES
    async with server(tmp_path) as authority:
        folder = write_plugin(tmp_path / "plugins", routes.format(authority=authority))
        gateway = await start_gateway(auth="none", plugins=[str(folder)])

        async def fetch(rest: str) -> RawResponse:
            async with raw_connection(gateway) as connection:
                head = request_head("GET", f"/web/{rest}", "Connection: close")
                named = head.replace(b"Host: localhost", f"Host: {host or 'localhost'}".encode())
                await connection.send(named)
                return await connection.answer()

        assert (await fetch("public")).body == b"open"
        assert (await fetch("admin/x")).status == 401
        assert (await fetch("%61dmin/x")).status == 401
        answers = {rest: await fetch(rest) for rest in AWAY}
        assert {rest: answer.status for rest, answer in answers.items()} == dict.fromkeys(AWAY, 400)
