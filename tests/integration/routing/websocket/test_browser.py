"""WebSocket connections of pages in a real browser: of the gateway's own origin, and of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import StartGateway
from tests.integration.uploads.test_foreign_page import serving_page, visiting_page
from tests.support.routing.scripted import route, write
from tests.support.routing.websocket import socket_route, socket_server

pytestmark = pytest.mark.slow

PAGE = route("/page", 'return 200, "<!doctype html><title>page</title>", {"Content-Type": "text/html"}')

CONVERSE = """url => new Promise(resolve => {
    const socket = new WebSocket(url), got = [];
    socket.onopen = () => { socket.send("hello"); socket.send("x".repeat(100000)); };
    socket.onmessage = event => {
        got.push(event.data.length);
        if (got.length === 2) socket.close(4001, "enough");
    };
    socket.onclose = event => resolve([got, event.code, event.reason, event.wasClean]);
})"""


async def test_a_page_of_the_gateway_converses_and_others_only_where_they_are_named(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    async with socket_server() as server, serving_page() as origin, visiting_page(origin) as visit:
        named = socket_route(server, path="/named", more=f"cors: {{origins: ['{origin}']}}\n")
        plugins = write(tmp_path / "plugins", PAGE, socket_route(server), named)
        gateway = await start_gateway(auth="none", plugins=[str(plugins)])
        base = f"ws://{gateway.address[0]}:{gateway.address[1]}"
        conversed = [[5, 100_000], 4001, "enough", True]
        refused = [[], 1006, "", False]
        assert await visit.page.evaluate(CONVERSE, f"{base}/ws") == refused
        assert await visit.page.evaluate(CONVERSE, f"{base}/named") == conversed
        await visit.page.goto(f"{gateway.url}/page")
        assert await visit.page.evaluate(CONVERSE, f"{base}/ws") == conversed
