"""One client plays every trick at once, and no request of another one fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from bench.greedy import GreedyClient, tricks
from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import RawResponse, raw_connection, request_head, write_plugin
from tests.support.notifications.samples import ceph, records

SECRET: Final = "0123456789abcdef0123"

BOUNDS: Final = {
    "gateway.endpoints.inflight.MAX_UPLOADS": 16,
    "gateway.endpoints.downloads.handler.MAX_OPEN_FILES": 16,
    "gateway.endpoints.downloads.archive.MAX_ARCHIVES": 4,
    "gateway.endpoints.notifications.handler.MAX_UNKNOWN": 8,
    "gateway.endpoints.routing.proxy.proxy.MAX_ROUTE_REQUESTS": 16,
}
"""Small ones, so that few connections reach them."""

CONNECTIONS: Final = 20
"""Of each trick."""

ROUNDS: Final = 5

ROUTES = """
- name: checked
  upstreams: []
  proxy: {path: /checked, authorization: {auth: none}}
  spec: [{method: POST, schema: {request: {body: {type: object}}}}]
  request_script: |
    return {"ok": True}
- name: silent
  upstreams: ['SILENT']
  proxy: {path: '/silent/{rest:path}', authorization: {auth: none}}
  target: {path: '/{rest}'}
- name: proxied
  upstreams: ['GOOD']
  proxy: {path: '/proxied/{rest:path}', authorization: {auth: none}}
  target: {path: '/{rest}'}
"""


@pytest.fixture
async def upstreams() -> AsyncIterator[tuple[str, str]]:
    """Addresses of a server that never answers, and of one that does."""

    async def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                body = b"ok" if b"/large" not in head else bytes(8 << 20)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                await writer.drain()
        writer.close()

    async with contextlib.AsyncExitStack() as stack:
        addresses = []
        for serve in (stay_silent, answer):
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            stack.callback(server.close)
            addresses.append(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        yield addresses[0], addresses[1]


@pytest.fixture
async def gateway(
    start_gateway: StartGateway,
    tmp_path: Path,
    upstreams: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> Gateway:
    for name, bound in BOUNDS.items():
        monkeypatch.setattr(name, bound)
    silent, good = upstreams
    plugins = write_plugin(tmp_path / "plugins", ROUTES.replace("SILENT", silent).replace("GOOD", good))
    stored = tmp_path / "data/upload"
    stored.mkdir(parents=True)
    with (stored / "big").open("wb") as big:
        big.truncate(64 << 20)
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    return await start_gateway(
        auth="none", downloads=True, plugins=[str(plugins)], notifications_secret_file=str(secret)
    )


async def ask(gateway: Gateway, method: str, target: str, body: bytes = b"", *lines: str) -> RawResponse:
    async with raw_connection(gateway) as connection:
        head = request_head(method, target, f"Content-Length: {len(body)}", "Connection: close", *lines)
        await connection.send(head + body)
        return await connection.answer()


async def requests_of_a_good_client(gateway: Gateway, number: int) -> list[int]:
    """Return the statuses of one request to everything that clients share."""
    json_body, secret = "Content-Type: application/json", f"Authorization: Bearer {SECRET}"
    responses = [
        await ask(gateway, "PUT", f"/upload/good/{number}", b"small"),
        await ask(gateway, "PUT", f"/upload/good/{number}.bin", b"y" * 300_000),
        await ask(gateway, "GET", f"/upload/good/{number}"),
        await ask(gateway, "GET", "/upload/big", b"", "Range: bytes=0-99999"),
        await ask(gateway, "GET", f"/upload/good/?format=zip&file={number}"),
        await ask(gateway, "POST", "/checked", json.dumps({"n": number}).encode(), json_body),
        await ask(gateway, "GET", "/proxied/x"),
        await ask(gateway, "POST", "/-/notifications", records(ceph()), secret),
        await ask(gateway, "GET", "/-/ready"),
    ]
    return [response.status for response in responses]


async def test_no_request_fails_beside_a_client_that_plays_every_trick_at_once(
    gateway: Gateway, tmp_path: Path
) -> None:
    declared = shutil.disk_usage(tmp_path).free - (80 << 20)
    greedy = GreedyClient(gateway.address)
    try:
        for name, trick in tricks(declared).items():
            greedy.play(name, trick, 4 if trick.repeated else CONNECTIONS)
        async with asyncio.timeout(60):
            for name in (
                "trickling uploads",
                "unread downloads",
                "unread archives",
                "unread responses of an upstream",
            ):
                while not greedy.statuses[name]["429"]:
                    await asyncio.sleep(0.01)  # nothing else tells that it has its share
        for number in range(ROUNDS):
            assert await requests_of_a_good_client(gateway, number) == [
                201, 201, 200, 206, 200, 200, 200, 200, 200,
            ]  # fmt: skip
    finally:
        await greedy.close()
