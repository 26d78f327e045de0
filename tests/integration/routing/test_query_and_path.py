"""The query and the variables of the path are checked before the body, and forwarded as they came."""

from __future__ import annotations

import time

import pytest
from aiohttp import web

from gateway.domain.grant import Grant
from tests.support.harness import RawResponse, raw_connection, request_head
from tests.support.routing.api import api
from tests.support.routing.scripted import Serve, ask

pytestmark = pytest.mark.both_paths

CHECKED = """
spec:
- method: GET
  schema: &checked
    request:
      path:
        properties: {id: {type: integer, minimum: 1}}
      query:
        required: [limit]
        additionalProperties: false
        properties:
          limit: {type: integer, maximum: 100, default: 10}
          tag: {type: array, items: {enum: [red, blue]}, maxItems: 2}
          deep: {type: boolean}
- method: PUT
  schema: *checked
"""


async def echo(request: web.Request) -> web.Response:
    return web.Response(text=request.raw_path)


def faults(answer: RawResponse) -> set[tuple[str, str, str]]:
    assert (answer.status, answer.json["error"]) == (400, "bad_schema")
    return {(one["in"], one["pointer"], one["rule"]) for one in answer.json["faults"]}


async def test_what_fits_goes_upstream_as_it_came(serve: Serve) -> None:
    async with api(echo) as upstream:
        gateway = await serve(upstream.route("/pets/{id}", more=CHECKED))
        target = "/pets/%37?tag=red&tag=bl%75e&limit=%31%30&deep=true"
        answer = await ask(gateway, "GET", target)
        assert (answer.status, answer.body.decode()) == (200, target)


async def test_every_fault_is_told_with_its_place_and_without_its_value(serve: Serve) -> None:
    async with api(echo) as upstream:
        gateway = await serve(upstream.route("/pets/{id}", more=CHECKED))
        answer = await ask(gateway, "GET", "/pets/SECRET?tag=red&tag=SECRET&deep=SECRET&more=SECRET")
        assert faults(answer) == {
            ("path", "/id", "type"),
            ("query", "", "required"),
            ("query", "", "additionalProperties"),
            ("query", "/tag/1", "enum"),
            ("query", "/deep", "type"),
        }
        assert b"SECRET" not in answer.body
        assert faults(await ask(gateway, "GET", "/pets/0?limit=1&limit=2")) == {
            ("path", "/id", "minimum"),
            ("query", "/limit", "type"),
        }
        assert upstream.asked == []


async def test_faults_of_the_query_are_told_before_an_expected_body(serve: Serve) -> None:
    async with api(echo) as upstream:
        gateway = await serve(upstream.route("/pets/{id}", more=CHECKED))
        async with raw_connection(gateway) as connection:
            lines = ("Content-Length: 9", "Expect: 100-continue")
            await connection.send(request_head("PUT", "/pets/1", *lines))
            assert (await connection.line()).startswith(b"HTTP/1.1 400 ")


async def test_a_signature_of_the_gateway_is_no_field_of_the_query(serve: Serve) -> None:
    async with api(echo) as upstream:
        gateway = await serve(upstream.route("/pets/{id}", more=CHECKED, auth="default"), auth="token")
        grant = Grant("GET", "/pets/7", int(time.time()) + 60, query=(("limit", "5"),))
        target = gateway.resources.base.installation.urls.target(grant)
        answer = await ask(gateway, "GET", target)
        assert (answer.status, answer.body) == (200, b"/pets/7?limit=5")
