"""A page of another origin in a real browser: what `--cors-origins` lets its scripts do and read."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from gateway.auth.tokens import token_digest
from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.integration.photos.browser import Visit, visiting
from tests.support.harness import put

pytestmark = pytest.mark.slow

TOKENS = [f"alice:{token_digest('secret-alice')}"]
TOKEN = "X-Auth-Token: secret-alice"

UPLOAD_AND_READ = """async base => {
    const headers = { "X-Auth-Token": "secret-alice", "Content-Type": "text/plain" };
    const stored = await fetch(base + "/upload/a.txt", { method: "PUT", headers, body: "hello" });
    const place = new URL(stored.headers.get("Location"), stored.url);
    const status = await fetch(place, { headers });
    const file = await fetch(base + "/upload/a.txt", { headers });
    return {
        stored: [stored.status, (await stored.json()).path, stored.headers.get("X-Request-Id") !== null],
        status: [status.status, (await status.json()).state],
        file: [file.status, await file.text(), file.headers.get("ETag") !== null,
               file.headers.get("Content-Disposition")],
    };
}"""

UPLOAD_WITH_PROGRESS = """base => new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const seen = [];
    request.upload.onprogress = event => seen.push(event.loaded);
    request.onload = () => resolve([request.status, JSON.parse(request.responseText).bytes,
                                    request.getResponseHeader("Location"), seen.length > 0]);
    request.onerror = () => reject(new Error("refused by the browser"));
    request.open("PUT", base + "/upload/large.bin");
    request.setRequestHeader("X-Auth-Token", "secret-alice");
    request.send(new Uint8Array(20_000_000));
})"""

REFUSED = """async base => {
    const answer = async (...asked) => {
        const response = await fetch(...asked);
        return [response.status, (await response.json()).error];
    };
    const headers = { "X-Auth-Token": "secret-alice" };
    return [
        await answer(base + "/upload/b.txt", { method: "PUT", body: "x" }),
        await answer(base + "/upload/b.txt", { method: "PUT", headers, body: "x".repeat(30_000_001) }),
        await answer(base + "/upload/none.txt", { headers }),
        await answer(base + "/upload/b.txt", { method: "DELETE", headers }),
        await answer(base + "/-/uploads/none", { headers }),
    ];
}"""

BLOCKED = """async base => {
    const blocked = async (...asked) => {
        try { return (await fetch(...asked)).status } catch (error) { return error.name }
    };
    const headers = { "X-Auth-Token": "secret-alice" };
    return [
        await blocked(base + "/upload/c.txt", { method: "PUT", headers, body: "x" }),
        await blocked(base + "/upload/a.txt", { headers }),
        await blocked(base + "/upload/c.txt", { method: "POST", body: "a form without asking" }),
    ];
}"""


@contextlib.asynccontextmanager
async def serving_page() -> AsyncIterator[str]:
    """Serve an empty page at an origin of its own."""

    async def page(_: web.BaseRequest) -> web.Response:
        return web.Response(text="<!doctype html><title>page</title>", content_type="text/html")

    runner = web.ServerRunner(web.Server(page))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def visiting_page(origin: str) -> AsyncIterator[Visit]:
    async with visiting() as visit:
        await visit.page.goto(origin)
        yield visit


async def serve(start_gateway: StartGateway, *origins: str, **more: Any) -> Gateway:
    settings = {"downloads": True, "auth": "token", "tokens": TOKENS, "max_bytes": "30000000"}
    return await start_gateway(**{**settings, "cors_origins": list(origins), **more})


async def test_a_page_uploads_downloads_and_reads_every_answer(start_gateway: StartGateway) -> None:
    async with serving_page() as origin, visiting_page(origin) as visit:
        gateway = await serve(start_gateway, origin)
        assert await visit.page.evaluate(UPLOAD_AND_READ, gateway.url) == {
            "stored": [201, "/upload/a.txt", True],
            "status": [200, "stored"],
            "file": [200, "hello", True, "attachment; filename=\"a.txt\"; filename*=UTF-8''a.txt"],
        }
        status, stored, place, progress = await visit.page.evaluate(UPLOAD_WITH_PROGRESS, gateway.url)
        assert (status, stored, progress) == (201, 20_000_000, True)
        assert place.startswith("/-/uploads/")


async def test_a_page_reads_every_refusal(start_gateway: StartGateway) -> None:
    async with serving_page() as origin, visiting_page(origin) as visit:
        gateway = await serve(start_gateway, origin)
        assert await visit.page.evaluate(REFUSED, gateway.url) == [
            [401, "unauthorized"],
            [413, "too_large"],
            [404, "not_found"],
            [405, "method_not_allowed"],
            [404, "not_found"],
        ]


@pytest.mark.parametrize("auth", ["token", "none"])
async def test_a_page_that_is_not_named_is_kept_out_by_the_browser(
    start_gateway: StartGateway, auth: str
) -> None:
    async with serving_page() as origin, visiting_page(origin) as visit:
        gateway = await serve(start_gateway, "https://app.example", auth=auth)
        assert (await put(gateway, "/upload/a.txt", b"hello", TOKEN)).status == 201
        blocked = await visit.page.evaluate(BLOCKED, gateway.url)
        assert blocked == ["TypeError", "TypeError", "TypeError"]
        assert not (gateway.resources.settings.directory / "upload/c.txt").exists()
