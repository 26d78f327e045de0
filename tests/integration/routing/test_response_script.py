"""Scripts that run on an upstream's response: what they are given, and what becomes of it."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib

import brotli
import pytest
from aiohttp import web
from backports import zstd

from tests.support import PROJECT
from tests.support.doc_pages import blocks
from tests.support.harness import TIMEOUT, curl, get, raw_connection, request_head
from tests.support.routing.api import api
from tests.support.routing.proxying import read_head, upstream
from tests.support.routing.scripted import Serve, ask, route

FRONT_AN_API = PROJECT / "docs/how-to/front-an-api.md"
MIB = 1 << 20
NAME = "return {'name': json.loads(response.body)['user'].title()}"
SHOUT = "response.body = response.body.upper()"
PERSON = json.dumps({"user": "ann"}).encode()
PACKED = {
    "gzip": gzip.compress(PERSON),
    "x-gzip": gzip.compress(PERSON[:5]) + gzip.compress(PERSON[5:]) + b"\0" * 8,
    "deflate": zlib.compress(PERSON),
    "Deflate": zlib.compress(PERSON, wbits=-zlib.MAX_WBITS),
    "br": brotli.compress(PERSON),
    "zstd": zstd.compress(PERSON),
    "deflate, gzip": gzip.compress(zlib.compress(PERSON)),
    "identity": PERSON,
}


# -- scripts that read the body


async def test_a_script_gets_content_that_is_not_packed_whatever_the_client_accepts(
    serve: Serve,
) -> None:
    async def person(request: web.Request) -> web.Response:
        response = web.json_response({"user": "ann"})
        response.enable_compression()
        return response

    async with api(person) as up:
        [shown] = [one.text for one in blocks(FRONT_AN_API) if "# api-plugins/me.yaml" in one.text]
        gateway = await serve(shown.replace("127.0.0.1:9081", up.authority), up.route("/plain"))
        address = "http://{}:{}".format(*gateway.address)
        assert json.loads((await curl("--compressed", f"{address}/me")).body) == {"name": "Ann"}
        assert json.loads((await curl("--compressed", f"{address}/plain")).body) == {"user": "ann"}
    first, second = up.asked
    assert first.headers["Accept-Encoding"] == "identity"
    assert "gzip" in second.headers["Accept-Encoding"]


@pytest.mark.parametrize("coding", PACKED)
async def test_what_comes_packed_all_the_same_is_unpacked(serve: Serve, coding: str) -> None:
    async def packed(request: web.Request) -> web.Response:
        headers = {"Content-Encoding": coding, "ETag": '"v1"', "Content-MD5": "x", "X-Own": "1"}
        return web.Response(body=PACKED[coding], headers=headers)

    async with api(packed) as up:
        gateway = await serve(
            up.route(answers="logger.info(len(response.body))"),
            up.route("/changed", answers=SHOUT),
            up.route("/tagged", answers=f"{SHOUT}\nresponse.headers['Etag'] = '\"own\"'"),
        )
        same, changed, tagged = [await get(gateway, path) for path in ("/r", "/changed", "/tagged")]
    for answer, body in ((same, PERSON), (changed, PERSON.upper()), (tagged, PERSON.upper())):
        assert answer.body == body
        assert answer.headers["Content-Length"] == str(len(body))
        assert answer.headers["X-Own"] == "1"
        assert "Content-Encoding" not in answer.headers
    assert same.headers["Etag"] == ('"v1"' if coding == "identity" else 'W/"v1"')
    assert "Etag" not in changed.headers
    assert "Content-MD5" not in changed.headers
    assert tagged.headers["Etag"] == '"own"'


@pytest.mark.parametrize(
    ("coding", "body", "told"),
    [
        ("gzip", b"not gzip", "damaged"),
        ("gzip", PACKED["gzip"][:-4], "damaged"),
        ("gzip", PACKED["gzip"] + b"rest", "damaged"),
        ("deflate", PACKED["deflate"][:-4], "damaged"),
        ("compress", b"x", "'compress'"),
        ("gzip, gzip, gzip, gzip", b"x", "packed more than 3 times"),
        ("gzip", gzip.compress(bytes(65 * MIB)), "67108864 bytes when unpacked"),
        ("gzip", gzip.compress(b"") * 2000, "damaged"),
    ],
    ids=["other", "short", "long", "deflate", "unknown", "often", "bomb", "members"],
)
async def test_what_cannot_be_unpacked_within_bounds_is_a_502_that_says_why(
    serve: Serve, coding: str, body: bytes, told: str
) -> None:
    async def packed(request: web.Request) -> web.Response:
        return web.Response(body=body, headers={"Content-Encoding": coding})

    async with api(packed) as up:
        gateway = await serve(up.route(answers=NAME))
        answer = await get(gateway, "/r")
    assert (answer.status, answer.json["error"]) == (502, "bad_gateway")
    assert told in answer.json["message"]


async def test_a_script_that_reads_gets_the_whole_content_where_the_client_asks_for_less(
    serve: Serve,
) -> None:
    async def versioned(request: web.Request) -> web.Response:
        if "If-None-Match" in request.headers:
            return web.Response(status=304)
        partial = "Range" in request.headers or request.method == "HEAD"
        return web.Response(body=b"" if partial else PERSON, headers={"Accept-Ranges": "bytes"})

    async with api(versioned) as up:
        own = "request.headers['If-None-Match'] = '\"own\"'"
        gateway = await serve(up.route(answers=NAME), up.route("/own", own, answers="response.body"))
        for line in ('If-None-Match: "v"', "Range: bytes=0-1"):
            answer = await get(gateway, "/r", line)
            assert (answer.status, answer.json) == (200, {"name": "Ann"})
            assert "Accept-Ranges" not in answer.headers
        head = await ask(gateway, "HEAD", "/r")
        assert (head.status, head.headers["Content-Length"]) == (200, str(len('{"name": "Ann"}')))
        assert (await get(gateway, "/own")).status == 304
    assert [request.method for request in up.asked] == ["GET"] * 4


async def test_conditions_of_writes_still_reach_the_upstream(serve: Serve) -> None:
    async def store(request: web.Request) -> web.Response:
        return web.Response(text=request.headers["If-None-Match"])

    async with api(store) as up:
        gateway = await serve(up.route(answers=SHOUT))
        answer = await ask(gateway, "PUT", "/r", 'If-None-Match: "abc"', body=b"x")
    assert answer.body == b'"ABC"'


@pytest.mark.parametrize("status", [204, 304])
async def test_a_response_without_content_is_an_empty_one_for_a_script(
    serve: Serve, status: int
) -> None:
    async def nothing(request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"ETag": '"v"', "Content-Encoding": "gzip"})

    async with api(nothing) as up:
        gateway = await serve(
            up.route(answers="response.headers['X-Size'] = str(len(response.body))"),
            up.route("/filled", answers="response.code = 200\nresponse.body = b'new'"),
        )
        answer, filled = await get(gateway, "/r"), await get(gateway, "/filled")
    assert (answer.status, answer.headers["X-Size"], answer.body) == (status, "0", b"")
    assert (filled.status, filled.body) == (200, b"new")


async def test_interim_responses_and_trailers_do_not_reach_a_script(serve: Serve) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n")
        writer.write(b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")
        writer.write(b"2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n")

    async with upstream(respond) as up:
        reads, heads = route(answers=SHOUT), route("/head", answers="response.code = 202")
        gateway = await serve(*(text.replace("[]", f"['{up.authority}']", 1) for text in (reads, heads)))
        answer = await get(gateway, "/r")
        assert (answer.status, answer.body) == (200, b"OK")
        assert not {"Link", "Trailer", "X-Sum"} & set(answer.headers)
        assert (await get(gateway, "/head")).status == 202


async def test_a_stream_without_an_end_is_a_504_for_a_script_that_reads_it_to_its_end(
    serve: Serve,
) -> None:
    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while True:
            await response.write(b"data: 1\n\n")
            await asyncio.sleep(0.01)

    async with api(events) as up:
        gateway = await serve(up.route(answers=SHOUT, more="limits: {script: 0.3}\n"))
        answer = await get(gateway, "/r")
    assert (answer.status, answer.json["error"]) == (504, "gateway_timeout")
    assert answer.json["message"] == "the upstream's response did not end within 0.3 seconds"


# -- scripts that do not


HEADS = "response.headers['X-Own'] = 'yes'\nresponse.code = 203\ndel response.headers['X-Old']"


async def test_events_pass_as_they_come_where_a_script_changes_the_head_alone(serve: Serve) -> None:
    seen = asyncio.Event()

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Old": "1"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        async with asyncio.timeout(TIMEOUT):
            await seen.wait()
        await response.write(b"data: 2\n\n")
        return response

    async with api(events) as up:
        gateway = await serve(up.route(answers=HEADS))
        async with raw_connection(gateway) as client:
            await client.send(request_head("GET", "/r", "Connection: close"))
            head = await client.reader.readuntil(b"data: 1\n\n")
            seen.set()
            rest = await client.closed()
    assert head.startswith(b"HTTP/1.1 203 ")
    assert b"X-Own: yes" in head
    assert b"X-Old" not in head
    assert rest.endswith(b"data: 2\n\n\r\n0\r\n\r\n")


async def test_a_large_body_streams_behind_the_head_that_a_script_changed(serve: Serve) -> None:
    async def large(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(200 * MIB), "X-Old": "1"})
        await response.prepare(request)
        for _ in range(200):
            await response.write(b"x" * MIB)
        return response

    async with api(large) as up:
        gateway = await serve(up.route(answers=HEADS))
        done = await curl("-o", "/dev/null", "http://{}:{}/r".format(*gateway.address))
    assert (done.status, done.code) == (203, 0)  # curl compares the length


@pytest.mark.parametrize(
    ("script", "status", "length", "body"),
    [
        ("response.code = 201", 201, "2", b"ok"),
        ("response.headers['Content-Length'] = '9'", 200, "2", b"ok"),
        ("response.headers = {'X-Own': 'yes'}", 200, "2", b"ok"),
        ("response.code = 204", 204, None, b""),
        ("return 202, 'instead'", 202, "7", b"instead"),
        ("return response.code, 'instead'", 200, "7", b"instead"),
        ("raise HTTPError(403, 'no')", 403, "2", b"no"),
    ],
)
async def test_the_head_that_a_script_leaves_fits_the_body(
    serve: Serve, script: str, status: int, length: str | None, body: bytes
) -> None:
    async def ok(request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async with api(ok) as up:
        gateway = await serve(up.route(answers=script))
        async with raw_connection(gateway) as client:
            for _ in range(2):  # the connection can serve another request
                await client.send(request_head("GET", "/r"))
                answer = await client.answer()
                assert (answer.status, answer.body) == (status, body)
                assert answer.headers.get("Content-Length") == length
        head = await ask(gateway, "HEAD", "/r")
        assert (head.status, head.headers.get("Content-Length")) == (status, length)


async def test_a_response_without_content_can_become_one_with_another_status(serve: Serve) -> None:
    async def unchanged(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n")
        await reader.read()

    async with upstream(unchanged) as up:
        text = route(answers="response.code = 200").replace("[]", f"['{up.authority}']", 1)
        answer = await get(await serve(text), "/r")
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(
    "script", ["response.code = 99", "response.headers['X'] = 5", "raise ValueError(response.code)"]
)
async def test_a_script_that_fails_lets_the_upstreams_response_go(serve: Serve, script: str) -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        assert await reader.read() == b""

    async with upstream(wait) as up:
        text = route(answers=script).replace("[]", f"['{up.authority}']", 1)
        assert (await get(await serve(text), "/r")).status == 500
        async with asyncio.timeout(TIMEOUT):
            await up.ended.wait()
