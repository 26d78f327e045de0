"""HTTP on the wire: what follows a request on its connection, and what is no proper HTTP at all."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from gateway.domain.model import UPLOADED
from gateway.http import protocol as server
from tests.conftest import StartGateway
from tests.support.harness import files_below, handlers_done, put, raw_connection, request_head
from tests.support.recorders import captured_log, write_handler

pytestmark = pytest.mark.both_paths

# -- the next request on the connection

LOOKS_LIKE_A_REQUEST = request_head("GET", "/-/health")


@pytest.mark.parametrize(
    "head",
    [
        b"GET /upload/\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PUT /upload/x HTTP/1.1\r\nHost: x\r\nContent-Length: a\r\n\r\n",
        request_head("GET", "/upload/x", "Authorization: Bearer a", "Authorization: Bearer b"),
        request_head("GET", "/upload/x", f"X-A: {'a' * 200_000}"),
    ],
)
async def test_what_is_no_request_is_refused_with_the_headers_of_any_response(
    start_gateway: StartGateway, head: bytes
) -> None:
    gateway = await start_gateway()
    with captured_log() as log:
        async with raw_connection(gateway) as connection:
            await connection.send(head)
            headers = (await connection.head()).headers
    assert (headers["Server"], headers["X-Content-Type-Options"]) == ("upload-gateway", "nosniff")
    assert headers["X-Request-Id"] in {line.get("request_id") for line in log}


@pytest.mark.parametrize("expect", [(), ("Expect: 100-continue",)])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_that_looks_like_a_request_is_never_answered(
    start_gateway: StartGateway, expect: tuple[str, ...], framing: str
) -> None:
    gateway = await start_gateway(auth="token")
    body = LOOKS_LIKE_A_REQUEST * 10
    line = f"Content-Length: {len(body)}"
    if framing == "chunked":
        line, body = "Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", "/upload/x", line, *expect) + body)
        text = await connection.closed()
    assert text.startswith(b"HTTP/1.1 401 ")
    assert text.count(b"HTTP/1.1") == 1
    assert b"Connection: close" in text


async def test_after_a_refusal_without_a_body_the_next_request_gets_its_own_answer(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(auth="token")
    async with raw_connection(gateway) as connection:
        await connection.send(
            request_head("PUT", "/upload/x", "Content-Length: 0") + LOOKS_LIKE_A_REQUEST
        )
        assert (await connection.answer()).status == 401
        assert (await connection.answer()).status == 200


async def test_behind_an_upload_the_next_request_gets_its_own_answer(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway()
    async with raw_connection(gateway) as connection:
        request = request_head("PUT", "/upload/x", "Content-Length: 3") + b"abc"
        await connection.send(request + LOOKS_LIKE_A_REQUEST + request)
        assert [(await connection.answer()).status for _ in range(3)] == [201, 200, 200]


async def test_behind_a_refusal_with_a_body_the_connection_is_closed_for_all_to_see(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(auth="token")
    async with raw_connection(gateway) as connection:
        request = request_head("PUT", "/upload/x", "Content-Length: 3") + b"abc"
        await connection.send(request + LOOKS_LIKE_A_REQUEST)
        assert (await connection.answer()).headers["Connection"] == "close"
        assert await connection.closed() == b""


async def test_an_offer_to_upgrade_does_not_disturb_an_upload(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    for number, protocol in enumerate(("h2c", "websocket")):
        lines = ("Connection: Upgrade", f"Upgrade: {protocol}")
        answer = await put(gateway, f"/upload/{number}", b"abc", *lines)
        assert answer.status == 201
    assert files_below(tmp_path / "data/upload") == {"0": b"abc", "1": b"abc"}


# -- what is not HTTP, or without end


MALFORMED = {
    "a bad header name": ("Bad Name: x", "Content-Length: 3"),
    "two lengths": ("Content-Length: 3", "Content-Length: 4"),
    "a length that is no number": ("Content-Length: 3x",),
    "a negative length": ("Content-Length: -3",),
    "a length and chunks": ("Content-Length: 3", "Transfer-Encoding: chunked"),
    "chunks that are not the last coding": ("Transfer-Encoding: chunked, gzip",),
    "a folded line": ("X-A: b", " c", "Content-Length: 3"),
}


@pytest.mark.parametrize("lines", MALFORMED.values(), ids=MALFORMED.keys())
async def test_what_is_no_proper_http_is_told_so_and_closed(
    start_gateway: StartGateway, tmp_path: Path, lines: tuple[str, ...]
) -> None:
    gateway = await start_gateway()
    with captured_log() as log:
        async with raw_connection(gateway) as connection:
            await connection.send(
                request_head("PUT", "/upload/x", *lines) + b"abc" + LOOKS_LIKE_A_REQUEST
            )
            text = await connection.closed()
    top, _, body = text.partition(b"\r\n\r\n")
    assert top.split(b"\r\n")[0].endswith(b" 400 Bad Request")
    assert text.count(b"HTTP/1.") == 1
    assert b"Connection: close" in top
    assert [line["message"] for line in log] == ["malformed request"]
    assert json.loads(body)["error"] == "bad_request"
    assert files_below(tmp_path / "data/upload") == {}


async def test_bytes_that_are_no_text_in_a_header_harm_nobody(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    script = "raise ValueError(event['headers']['Content-Type'])"
    folder = write_handler(tmp_path / "plugins", script, event=UPLOADED, more="retry: {attempts: 1}\n")
    gateway = await start_gateway(plugins=folder)
    lines = ["Content-Type: text/plain"] * 20 + ["Content-Type: odd/\udcff"]
    answers = await asyncio.gather(
        *(put(gateway, f"/upload/{number}", b"1", line) for number, line in enumerate(lines))
    )
    assert [answer.status for answer in answers] == [201] * 21
    assert answers[-1].json["mime"] == "odd/\ufffd"
    story = await handlers_done(gateway, answers[-1].json["upload_id"], state="dead")
    assert story["mime"] == "odd/\ufffd"


@pytest.mark.parametrize("before", [b"", request_head("GET", "/-/health")])
async def test_headers_that_never_end_are_cut_off(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch, before: bytes
) -> None:
    monkeypatch.setattr(server, "KEEP_ALIVE_TIMEOUT", 0.3)
    gateway = await start_gateway()
    async with raw_connection(gateway) as connection:
        await connection.send(before + b"PUT /upload/x HTTP/1.1\r\n")
        if before:
            await connection.answer()
        closing = asyncio.create_task(connection.closed())
        while not (await asyncio.wait([closing], timeout=0.02))[0]:
            connection.writer.write(b"X-A: b\r\n")
        assert await closing == b""
