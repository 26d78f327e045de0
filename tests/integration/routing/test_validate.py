"""Requests are held against their schemas; every fault is told, no value ever."""

from __future__ import annotations

import json

import pytest

from tests.support.harness import raw_connection, request_head
from tests.support.routing.scripted import SPEC, Serve, ask, route

pytestmark = pytest.mark.both_paths

SCRIPT = "return [request.headers['content-type'], request.headers['x-flag'], json.loads(request.body)]"


async def test_a_request_that_fits_passes_with_the_defaults_filled_in(serve: Serve) -> None:
    gateway = await serve(route(script=SCRIPT, more=SPEC))
    answer = await ask(gateway, "PUT", "/r", "x-count: 3", body=b'{"id": 1, "name": "a"}')
    assert answer.status == 200
    assert answer.json == ["application/json", "true", {"id": 1, "name": "a"}]


async def test_every_fault_is_listed_with_its_pointer_and_rule_and_without_the_value(
    serve: Serve,
) -> None:
    gateway = await serve(route(script=SCRIPT, more=SPEC))
    body = {"id": 9_999_999, "tags": ["red", "SECRET"], "more": "SECRET", "name": "SECRET"}
    answer = await ask(gateway, "PUT", "/r", "X-Count: none-SECRET", body=json.dumps(body).encode())
    assert (answer.status, answer.json["error"]) == (400, "bad_schema")
    assert {(one["in"], one["pointer"], one["rule"]) for one in answer.json["faults"]} == {
        ("headers", "/x-count", "type"),
        ("body", "/id", "maximum"),
        ("body", "/name", "pattern"),
        ("body", "/tags/1", "enum"),
        ("body", "", "additionalProperties"),
    }
    assert b"SECRET" not in answer.body
    assert b"9999999" not in answer.body


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[NaN]", b"[" * 100_000, b"1" * 5000])
async def test_a_body_that_is_no_json_is_a_fault(serve: Serve, body: bytes) -> None:
    gateway = await serve(route(script=SCRIPT, more=SPEC))
    answer = await ask(gateway, "PUT", "/r", "X-Count: 1", body=body)
    assert (answer.status, answer.json["error"]) == (400, "bad_schema")
    assert [one["rule"] for one in answer.json["faults"]] == ["json"]


@pytest.mark.parametrize(
    "body",
    [r'{"id": 1, "name": "a", "x": "\ud83d"}', r'{"\uDE00": 1}', r'["\ud83d\ud83d"]', r'"\uDBFF x"'],
)
async def test_half_a_surrogate_pair_is_a_fault(serve: Serve, body: str) -> None:
    anything = "spec: [{method: PUT, schema: {request: {body: {minLength: 0}}}}]\n"
    gateway = await serve(route(script="return json.loads(request.body)", more=anything))
    answer = await ask(gateway, "PUT", "/r", body=body.encode())
    assert (answer.status, answer.json["error"]) == (400, "bad_schema")
    assert [one["rule"] for one in answer.json["faults"]] == ["json"]
    whole = await ask(gateway, "PUT", "/r", body=rb'["\ud83d\ude00", "\\ud83d"]')
    assert whole.json == ["\U0001f600", "\\ud83d"]


async def test_a_script_that_answers_with_half_a_surrogate_pair_is_answered(serve: Serve) -> None:
    gateway = await serve(
        route("/json", "return json.loads(request.body)"), route("/text", "return 'a\\ud83d'")
    )
    answer = await ask(gateway, "POST", "/json", body=rb'["\ud83d"]')
    assert (answer.status, answer.json) == (200, ["?"])
    assert (await ask(gateway, "POST", "/text")).body == b"a?"


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ('{"name": "a", "id": 1, "name": "b"}', "name"),
        ('{"name": "SECRET", "id": 1, "n\\u0061me": "b"}', "name"),
        ('{"id": 1, "name": "b", "tags": [{"deep": {"é": 1, "é": "SECRET"}}]}', "\\u00e9"),
        ('{"id": 1, "name": "b", "\\ud800": 1, "\\ud800": 1}', "\\ud800"),
        (json.dumps({"name": "a" * 100_000})[:-1] + ', "id": 1, "id": 1}', "id"),
    ],
)
async def test_a_json_name_that_is_given_twice_is_refused(serve: Serve, body: str, name: str) -> None:
    gateway = await serve(route(script=SCRIPT, more=SPEC))
    answer = await ask(gateway, "PUT", "/r", "X-Count: 1", body=body.encode())
    assert (answer.status, answer.json["error"]) == (400, "bad_schema")
    [fault] = answer.json["faults"]
    assert (fault["in"], fault["rule"]) == ("body", "json")
    assert fault["message"] == f'an object has the name "{name}" more than once'
    assert b"SECRET" not in answer.body


async def test_a_script_without_a_schema_gets_the_body_as_it_came(serve: Serve) -> None:
    gateway = await serve(route(script="return request.body"))
    body = b'{"name": "a", "name": "b"}'
    assert (await ask(gateway, "PUT", "/r", body=body)).body == body


async def test_a_large_body_is_checked_too(serve: Serve) -> None:
    gateway = await serve(route(script=SCRIPT, more=SPEC))
    body = json.dumps({"id": 1, "name": "a" * 200_000 + "1"}).encode()
    answer = await ask(gateway, "PUT", "/r", "X-Count: 1", body=body)
    assert [one["pointer"] for one in answer.json["faults"]] == ["/name"]


async def test_wrong_headers_are_told_before_an_expected_body(serve: Serve) -> None:
    gateway = await serve(route(script=SCRIPT, more=SPEC))
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", "/r", "Content-Length: 9", "Expect: 100-continue"))
        assert (await connection.line()).startswith(b"HTTP/1.1 400 ")


async def test_an_encoded_body_cannot_be_checked(serve: Serve) -> None:
    gateway = await serve(route(script=SCRIPT, more=SPEC))
    answer = await ask(gateway, "PUT", "/r", "X-Count: 1", "Content-Encoding: gzip", body=b"{}")
    assert (answer.status, answer.json["error"]) == (415, "unsupported_media_type")


async def test_a_body_that_breaks_off_never_reaches_the_script(serve: Serve) -> None:
    gateway = await serve(
        route(script="state['ran'] = 1\nreturn request.body"), route("/s", "return 1, 1")
    )
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", "/r", "Transfer-Encoding: chunked") + b"zz\r\n")
        assert (await connection.answer()).status == 400
