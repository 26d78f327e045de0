"""plugins/proxy-example in front of a real HTTP API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support import PROJECT
from tests.support.harness import RawResponse, get, raw_connection, request_head

PLUGIN = PROJECT / "plugins" / "proxy-example"
ORDER = {"item": "tea", "quantity": 2}
JSON = "Content-Type: application/json"


class Api:
    """An HTTP API that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bytes]] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append((request.method, request.path_qs, await request.read()))
        if request.method == "POST":
            return web.json_response({"id": 7}, status=201)
        return web.Response(text=f"this is {request.path}")


@pytest.fixture
async def api() -> AsyncIterator[tuple[Api, int]]:
    served = Api()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", served.handle)
    server = web.AppRunner(app)
    await server.setup()
    await web.TCPSite(server, "127.0.0.1", 0).start()
    yield served, server.addresses[0][1]
    await server.cleanup()


@pytest.fixture
async def gateway(start_gateway: StartGateway, api: tuple[Api, int], tmp_path: Path) -> Gateway:
    """A gateway with the plugin as it is shipped, but for the API's port."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    for file in PLUGIN.glob("*.yaml"):
        text = file.read_text()
        (folder / file.name).write_text(text.replace("127.0.0.1:9000", f"127.0.0.1:{api[1]}"))
    return await start_gateway(plugins=[str(folder)])


async def ask(gateway: Gateway, method: str, target: str, body: bytes = b"", *lines: str) -> RawResponse:
    async with raw_connection(gateway) as connection:
        await connection.send(
            request_head(method, target, f"Content-Length: {len(body)}", *lines) + body
        )
        return await connection.answer()


async def order(gateway: Gateway, order: object, *lines: str) -> RawResponse:
    return await ask(gateway, "POST", "/api/orders", json.dumps(order).encode(), *lines)


async def test_a_good_order_reaches_the_api_as_it_was_sent(
    gateway: Gateway, api: tuple[Api, int]
) -> None:
    answer = await order(gateway, ORDER, JSON)
    assert (answer.status, answer.json) == (201, {"id": 7})
    assert api[0].asked == [("POST", "/v1/orders", json.dumps(ORDER).encode())]


@pytest.mark.parametrize(
    ("bad", "pointers"),
    [({"item": "tea"}, [""]), ({"item": "", "quantity": "hidden"}, ["/item", "/quantity"])],
)
async def test_a_bad_order_is_answered_here_with_every_fault_and_no_value(
    gateway: Gateway, api: tuple[Api, int], bad: object, pointers: list[str]
) -> None:
    answer = await order(gateway, bad, JSON)
    assert answer.status == 400
    assert b"hidden" not in answer.body
    for pointer in pointers:
        assert pointer in answer.body.decode()
    assert api[0].asked == []


async def test_a_page_of_the_shop_may_order_and_others_may_not(gateway: Gateway) -> None:
    def preflight(origin: str) -> tuple[str, ...]:
        return (f"Origin: {origin}", "Access-Control-Request-Method: POST")

    allowed = await ask(gateway, "OPTIONS", "/api/orders", b"", *preflight("https://shop.example"))
    assert allowed.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    refused = await ask(gateway, "OPTIONS", "/api/orders", b"", *preflight("https://else.example"))
    assert "Access-Control-Allow-Origin" not in refused.headers


async def test_the_twenty_first_order_of_a_minute_is_too_many(gateway: Gateway) -> None:
    statuses = [(await order(gateway, ORDER, JSON)).status for _ in range(20)]
    assert set(statuses) == {201}
    answer = await order(gateway, ORDER, JSON)
    assert answer.status == 429
    assert 0 < int(answer.headers["Retry-After"]) <= 60


async def test_everything_can_be_read_but_not_written(gateway: Gateway, api: tuple[Api, int]) -> None:
    answer = await get(gateway, "/api/items/7?full=1")
    assert (answer.status, answer.body) == (200, b"this is /v1/items/7")
    assert api[0].asked == [("GET", "/v1/items/7?full=1", b"")]
    assert (await ask(gateway, "DELETE", "/api/items/7")).status == 405
    assert len(api[0].asked) == 1


async def test_a_script_greets_without_any_api(gateway: Gateway, api: tuple[Api, int]) -> None:
    assert (await get(gateway, "/hello/Ada")).body == b"Hello, Ada!\n"
    assert (await get(gateway, "/hello/Ada", "Accept: application/json")).json == {"hello": "Ada"}
    assert (await get(gateway, "/hello/R2D2")).status == 400
    assert api[0].asked == []
