"""What a script assigns in its request reaches the upstream; what HTTP cannot carry is a 500."""

from __future__ import annotations

import gzip
import logging

import brotli
import pytest
from aiohttp import web
from backports import zstd

from tests.support.harness import curl, get, raw_connection, request_head
from tests.support.routing.api import Api, api
from tests.support.routing.scripted import Serve, ask, route

MIB = 1 << 20


async def echo(request: web.Request) -> web.Response:
    told = {"method": request.method, "target": request.raw_path, "headers": dict(request.headers)}
    return web.json_response({**told, "body": (await request.read()).decode(errors="replace")})


def reads(up: Api, script: str, **named: str) -> str:
    return up.route("/v1/{rest:path}", script, "target: {path: '/api/{rest:path}'}\n", **named)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("pass", {"method": "POST", "target": "/api/a%20b?x=1%2B&x=2", "body": "hello"}),
        ("request.method = 'PROPFIND'", {"method": "PROPFIND", "body": "hello"}),
        ("request.path = '/other/\u00e9 ?;%2F'",
         {"target": "/other/%C3%A9%20%3F%3B%252F?x=1%2B&x=2", "body": "hello"}),
        ("request.path = request.path.replace('/v1/', '/v2/')",
         {"target": "/v2/a%20b?x=1%2B&x=2"}),
        ("request.params['y'] = 'a&b'", {"target": "/api/a%20b?x=1%2B&x=2&y=a%26b"}),
        ("request.params = {'y': ['1', '2']}", {"target": "/api/a%20b?y=1&y=2"}),
        ("request.params.clear()", {"target": "/api/a%20b"}),
        ("request.params['X-Gateway-Signature'] = 's'", {"target": "/api/a%20b?x=1%2B&x=2"}),
        ("request.body = request.body + b'!'", {"body": "hello!", "method": "POST"}),
        ("request.body = 'h\u00e9'", {"body": "h\u00e9"}),
        ("request.body = {'a': [1]}", {"body": '{"a": [1]}'}),
        ("request.body = None", {"body": ""}),
        ("request.method = 'GET'\nrequest.body = b''", {"method": "GET", "body": ""}),
    ],
)  # fmt: skip
async def test_the_upstream_gets_what_a_script_assigned(
    serve: Serve, script: str, told: dict[str, str]
) -> None:
    async with api(echo) as up:
        gateway = await serve(reads(up, script))
        async with raw_connection(gateway) as client:
            for _ in range(2):  # nothing is left on either connection
                await client.send(
                    request_head("POST", "/v1/a%20b?x=1%2B&x=2", "Content-Length: 5") + b"hello"
                )
                answer = (await client.answer()).json
                assert {name: answer[name] for name in told} == told
                assert answer["headers"].get("Content-Length", "0") == str(len(answer["body"].encode()))


async def test_headers_that_are_not_true_of_an_assigned_body_do_not_reach_the_upstream(
    serve: Serve,
) -> None:
    lines = ("Content-Encoding: gzip", "Content-MD5: x", "Content-Digest: x", "X-Own: 1")
    async with api(echo) as up:
        gateway = await serve(
            up.route("/text", "request.body = {'a': 1}"),
            up.route("/bytes", "request.body = b'plain'"),
            up.route("/own", "request.body = 'x'\nrequest.headers['Content-MD5'] = 'own'"),
            up.route("/all", "request.headers = {'X-All': '1'}"),
        )
        seen = {
            path: set(
                (await ask(gateway, "PUT", f"/{path}", *lines, body=gzip.compress(b"x"))).json["headers"]
            )
            for path in ("text", "bytes", "own", "all")
        }
    wanted = {"Content-Encoding", "Content-MD5", "Content-Digest", "X-Own", "X-All", "Content-Type"}
    assert {path: names & wanted for path, names in seen.items()} == {
        "text": {"X-Own", "Content-Type"},
        "bytes": {"X-Own"},
        "own": {"X-Own", "Content-Type", "Content-MD5"},
        "all": {"X-All"},
    }


async def test_a_script_reads_a_packed_body_unpacked_and_the_upstream_gets_it_as_it_came(
    serve: Serve,
) -> None:
    reads = """
    text = json.loads(request.body)["text"]
    request.headers["X-Read"] = f"{text} {request.headers.get('Content-Encoding')}"
    """
    async with api(echo) as up:
        gateway = await serve(
            up.route("/r", reads),
            up.route("/both", reads, answers="return request.body"),
            up.route("/here", "return request.body").replace(f"['{up.authority}']", "[]"),
            up.route("/packs", "import gzip\nrequest.body = gzip.compress(request.body + b' ')\n"
                               "request.headers['Content-Encoding'] = 'gzip'"),
        )  # fmt: skip
        packed = gzip.compress(b'{"text": "hello"}')
        answer = (await ask(gateway, "POST", "/r", "Content-Encoding: gzip", body=packed)).json
        assert answer["headers"]["X-Read"] == "hello None"
        assert answer["headers"]["Content-Encoding"] == "gzip"
        assert answer["headers"]["Content-Length"] == str(len(packed))
        assert answer["body"] == '{"text": "hello"}'  # the upstream unpacks it too
        for path in ("/both", "/here"):
            said = await ask(gateway, "POST", path, "Content-Encoding: gzip", body=packed)
            assert said.body == b'{"text": "hello"}'
        again = (await ask(gateway, "POST", "/packs", "Content-Encoding: gzip", body=packed)).json
        assert again["body"] == '{"text": "hello"} '


@pytest.mark.parametrize(
    ("coding", "body", "status", "told"),
    [
        ("gzip", gzip.compress(bytes(1001)), 413, "the body is larger than 1000 bytes when unpacked"),
        ("br", brotli.compress(bytes(1001)), 413, "the body is larger than 1000 bytes when unpacked"),
        ("zstd", zstd.compress(bytes(1001)), 413, "the body is larger than 1000 bytes when unpacked"),
        ("br", b"not brotli", 400, "the body is packed as br and damaged"),
        ("zstd", b"not zstd", 400, "the body is packed as zstd and damaged"),
        ("gzip", b"not gzip", 400, "the body is packed as gzip and damaged"),
        ("own", b"x", 415, "the body is packed as 'own', which cannot be unpacked here"),
    ],
    ids=["bomb", "br bomb", "zstd bomb", "br", "zstd", "damaged", "unknown"],
)
async def test_a_packed_body_that_a_script_cannot_read_is_refused(
    serve: Serve, coding: str, body: bytes, status: int, told: str
) -> None:
    gateway = await serve(route(script="return request.body", more="limits: {max_body: 1000}\n"))
    answer = await ask(gateway, "POST", "/r", f"Content-Encoding: {coding}", body=body)
    assert (answer.status, answer.json["message"]) == (status, told)
    assert (answer.headers.get("Accept-Encoding") is not None) == (status == 415)


async def test_an_assigned_host_reaches_the_upstream_and_the_clients_own_does_not(serve: Serve) -> None:
    async with api(echo) as up:
        gateway = await serve(
            up.route("/own", "request.headers['Host'] = 'api.internal:80'"),
            up.route("/none", "del request.headers['Host']"),
            up.route("/plain", "pass"),
        )
        seen = [(await get(gateway, path)).json["headers"] for path in ("/own", "/none", "/plain")]
    assert [headers["Host"] for headers in seen] == ["api.internal:80", up.authority, up.authority]
    assert {headers["X-Forwarded-Host"] for headers in seen} == {"localhost"}


async def test_a_body_streams_behind_what_a_script_that_does_not_use_it_assigned(serve: Serve) -> None:
    script = "request.method = 'PUT'\nrequest.path = '/new'\nrequest.params = {}"

    async def size(request: web.Request) -> web.Response:
        return web.Response(text=f"{request.method} {request.path} {len(await request.read())}")

    async with api(size, max_bytes=8 * MIB) as up:
        gateway = await serve(up.route(script=script, more="limits: {max_body: 10}\n"))
        answer = await ask(gateway, "POST", "/r?x=1", body=b"x" * 4 * MIB)
    assert answer.body == f"PUT /new {4 * MIB}".encode()


async def test_the_response_script_sees_the_request_as_it_went_up(serve: Serve) -> None:
    script = (
        "request.method, request.path, request.params, request.body = 'PUT', '/p', {'a': 'b'}, b'new'"
    )
    seen = "return [request.method, request.path, request.params, request.body.decode(), response.code]"
    async with api(echo) as up:
        gateway = await serve(up.route(script=script, answers=seen))
        assert (await get(gateway, "/r")).json == ["PUT", "/p", {"a": ["b"]}, "new", 200]


@pytest.mark.parametrize(("sent", "assigned"), [("GET", "HEAD"), ("HEAD", "GET")])
async def test_a_method_whose_responses_have_no_body_can_be_assigned_and_replaced(
    serve: Serve, sent: str, assigned: str
) -> None:
    async with api(echo) as up:
        gateway = await serve(up.route(script=f"request.method = '{assigned}'"))
        url, ask = "http://{}:{}/r".format(*gateway.address), ["--head"] if sent == "HEAD" else []
        done = await curl(*ask, "-o", "-", url, "-o", "-", url)
        assert (done.code, done.status, done.body.count("{")) == (0, 200, 0)
    assert {request.method for request in up.asked} == {assigned}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("request.method = 'CONNECT'", "request.method must be a method in capitals"),
        ("request.method = 'get'", "request.method must be a method in capitals"),
        ("request.method = 'GET / HTTP/1.1\\r\\nX: y'", "request.method must be a method in capitals"),
        ("request.method = 5", "request.method must be a method in capitals"),
        ("request.path = 'relative'", "request.path must be a text that begins with a slash"),
        ("request.path = '//a/../b'", "request.path must be without dot segments"),
        ("request.path = '/a/%2e%2e/b'", "request.path must be without dot segments"),
        ("request.path = '/a%2f..%2fb'", "request.path must be without dot segments"),
        ("request.path = '/a\\\\..\\\\b'", "request.path must be without dot segments"),
        ("request.path = '/a\\nb'", "request.path must be without dot segments"),
        ("request.path = '/\\udc80'", "request.path must be valid text"),
        ("request.path = None", "request.path must be a text that begins with a slash"),
        ("request.params = [1]", "request.params must be a mapping of names to lists of texts"),
        ("request.params['x'] = [1]", "request.params['x'] must be a text or a list of texts"),
        ("request.params['x'] = '\\udc80'", "request.params must be valid text"),
        ("request.body = 5", "a body is str, dict, list, bytes or None, not int"),
        ("request.headers['Host'] = 'a b'", "request.headers['Host'] must be one host"),
        ("request.headers.add('Host', 'b')", "request.headers['Host'] must be one host"),
        ("request.headers = 5", "headers are a mapping of names to texts"),
        ("request.remote = '1.2.3.4'", "request.remote cannot be assigned"),
        ("request.principal = None", "request.principal cannot be assigned"),
        ("request.resources = {}", "request.resources cannot be assigned"),
        ("request.resources['x'] = '1'", "request.resources cannot be changed: assign request.path"),
    ],
)
async def test_what_cannot_be_sent_is_a_500_with_its_place_in_the_log(
    serve: Serve, caplog: pytest.LogCaptureFixture, line: str, told: str
) -> None:
    async with api(echo) as up:
        gateway = await serve(up.route(script=line))
        with caplog.at_level(logging.ERROR, "gateway"):
            answer = await get(gateway, "/r")
    assert (answer.status, answer.json["error"]) == (500, "internal")
    [record] = [one for one in caplog.records if one.getMessage().startswith("script failed")]
    fields = record.fields  # type: ignore[attr-defined]  # given as extra
    assert fields["place"].endswith("0.yaml:4")
    assert told in fields["outcome"]
    assert up.asked == []
