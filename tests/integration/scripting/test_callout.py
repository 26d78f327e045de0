"""Tests of gateway.plugins.scripting.callout against a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.plugins.scripting.callout import Callout, HTTPError
from gateway.plugins.scripting.executor import ScriptExecutor


async def _echo(request: web.Request) -> web.Response:
    if request.path == "/refuse":
        return web.Response(status=422, text="no")
    body = await request.read()
    return web.json_response(
        {
            "method": request.method,
            "path": request.path_qs,
            "body": body.decode(),
            "type": request.headers.get("Content-Type"),
            "x": request.headers.get("X-A"),
        }
    )


@pytest.fixture
async def server() -> AsyncIterator[TestServer]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", _echo)
    server = TestServer(app)
    async with server:
        yield server


@pytest.fixture
async def callout(server: TestServer) -> AsyncIterator[Callout]:
    made = Callout(lambda: f"127.0.0.1:{server.port}")
    yield made
    await made.close()


async def test_without_an_endpoint_this_gateway_is_called(callout: Callout) -> None:
    answer = await callout(path="/a?b=c", headers={"X-A": "1"})
    assert answer.code == 200
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.json() == {
        "method": "GET",
        "path": "/a?b=c",
        "body": "",
        "type": None,
        "x": "1",
    }


@pytest.mark.parametrize("form", ["127.0.0.1:%d", "http://127.0.0.1:%d", "http://127.0.0.1:%d/"])
async def test_an_endpoint_is_an_address_or_a_url(
    callout: Callout, server: TestServer, form: str
) -> None:
    assert (await callout(endpoint=form % server.port, path="v1/x")).json()["path"] == "/v1/x"


@pytest.mark.parametrize(
    ("body", "sent", "content_type"),
    [
        ({"a": 1}, '{"a": 1}', "application/json"),
        ([1], "[1]", "application/json"),
        ("text", "text", "text/plain; charset=utf-8"),
        (b"raw", "raw", "application/octet-stream"),
    ],
)
async def test_a_body_is_sent_with_its_type(
    callout: Callout, body: Any, sent: str, content_type: str
) -> None:
    got = (await callout(path="/", method="PUT", body=body)).json()
    assert (got["method"], got["body"], got["type"]) == ("PUT", sent, content_type)


async def test_a_content_type_that_is_given_is_kept(callout: Callout) -> None:
    got = (await callout(method="POST", body={}, headers={"content-type": "application/x+json"})).json()
    assert got["type"] == "application/x+json"


async def test_a_status_from_400_on_is_an_error_with_code_and_body(callout: Callout) -> None:
    with pytest.raises(HTTPError) as caught:
        await callout(path="/refuse?secret=1", method="POST")
    assert (caught.value.code, caught.value.body, str(caught.value)) == (422, b"no", "HTTP 422")
    assert "secret" not in "".join(caught.value.__notes__)


async def test_an_answer_without_bound_is_cut_off(
    callout: Callout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.plugins.scripting.callout.MAX_RESPONSE_BYTES", 10)
    with pytest.raises(ValueError, match="larger than 10"):
        await callout()


async def test_a_host_that_hangs_is_refused_at_once_and_takes_no_place_of_others(
    server: TestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.plugins.scripting.http_sessions.MAX_CALLS", 4)
    asked = asyncio.Semaphore(0)

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.release()
        await reader.read()
        writer.close()

    hangs = await asyncio.start_server(hang, "127.0.0.1", 0)
    host = f"127.0.0.1:{hangs.sockets[0].getsockname()[1]}"
    callout = Callout(lambda: f"127.0.0.1:{server.port}")
    waiting = [asyncio.create_task(callout(host)) for _ in range(2)]
    for _ in waiting:
        await asked.acquire()
    with pytest.raises(HTTPError) as refused:
        await callout(f"http://{host.upper()}", path="/other")
    assert (refused.value.code, json.loads(refused.value.body)["error"]) == (503, "overloaded")
    assert (await callout()).code == 200  # the own host is another one
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    again = asyncio.create_task(callout(host))
    await asked.acquire()  # what ended has given its place back
    again.cancel()
    hangs.close()
    await callout.close()


async def test_an_executor_closes_the_session_that_was_opened_in_it(server: TestServer) -> None:
    callout = Callout(lambda: f"127.0.0.1:{server.port}")
    executor = ScriptExecutor("calling", [callout.close])
    assert (await executor.call_script(callout, 5)).code == 200
    assert len(callout._sessions._clients) == 1
    await executor.close(1)
    assert not callout._sessions._clients
