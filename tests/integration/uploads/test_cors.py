"""Pages of other origins upload, download and ask for the status, as `--cors-origins` says."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.auth.tokens import token_digest
from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import RawResponse, get, put, raw_connection, request_head
from tests.support.recorders import write_handler

pytestmark = pytest.mark.both_paths

GOOD = "https://app.example"
ORIGIN = f"Origin: {GOOD}"
EVIL = "Origin: https://evil.example"
OPEN: dict[str, object] = {"cors_origins": [GOOD], "downloads": True, "auth": "none"}
TOKENS: dict[str, object] = {"auth": "token", "tokens": [f"alice:{token_digest('secret-alice')}"]}


async def ask(gateway: Gateway, method: str, target: str, *lines: str) -> RawResponse:
    async with raw_connection(gateway) as connection:
        await connection.send(request_head(method, target, *lines))
        return await connection.answer(head=method == "HEAD")


def allowed(answer: RawResponse) -> str | None:
    """Return the origin that may read an answer, whose caches must tell origins apart."""
    assert "Origin" in answer.headers["Vary"]
    return answer.headers.get("Access-Control-Allow-Origin")


@pytest.mark.parametrize("target", ["/upload/a.png", "/upload/a/", "/upload/", "/upload/a?upload=x"])
async def test_a_preflight_of_an_upload_path_is_answered_before_authorization(
    start_gateway: StartGateway, target: str
) -> None:
    gateway = await start_gateway(**{**OPEN, **TOKENS})
    lines = ("Access-Control-Request-Method: PATCH", "Access-Control-Request-Headers: x-auth-token")
    answer = await ask(gateway, "OPTIONS", target, ORIGIN, *lines)
    assert (answer.status, answer.body, allowed(answer)) == (204, b"", GOOD)
    methods = answer.headers["Access-Control-Allow-Methods"]
    assert methods == "GET, HEAD, PUT, POST, PATCH, DELETE"
    assert answer.headers["Access-Control-Allow-Headers"] == "x-auth-token"
    refused = await ask(gateway, "OPTIONS", target, EVIL, *lines)
    assert (refused.status, allowed(refused)) == (403, None)


async def test_a_page_reads_what_became_of_its_upload(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(**OPEN)
    stored = await put(gateway, "/upload/a.txt", b"hello", ORIGIN)
    part = await get(gateway, "/upload/a.txt", ORIGIN, "Range: bytes=1-2")
    assert (part.status, part.body, allowed(part)) == (206, b"el", GOOD)
    assert (stored.status, allowed(stored)) == (201, GOOD)
    exposed = stored.headers["Access-Control-Expose-Headers"].split(", ")
    assert {"ETag", "Location", "Repr-Digest", "Retry-After", "Upload-Offset", "Tus-Version"} <= {
        *exposed
    }
    status = await get(gateway, stored.headers["Location"], ORIGIN)
    assert (status.status, allowed(status)) == (200, GOOD)
    asked = await ask(
        gateway, "OPTIONS", stored.headers["Location"], ORIGIN, "Access-Control-Request-Method: GET"
    )
    assert (asked.status, asked.headers["Access-Control-Allow-Methods"]) == (204, "GET, HEAD")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("target", "status", "lines"),
    [("/upload/d/a.txt", 200, ()),
     ("/upload/d/?format=zip", 200, ()), ("/upload/d/", 404, ()), ("/upload/none", 404, ()),
     ("/upload/d/a.txt", 304, ("If-None-Match: *",))],
)  # fmt: skip
async def test_a_page_downloads(
    start_gateway: StartGateway, method: str, target: str, status: int, lines: tuple[str, ...]
) -> None:
    gateway = await start_gateway(**OPEN)
    await put(gateway, "/upload/d/a.txt", b"hello")
    for origin, told in ((ORIGIN, GOOD), (EVIL, None), ("Accept: */*", None)):
        answer = await ask(gateway, method, target, origin, *lines)
        assert (answer.status, allowed(answer)) == (status, told)


@pytest.mark.parametrize(
    ("method", "target", "status", "settings"),
    [("PUT", "/upload/a", 401, TOKENS), ("GET", "/upload/a", 401, TOKENS),
     ("GET", "/-/uploads/x", 401, TOKENS), ("GET", "/-/uploads/x", 404, {}),
     ("PUT", "/upload/a", 413, {"max_bytes": "1"}), ("PUT", "/upload/%00", 400, {}),
     ("PUT", "/upload/a/%2e%2e/b", 400, {}), ("PROPFIND", "/upload/a", 405, {}),
     ("DELETE", "/upload/a", 405, {}), ("PUT", "/upload/", 400, {})],
)  # fmt: skip
async def test_a_page_reads_why_it_was_refused(
    start_gateway: StartGateway, method: str, target: str, status: int, settings: dict[str, object]
) -> None:
    gateway = await start_gateway(**{**OPEN, **settings})
    body = b"hello" if method == "PUT" else b""
    async with raw_connection(gateway) as connection:
        head = request_head(method, target, ORIGIN, *([f"Content-Length: {len(body)}"] if body else []))
        await connection.send(head + body)
        answer = await connection.answer()
    assert (answer.status, allowed(answer)) == (status, GOOD)


async def test_a_page_reads_what_a_handler_refused_and_that_the_gateway_stops(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    script = 'await handle.terminate(code=418, output="no")'
    gateway = await start_gateway(**OPEN, plugins=write_handler(tmp_path / "plugins", script))
    answer = await put(gateway, "/upload/a", b"x", ORIGIN)
    assert (answer.status, answer.body, allowed(answer)) == (418, b"no", GOOD)
    gateway.endpoints.dispatcher.stopping = True
    answer = await put(gateway, "/upload/a", b"x", ORIGIN)
    gateway.endpoints.dispatcher.stopping = False
    assert (answer.status, allowed(answer)) == (503, GOOD)


async def test_a_large_upload_is_answered_as_a_small_one_is(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(**OPEN)
    answer = await put(gateway, "/upload/a", bytes(12 << 20), ORIGIN)
    assert (answer.status, allowed(answer)) == (201, GOOD)


async def test_every_page_may_call_where_all_origins_are_named(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(**{**OPEN, "cors_origins": ["*"]})
    assert allowed(await put(gateway, "/upload/a", b"x", EVIL)) == "*"
    assert allowed(await get(gateway, "/upload/a", EVIL)) == "*"


async def test_a_template_of_the_operator_is_covered_and_other_paths_are_not(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(**OPEN, file_upload_api_path="/v1/{tenant}/{filename}/content")
    asked = (ORIGIN, "Access-Control-Request-Method: PUT")
    for target in ("/v1/acme/a.png/content", "/v1/acme//content"):
        answer = await ask(gateway, "OPTIONS", target, *asked)
        assert (answer.status, allowed(answer)) == (204, GOOD)
    for target in ("/v1/acme/a.png", "/upload/a", "/", "/-/health", "/-/events", "/-/uploads"):
        answer = await ask(gateway, "OPTIONS", target, *asked)
        assert answer.status in {404, 405}, target
        assert "Access-Control-Allow-Origin" not in answer.headers, target


async def test_without_the_setting_no_page_may_call(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(downloads=True, auth="none")
    stored = await put(gateway, "/upload/a", b"x", ORIGIN)
    for answer in (
        stored,
        await get(gateway, "/upload/a", ORIGIN),
        await get(gateway, stored.headers["Location"], ORIGIN),
        await ask(gateway, "OPTIONS", "/upload/a", ORIGIN, "Access-Control-Request-Method: PUT"),
    ):
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Origin" not in answer.headers.get("Vary", "")


async def test_uploads_of_pages_are_served_alike_by_one_connection(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(**OPEN)
    async with raw_connection(gateway) as connection:
        for origin, told in ((ORIGIN, GOOD), (EVIL, None), (ORIGIN, GOOD)):
            head = request_head("PUT", "/upload/a", "Content-Length: 1", origin)
            await connection.send(head + b"x")
            answer = await connection.answer()
            assert (answer.status in {200, 201}, allowed(answer)) == (True, told)


async def test_a_name_that_was_rebound_gets_no_preflight(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(cors_origins=[GOOD])
    lines = ["OPTIONS /upload/a HTTP/1.1", "Host: evil.example", ORIGIN]
    lines += ["Access-Control-Request-Method: PUT", "", ""]
    async with raw_connection(gateway) as connection:
        await connection.send("\r\n".join(lines).encode())
        assert (await connection.answer()).status == 421


FORM = (
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="f.txt"\r\n'
    b"Content-Type: text/plain\r\n\r\nhello\r\n--b--\r\n"
)


async def post_form(gateway: Gateway, *lines: str) -> RawResponse:
    typed = ("Content-Type: multipart/form-data; boundary=b", f"Content-Length: {len(FORM)}")
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("POST", "/upload/", *typed, *lines) + FORM)
        return await connection.answer()


async def test_a_form_that_a_page_posts_without_asking_is_stored_for_named_origins_only(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(**OPEN)
    for line in (EVIL, "Origin: null", "Sec-Fetch-Site: cross-site"):
        answer = await post_form(gateway, line)
        assert (answer.status, allowed(answer)) == (403, None)
    assert not (tmp_path / "data/upload/f.txt").exists()
    stored = await post_form(gateway, ORIGIN, "Sec-Fetch-Site: cross-site")
    assert (stored.status, allowed(stored)) == (201, GOOD)
    assert (await post_form(gateway)).status == 201  # no browser


async def test_a_page_lists_and_removes_files(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(**OPEN, listing=True, deletes=True)
    await put(gateway, "/upload/d/a.txt", b"hello")
    listed = await get(gateway, "/upload/d/", ORIGIN)
    assert (listed.status, allowed(listed)) == (200, GOOD)
    removed = await ask(gateway, "DELETE", "/upload/d/a.txt", ORIGIN)
    assert (removed.status, allowed(removed)) == (204, GOOD)


async def test_a_page_resumes_an_upload(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(**OPEN)
    tus = ("Tus-Resumable: 1.0.0", ORIGIN)
    created = await ask(gateway, "POST", "/upload/a", *tus, "Upload-Length: 5", "Content-Length: 0")
    assert (created.status, allowed(created)) == (201, GOOD)
    resource = "/" + created.headers["Location"].split("/", 3)[3]
    looked = await ask(gateway, "HEAD", resource, *tus)
    assert (looked.headers["Upload-Offset"], allowed(looked)) == ("0", GOOD)
    limits = await ask(gateway, "OPTIONS", "/upload/a", ORIGIN)
    assert (limits.status, allowed(limits)) == (204, GOOD)
    lost = await ask(gateway, "HEAD", f"{resource}x", *tus)
    assert (lost.status, allowed(lost)) == (404, GOOD)
