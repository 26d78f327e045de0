"""The line of each request in the log: route, upstream, times, bytes, who sent it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from gateway.auth.tokens import token_digest
from tests.integration.monitoring.conftest import StartLogging
from tests.support.harness import get, put, raw_connection, request_head, self_signed_certificate
from tests.support.ports import free_port
from tests.support.routing.proxying import answer_all, read_request, upstream
from tests.support.routing.scripted import ask, route, write

pytestmark = pytest.mark.both_paths

LARGE = b"0123456789abcdef" * (1 << 16)
"""1 MiB."""


def leads_to(authorities: list[str], path: str = "/r/{rest:path}", more: str = "") -> str:
    text = route(path, more="name: orders\n" + more)
    return text.replace("upstreams: []", f"upstreams: {authorities}")


async def test_an_upload_tells_what_came_and_what_went_and_who_sent_it(
    logging_gateway: StartLogging,
) -> None:
    tokens = f"ann:{token_digest('the-secret-of-ann')}"
    gateway = logging_gateway("--auth", "token", "--tokens", tokens)
    lines = ("X-Auth-Token: the-secret-of-ann", "User-Agent: uploader/1.0")
    answer = await put(gateway.process, "/upload/a", b"12345", *lines)
    line = await gateway.line("/upload/a")
    assert line.pop("ms") >= 0
    assert {key: line[key] for key in line if key not in {"time", "level", "logger", "message"}} == {
        "event": "request.answered", "method": "PUT", "path": "/upload/a", "status": 201,
        "route": "uploads", "bytes": 5, "bytes_in": 5, "bytes_out": len(answer.body),
        "principal": "ann", "user_agent": "uploader/1.0", "remote": "127.0.0.1",
        "request_id": answer.headers["X-Request-Id"], "upload_id": answer.json["upload_id"],
    }  # fmt: skip


async def test_a_route_tells_its_name_its_upstream_and_how_long_that_took(
    logging_gateway: StartLogging, tmp_path: Path
) -> None:
    async with upstream(answer_all) as up:
        folder = write(tmp_path / "p", leads_to([up.authority]))
        gateway = logging_gateway("--auth", "none", "--plugins", str(folder))
        answer = await ask(gateway.process, "POST", "/r/a?token=hidden", body=b"abc")
        line = await gateway.line("/r/a")
    assert (line["route"], line["upstream"], line["status"]) == ("orders", up.authority, 200)
    assert (line["bytes_in"], line["bytes_out"]) == (3, len(answer.body))
    assert 0 <= line["upstream_ms"] <= line["ms"]
    assert "user_agent" not in line
    assert "hidden" not in str(line)


async def test_a_route_with_the_name_of_an_endpoint_is_told_from_it(
    logging_gateway: StartLogging, tmp_path: Path
) -> None:
    async with upstream(answer_all) as up:
        folder = write(tmp_path / "p", leads_to([up.authority]).replace("name: orders", "name: uploads"))
        gateway = logging_gateway("--auth", "none", "--plugins", str(folder))
        assert (await get(gateway.process, "/r/a")).status == 200
        assert (await gateway.line("/r/a"))["route"] == "route uploads"
        metrics = (await get(gateway.process, "/-/metrics")).body.decode()
    assert 'gateway_request_seconds_count{route="route uploads",status="2xx"} 1.0' in metrics
    assert (
        f'gateway_upstream_seconds_count{{route="route uploads",upstream="{up.authority}"}} 1.0'
        in metrics
    )
    assert 'gateway_request_seconds_count{route="uploads"' not in metrics


async def test_of_several_upstreams_the_one_that_answered_is_told(
    logging_gateway: StartLogging, tmp_path: Path
) -> None:
    async with upstream(answer_all) as up:
        folder = write(tmp_path / "p", leads_to([f"127.0.0.1:{free_port()}", up.authority]))
        gateway = logging_gateway("--auth", "none", "--plugins", str(folder))
        for number in range(3):
            assert (await get(gateway.process, f"/r/{number}")).status == 200
            assert (await gateway.line(f"/r/{number}"))["upstream"] == up.authority


async def test_an_upstream_that_did_not_answer_is_told_without_a_time(
    logging_gateway: StartLogging, tmp_path: Path
) -> None:
    authority = f"127.0.0.1:{free_port()}"
    folder = write(tmp_path / "p", leads_to([authority]))
    gateway = logging_gateway("--auth", "none", "--plugins", str(folder))
    answer = await get(gateway.process, "/r/a")
    line = await gateway.line("/r/a")
    assert (line["upstream"], line["status"]) == (authority, 502)
    assert "upstream_ms" not in line
    assert line["bytes_out"] == len(answer.body)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_response_that_streams_is_told_behind_its_end(
    logging_gateway: StartLogging, tmp_path: Path, chunked: bool
) -> None:
    half, go_on = LARGE[: 1 << 19], asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(LARGE)}"
        writer.write(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
        for part in (half, half):
            writer.write(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)
            await go_on.wait()
        if chunked:
            writer.write(b"0\r\n\r\n")
        await writer.drain()

    async with upstream(serve) as up:
        folder = write(tmp_path / "p", leads_to([up.authority]))
        gateway = logging_gateway("--auth", "none", "--plugins", str(folder))
        async with raw_connection(gateway.process) as connection:
            await connection.send(request_head("GET", "/r/a"))
            await connection.head()
            await connection.reader.readexactly(len(half))
            assert gateway.lines() == []
            go_on.set()
            line = await gateway.line("/r/a")
    assert (line["event"], line["bytes_out"]) == ("request.answered", len(LARGE))
    assert line["upstream_ms"] <= line["ms"]


async def test_a_response_that_its_upstream_cuts_is_aborted_with_what_came_of_it(
    logging_gateway: StartLogging, tmp_path: Path
) -> None:
    received = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        await received.wait()

    async with upstream(serve) as up:
        folder = write(tmp_path / "p", leads_to([up.authority]))
        gateway = logging_gateway("--auth", "none", "--plugins", str(folder))
        async with raw_connection(gateway.process) as connection:
            await connection.send(request_head("GET", "/r/a"))
            await connection.head()
            assert await connection.reader.readexactly(3) == b"abc"
            received.set()
            await connection.closed()
            line = await gateway.line("/r/a")
    assert (line["event"], line["status"], line["bytes_out"]) == ("request.aborted", 200, 3)


@pytest.mark.parametrize("size", [3, len(LARGE)])
async def test_a_download_tells_the_bytes_of_its_body(logging_gateway: StartLogging, size: int) -> None:
    gateway = logging_gateway("--auth", "none", "--downloads")
    assert (await put(gateway.process, "/upload/a", LARGE[:size])).status == 201
    assert (await get(gateway.process, "/upload/a")).body == LARGE[:size]
    line = await gateway.line("/upload/a", "GET")
    assert (line["route"], line["bytes_in"], line["bytes_out"]) == ("downloads", 0, size)
    assert (await ask(gateway.process, "HEAD", "/upload/a")).status == 200
    assert (await gateway.line("/upload/a", "HEAD"))["bytes_out"] == 0


async def test_ranges_and_archives_tell_all_bytes_of_their_body(logging_gateway: StartLogging) -> None:
    gateway = logging_gateway("--auth", "none", "--downloads")
    assert (await put(gateway.process, "/upload/d/a", LARGE)).status == 201
    part = await get(gateway.process, "/upload/d/a", "Range: bytes=0-9,700000-700009")
    assert part.status == 206
    assert (await gateway.line("/upload/d/a", "GET"))["bytes_out"] == len(part.body)
    async with raw_connection(gateway.process) as connection:
        await connection.send(request_head("GET", "/upload/d/?format=zip", "Connection: close"))
        assert (await connection.head()).status == 200
        framed = await connection.closed()
    line = await gateway.line("/upload/d/")
    assert (line["route"], line["event"]) == ("downloads", "request.answered")
    assert len(LARGE) < line["bytes_out"] < len(framed)


async def test_a_download_whose_client_leaves_is_aborted(
    logging_gateway: StartLogging, tmp_path: Path
) -> None:
    gateway = logging_gateway("--auth", "none", "--downloads")
    file, size = gateway.process.directory / "upload/sparse", 64 << 20
    file.parent.mkdir()
    file.touch()
    os.truncate(file, size)
    async with raw_connection(gateway.process) as connection:
        await connection.send(request_head("GET", "/upload/sparse"))
        assert (await connection.head()).status == 200
        await connection.reader.readexactly(1 << 20)
        assert gateway.lines() == []
        connection.reset()
    line = await gateway.line("/upload/sparse")
    assert (line["event"], line["status"]) == ("request.aborted", 200)
    assert 1 << 20 <= line["bytes_out"] < size


@pytest.mark.parametrize("tls", [False, True])
async def test_a_large_upload_tells_every_byte_whichever_way_it_is_received(
    logging_gateway: StartLogging, tmp_path: Path, tls: bool
) -> None:
    flags = ["--auth", "none"]
    if tls:
        cert, key = self_signed_certificate(tmp_path)
        flags += ["--tls-cert", cert, "--tls-key", key]
    gateway = logging_gateway(*flags)
    body = LARGE * 20
    assert (await put(gateway.process, "/upload/a", body)).status == 201
    assert (await gateway.line("/upload/a"))["bytes_in"] == len(body)


@pytest.mark.parametrize("tls", [False, True])
async def test_an_upload_that_is_cut_tells_what_came_of_it(
    logging_gateway: StartLogging, tmp_path: Path, tls: bool
) -> None:
    flags = ["--auth", "none", "--resumable=off"]
    if tls:
        cert, key = self_signed_certificate(tmp_path)
        flags += ["--tls-cert", cert, "--tls-key", key]
    gateway = logging_gateway(*flags)
    sent = LARGE * 3
    async with raw_connection(gateway.process) as connection:
        await connection.send(request_head("PUT", "/upload/a", f"Content-Length: {50 << 20}") + sent)
    line = await gateway.line("/upload/a")
    assert (line["event"], line["route"]) == ("request.aborted", "uploads")
    assert "status" not in line
    assert 0 < line["bytes_in"] <= len(sent)
    assert line["bytes_out"] == 0


async def test_an_upload_that_is_refused_before_its_body_tells_that_none_came(
    logging_gateway: StartLogging,
) -> None:
    gateway = logging_gateway("--auth", "none", "--max-bytes", "10")
    async with raw_connection(gateway.process) as connection:
        lines = ("Content-Length: 1000", "Expect: 100-continue")
        await connection.send(request_head("PUT", "/upload/a", *lines))
        answer = await connection.answer()
    line = await gateway.line("/upload/a")
    assert (line["status"], line["bytes_in"], line["bytes_out"]) == (413, 0, len(answer.body))


@pytest.mark.parametrize(
    ("method", "target", "name"),
    [
        ("PUT", "/upload/a", "uploads"),
        ("GET", "/upload/a", "downloads"),
        ("GET", "/upload/", "listing"),
        ("GET", "/upload/?format=zip", "downloads"),
        ("DELETE", "/upload/a", "deletes"),
        ("POST", "/upload/", "forms"),
        ("PUT", "/upload/a/../b", "uploads"),
        ("PROPFIND", "/upload/a", "uploads"),
        ("GET", "/-/health", "api"),
        ("GET", "/-/nothing", "api"),
        ("GET", "/nothing", "none"),
        ("PUT", "/nothing", "none"),
        ("GET", "/r/a", "orders"),
        ("DELETE", "/r/a", "orders"),
    ],
)
async def test_what_no_route_serves_has_the_name_of_its_endpoint(
    logging_gateway: StartLogging, tmp_path: Path, method: str, target: str, name: str
) -> None:
    folder = write(tmp_path / "p", route("/r/{id}", "return 'ok'", more="name: orders\n"))
    more = ("--downloads", "--listing", "--deletes", "--plugins", str(folder))
    gateway = logging_gateway("--auth", "none", *more)
    async with raw_connection(gateway.process) as connection:
        await connection.send(request_head(method, target, "Content-Length: 0"))
        await connection.head()
    assert (await gateway.line(target.partition("?")[0]))["route"] == name


async def test_resumable_uploads_and_preflights_have_names_too(logging_gateway: StartLogging) -> None:
    gateway = logging_gateway("--auth", "none", "--cors-origins", "https://page.example")
    created = await ask(
        gateway.process, "POST", "/upload/", "Tus-Resumable: 1.0.0", "Upload-Length: 3",
        "Upload-Metadata: filename YQ==", body=b"",
    )  # fmt: skip
    assert created.status == 201
    line = await gateway.line("/upload/")
    assert line["route"] == "resumable"
    assert line["upload_id"] in created.headers["Location"]
    asked = ("Origin: https://page.example", "Access-Control-Request-Method: PUT")
    assert (await ask(gateway.process, "OPTIONS", "/upload/a", *asked)).status == 204
    assert (await gateway.line("/upload/a"))["route"] == "preflight"


async def test_a_user_agent_is_short_and_tells_no_secret_of_its_request(
    logging_gateway: StartLogging,
) -> None:
    gateway = logging_gateway("--auth", "none")
    secret = "the-secret-of-ann"
    agent = f"{secret} {'x' * 300}"
    await put(gateway.process, "/upload/a", b"1", f"X-Auth-Token: {secret}", f"User-Agent: {agent}")
    line = await gateway.line("/upload/a")
    assert line["user_agent"] == f"[redacted] {'x' * 300}"[:200]
    assert secret not in gateway.process.log()
