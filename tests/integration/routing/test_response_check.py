"""Responses are checked beside the stream: what violates its schema is sent, logged and counted."""

from __future__ import annotations

import gzip
import json
import logging

import pytest
from aiohttp import web

from tests.support.harness import wait_until
from tests.support.routing.api import api
from tests.support.routing.scripted import Serve, ask, route

SCHEMA = """
spec:
- method: GET
  schema:
    response:
      normal: {codes: [200, 404]}
      body: {type: object, required: [id], properties: {id: {type: integer}}}
      bodies: {4XX: {type: object, required: [message]}}
"""


def told(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    records = [each for each in caplog.records if getattr(each, "event", "") == "response.invalid"]
    return [dict(getattr(each, "fields", {})) for each in records]


def json_of(value: object, status: int = 200, **headers: str) -> web.Response:
    return web.Response(status=status, body=json.dumps(value).encode(), headers={
        "Content-Type": "application/json", **headers,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("response", "wrong"),
    [
        (json_of({"id": 1}), False),
        (json_of({"id": "SECRET"}), True),
        (json_of({"id": "SECRET", "more": "a" * 200_000}), True),
        (json_of({"message": "no"}, 404), False),
        (json_of({"id": 1}, 404), True),
        (json_of({"id": "x", "more": "a" * 2_000_000}), False),
        (web.Response(text="no JSON"), False),
        (web.Response(body=b"{", content_type="application/json"), True),
        (web.Response(status=204), None),
    ],
    ids=["right", "wrong", "large", "404", "wrong 404", "too large", "text", "broken", "204"],
)
async def test_a_response_is_sent_and_what_is_wrong_with_it_told(
    serve: Serve, caplog: pytest.LogCaptureFixture, response: web.Response, wrong: bool | None
) -> None:
    body = response.body if isinstance(response.body, bytes) else b""

    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=response.status, body=response.body, headers=response.headers)

    async with api(handle) as upstream:
        gateway = await serve(upstream.route(more=SCHEMA))
        with caplog.at_level(logging.WARNING, "gateway.routing"):
            answer = await ask(gateway, "GET", "/r")
            assert (answer.status, answer.body) == (response.status, body)
            if wrong:
                await wait_until(lambda: bool(told(caplog)))
                [line] = told(caplog)
                assert "SECRET" not in str(line)
                metrics = (await ask(gateway, "GET", "/-/metrics")).body.decode()
                assert 'gateway_abnormal_answers_total{route="GET /r"} 1.0' in metrics
            else:
                await ask(gateway, "GET", "/r")  # the check of the response before has ended
                assert told(caplog) == []


async def test_a_packed_response_is_unpacked_for_its_check(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    packed = gzip.compress(b'{"id": "SECRET"}')

    async def handle(_: web.Request) -> web.Response:
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        return web.Response(body=packed, headers=headers)

    async with api(handle) as upstream:
        gateway = await serve(upstream.route(more=SCHEMA))
        with caplog.at_level(logging.WARNING, "gateway.routing"):
            answer = await ask(gateway, "GET", "/r")
            assert answer.body == packed
            await wait_until(lambda: bool(told(caplog)))
            assert told(caplog)[0]["pointer"] == "/id"


async def test_the_response_of_a_script_is_checked_too(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = await serve(route("/r", "return {'id': 'x'}", SCHEMA))
    with caplog.at_level(logging.WARNING, "gateway.routing"):
        assert (await ask(gateway, "GET", "/r")).json == {"id": "x"}
        assert [line["rule"] for line in told(caplog)] == ["type"]


async def test_head_has_no_body_to_check(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    async def handle(_: web.Request) -> web.Response:
        return json_of({"id": "x"})

    async with api(handle) as upstream:
        gateway = await serve(upstream.route(more=SCHEMA))
        with caplog.at_level(logging.WARNING, "gateway.routing"):
            assert (await ask(gateway, "HEAD", "/r")).status == 200
            assert told(caplog) == []
