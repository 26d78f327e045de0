"""What is decided before a byte of body: refusals reach the client, and cost it nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
import requests

from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import curl, files_below, get, leftovers, put, raw_connection, request_head
from tests.support.recorders import captured_log, write_handler

pytestmark = pytest.mark.both_paths

WAITING = ("Content-Length: 1000", "Expect: 100-continue")
REFUSE = "await handle.terminate(code=403, output='no')"


@dataclass
class Case:
    """A way to be refused: the settings, a script, whether the file exists, and the answer."""

    status: int
    error: str | None
    request: tuple[str, str] = ("PUT", "/upload/x")
    lines: tuple[str, ...] = ()
    settings: dict[str, object] = field(default_factory=dict)
    script: str | None = None
    exists: bool = False


CASES = {
    "without a token": Case(401, "unauthorized", settings={"auth": "token"}),
    "on a wrong path": Case(404, "not_found", ("PUT", "/nowhere/x")),
    "with a wrong method": Case(405, "method_not_allowed", ("PATCH", "/upload/x")),
    "as a form that is none": Case(415, "unsupported_media_type", ("POST", "/upload/x")),
    "with too large a body": Case(413, "too_large", settings={"max_bytes": "999"}),
    "where the name is taken": Case(409, "conflict", settings={"on_conflict": "reject"}, exists=True),
    "where it must be new": Case(412, "already_exists", lines=("If-None-Match: *",), exists=True),
    "with a bad path": Case(400, "bad_path", ("PUT", "/upload/a/%2e%2e/x")),
    "with a part of a file": Case(
        400, "bad_range", lines=("Content-Range: bytes 1-1000/1001",), settings={"resumable": "off"}
    ),
    "to go on with nothing": Case(
        409, "mismatching_offset", lines=("Content-Range: bytes 1-1000/1001",)
    ),
    "with a length that contradicts": Case(
        400, "inconsistent_length", lines=("Upload-Complete: ?1", "Upload-Length: 1001")
    ),
    "with a bad digest": Case(400, "bad_digest", lines=("Content-MD5: x",)),
    "by a handler": Case(402, None, script="await handle.terminate(402, {'pay': 'first'})"),
    "by a broken handler": Case(503, "hook_failed", script="1 / 0"),
    "on a protected path": Case(403, "forbidden", ("PUT", "/upload/plugins/x")),
    "for want of space": Case(507, "no_space", settings={"min_free_bytes": str(1 << 60)}),
    "with a strange expectation": Case(417, "expectation_failed", lines=("Expect: a-pony",)),
}


async def started(start_gateway: StartGateway, tmp_path: Path, case: Case) -> Gateway:
    """Start a gateway in which `case` is refused."""
    folder = tmp_path / "data/upload/plugins"
    folder.mkdir(parents=True)
    if case.script is not None:
        write_handler(folder, case.script)
    if case.exists:
        (tmp_path / "data/upload/x").write_bytes(b"old")
    return await start_gateway(plugins=[str(folder)], **case.settings)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_who_waits_for_the_go_ahead_gets_the_refusal_as_the_very_first_bytes(
    start_gateway: StartGateway, tmp_path: Path, case: Case
) -> None:
    gateway = await started(start_gateway, tmp_path, case)
    before = files_below(tmp_path / "data/upload")
    with captured_log() as lines:
        async with raw_connection(gateway) as connection:
            expect = () if any("Expect" in line for line in case.lines) else WAITING[1:]
            await connection.send(request_head(*case.request, WAITING[0], *expect, *case.lines))
            text = await connection.closed()
        metrics = (await get(gateway, "/-/metrics", *_token(gateway))).body.decode()

    top, _, body = text.decode().partition("\r\n\r\n")
    assert top.startswith(f"HTTP/1.1 {case.status} ")
    assert text.count(b"HTTP/1.1") == 1
    headers = dict(line.split(": ", 1) for line in top.split("\r\n")[1:])
    assert headers["Connection"] == "close"
    if case.error is None:
        assert json.loads(body) == {"pay": "first"}
    else:
        assert json.loads(body)["error"] == case.error
    assert headers.get("Allow") == ("PUT, POST" if case.status == 405 else None)
    assert ("WWW-Authenticate" in headers) == (case.status == 401)
    assert ("Retry-After" in headers) == (case.status == 503)
    assert files_below(tmp_path / "data/upload") == before
    assert leftovers(tmp_path / "data") == []

    method, path = case.request
    line = next(line for line in lines if line["logger"] == "gateway.access")
    assert (line["method"], line["path"], line["status"]) == (method, path, case.status)
    assert line["request_id"] == headers["X-Request-Id"]
    if case.error is not None:
        assert line.get("upload_id") == json.loads(body).get("upload_id")
    assert f'gateway_requests_total{{method="{method}",status="{case.status}"}} 1.0' in metrics


def _token(gateway: Gateway) -> list[str]:
    return (
        [f"X-Auth-Token: {gateway.resources.base.shared.token}"]
        if gateway.resources.base.shared.token
        else []
    )


async def test_the_refusal_of_an_upload_path_names_its_upload(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_bytes="10")
    with captured_log() as lines:
        answer = await put(gateway, "/upload/x", b"x" * 11)
    (line,) = [line for line in lines if line["logger"] == "gateway.access"]
    assert answer.json["upload_id"] == line["upload_id"]
    assert len(line["upload_id"]) > 26


async def test_who_is_welcome_gets_the_go_ahead_and_then_the_answer(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", "/upload/x", *WAITING))
        assert await connection.line() == b"HTTP/1.1 100 Continue\r\n"
        assert await connection.line() == b"\r\n"
        await connection.send(b"x" * 1000)
        assert await connection.line() == b"HTTP/1.1 201 Created\r\n"
    assert files_below(tmp_path / "data/upload") == {"x": b"x" * 1000}


async def test_a_chunked_body_is_measured_while_it_comes(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(max_bytes="100000")
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", "/upload/x", "Transfer-Encoding: chunked"))
        await connection.send(b"%x\r\n%s\r\n" % (100_001, b"x" * 100_001))
        answer = await connection.answer()
    assert (answer.status, answer.json["error"]) == (413, "too_large")
    assert answer.headers["Connection"] == "close"
    assert files_below(tmp_path / "data/upload") == {}
    assert leftovers(tmp_path / "data") == []


async def test_length_is_required(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", "/upload/x"))
        answer = await connection.answer()
    assert (answer.status, answer.json["error"]) == (411, "length_required")


# -- real clients, refused


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.bin"
    path.write_bytes(b"x" * 20_000_000)
    return path


async def test_a_refused_curl_sends_not_one_byte_of_its_body(
    start_gateway: StartGateway, large: Path
) -> None:
    gateway = await start_gateway(auth="token")
    patient = ("--expect100-timeout", "30")
    result = await curl(*patient, "-T", str(large), f"{gateway.url}/upload/x")
    assert (result.code, result.status, result.uploaded) == (0, 401, 0)
    metrics = (await get(gateway, "/-/metrics", *_token(gateway))).body.decode()
    assert "gateway_refused_bytes_total 2e+07" in metrics


async def test_a_client_that_grew_tired_of_waiting_gets_the_refusal_too(
    start_gateway: StartGateway, tmp_path: Path, large: Path
) -> None:
    script = "await asyncio.sleep(0.3)\n" + REFUSE
    gateway = await start_gateway(plugins=write_handler(tmp_path / "plugins", script))
    result = await curl("--expect100-timeout", "0.05", "-T", str(large), f"{gateway.url}/upload/x")
    assert (result.status, result.body) == (403, "no")


async def _by_curl(url: str, large: Path) -> int:
    return (await curl("-H", "Expect:", "-T", str(large), url)).status


async def _by_requests(url: str, large: Path) -> int:
    def send() -> int:
        with large.open("rb") as body:
            return requests.put(url, data=body, timeout=60).status_code

    return await asyncio.to_thread(send)


async def _by_aiohttp(url: str, large: Path) -> int:
    async with aiohttp.ClientSession() as session:
        with large.open("rb") as body:
            async with session.put(url, data=body) as answer:
                await answer.read()
                return answer.status


async def _by_http_1_0(url: str, large: Path) -> int:
    return (await curl("--http1.0", "-T", str(large), url)).status


Client = Callable[[str, Path], Awaitable[int]]


@pytest.mark.parametrize("client", [_by_curl, _by_requests, _by_aiohttp, _by_http_1_0])
async def test_a_client_that_just_sends_gets_the_refusal_and_no_reset(
    start_gateway: StartGateway, large: Path, tmp_path: Path, client: Client
) -> None:
    gateway = await start_gateway(auth="token")
    statuses = [await client(f"{gateway.url}/upload/x", large) for _ in range(10)]
    assert statuses == [401] * 10
    assert files_below(tmp_path / "data/upload") == {}


async def test_a_client_of_http_1_0_can_upload(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway()
    async with raw_connection(gateway) as connection:
        await connection.send(
            b"PUT /upload/x HTTP/1.0\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc"
        )
        text = await connection.closed()
    assert text.split(b"\r\n")[0].endswith(b" 201 Created")
    assert files_below(tmp_path / "data/upload") == {"x": b"abc"}


# -- who may


async def test_what_came_through_a_proxy_is_refused_until_somebody_chose_auth(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway()
    for line in ("X-Forwarded-For: 10.0.0.1", "Forwarded: for=10.0.0.1", "x-forwarded-host: a"):
        assert (await put(gateway, "/upload/x", b"1", line)).status == 403
        assert (await get(gateway, "/-/metrics", line)).status == 403
        assert (await get(gateway, "/-/health", line)).status == 200


async def test_auth_none_said_aloud_takes_uploads_through_a_proxy(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(auth="none")
    assert (await put(gateway, "/upload/x", b"1", "X-Forwarded-For: 10.0.0.1")).status == 201


async def test_a_token_opens_everything_and_is_written_down_nowhere(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(auth="token")
    token = gateway.resources.base.shared.token
    assert token is not None
    with captured_log() as lines:
        answer = await put(gateway, "/upload/x", b"1", f"Authorization: Bearer {token}")
        assert answer.status == 201
        assert (await put(gateway, "/upload/x", b"2", f"X-Auth-Token: {token}")).status == 200
        for page in (answer.headers["Location"], "/-/metrics", "/-/events"):
            refused = await get(gateway, page)
            assert (refused.status, "WWW-Authenticate" in refused.headers) == (401, True)
            assert (await get(gateway, page, "X-Auth-Token: wrong")).status == 401
            assert (await get(gateway, page, f"X-Auth-Token: {token}")).status == 200
        wrong = await put(gateway, "/upload/x", b"3", f"Authorization: Bearer {token}x")
        assert (wrong.status, wrong.headers["WWW-Authenticate"][:6]) == (401, "Bearer")
        for page in ("/-/health", "/-/ready"):
            assert (await get(gateway, page)).status == 200
    assert token not in json.dumps(lines)
    state = files_below(tmp_path / "data/.gateway")
    assert any(name.startswith("journal") for name in state)
    assert [name for name, content in state.items() if token.encode() in content] == []
