"""What who has a link can do: the few requests that it is for, and no other, whatever else is open.

The gateway serves everybody (`--auth none`, `--downloads`, `--listing`, `--deletes`, an open route), so
that nothing but the link refuses.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest

from gateway.domain.api_routes import API_ROUTES
from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import RawResponse, get, put, raw_connection, request_head, write_plugin
from tests.support.links import OPERATOR, TOKENS, MadeLink, make_link
from tests.support.tus import b64, target_of

ROUTE: Final = """
name: hello
upstreams: []
proxy: {path: /hello, authorization: {auth: none}}
request_script: |
  return 200, {"who": "everybody"}
spec:
- {method: GET, usage: Says hello}
---
name: socket
upstreams: ["127.0.0.1:9"]
proxy: {path: /socket, authorization: {auth: none}}
websocket: true
spec:
- {method: GET, usage: Talks}
"""
UPGRADE: Final = (
    "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)  # fmt: skip
TUS: Final = "Tus-Resumable: 1.0.0"
PIECE: Final = "Content-Type: application/offset+octet-stream"
KEY: Final = "resume=0123456789abcdef0123"
PATHS: Final = {
    "{upload_id}": "01M8PTNY6ECN8JWYPPKW8F1KQ4-0", "{filepath}": "upload/in/a.txt",
    "{event_id}": "01M8PTNY6ECN8JWYPPKW8F1KQ4-0", "{link_id}": "abcdefgh",
}  # fmt: skip

FORBIDDEN_UPLOADS: Final = (
    ("GET", "/upload/in/a.txt"),
    ("HEAD", "/upload/in/a.txt"),
    ("GET", "/upload/in/a.txt?%75pload=x"),
    ("GET", "/upload/in/a.txt?resume=0123456789abcdef"),
    ("GET", "/upload/in/"),
    ("GET", "/upload/in/?format=zip"),
    ("GET", "/upload/in/?search=a"),
    ("DELETE", "/upload/in/a.txt"),
    ("PATCH", "/upload/in/a.txt"),
    ("OPTIONS", "/upload/in/a.txt"),
    ("PROPFIND", "/upload/in/"),
    ("PUT", "/upload/a.txt"),
    ("PUT", "/upload/in"),
    ("PUT", "/upload/other/a.txt"),
    ("PUT", "/upload/index/a.txt"),
    ("PUT", "/upload/IN/a.txt"),
    ("PUT", "/hello"),
    ("POST", "/upload/"),
    ("POST", "/upload/other/"),
    ("PUT", "/-/objects/upload/in/a.txt"),
    ("GET", "/-/objects/upload/in/a.txt"),
    ("GET", "/hello"),
    ("GET", "/"),
    ("GET", "/nothing"),
)
UNDECODED: Final = (
    "/upload/in/../a.txt",
    "/upload/in/%2e%2e/a.txt",
    "/upload/in//a.txt",
    "/upload/in/%00",
)
"""Paths that no upload has, whoever sends it."""


async def ask(
    gateway: Gateway, link: MadeLink, method: str, target: str, *lines: str, body: bytes = b""
) -> RawResponse:
    head = request_head(
        method, target, f"Authorization: Bearer {link.secret}", f"Content-Length: {len(body)}", *lines
    )
    async with raw_connection(gateway) as connection:
        await connection.send(head + body)
        return await connection.answer(head=method == "HEAD")


@pytest.fixture
async def open_gateway(start_gateway: StartGateway, tmp_path: Path) -> Gateway:
    folder = tmp_path / "data" / "upload" / "in"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("what is there")
    plugins = write_plugin(tmp_path / "plugins", ROUTE)
    switches = {"downloads": "true", "listing": "true", "deletes": "true"}
    return await start_gateway(auth="none", tokens=TOKENS, plugins=[str(plugins)], **switches)


@pytest.mark.parametrize("kind", ["drop", "share"])
async def test_of_all_endpoints_a_link_opens_those_that_it_is_for(
    open_gateway: Gateway, kind: str
) -> None:
    link = await make_link(open_gateway, kind, "/upload/in/")
    answered: dict[tuple[str, str], str | int] = {}
    for route in API_ROUTES:
        target = route.pattern
        for name, value in PATHS.items():
            target = target.replace(name, value)
        answer = await ask(open_gateway, link, route.method, target, "Content-Type: application/json")
        code = json.loads(answer.body)["error"] if answer.status >= 400 else answer.status
        if code != "forbidden":
            answered[route.method, route.pattern] = code
    opened = {("POST", "/-/links/open"): 200}
    if kind == "drop":
        assert answered == opened | {("GET", "/-/uploads/{upload_id}"): "not_found"}
    else:
        assert answered == opened | {("GET", "/-/shared"): 200}


@pytest.mark.parametrize("kind", ["drop", "share"])
async def test_everything_else_is_refused_in_whatever_spelling(open_gateway: Gateway, kind: str) -> None:
    link = await make_link(open_gateway, kind, "/upload/in/")
    for method, target in FORBIDDEN_UPLOADS:
        answer = await ask(open_gateway, link, method, target)
        assert answer.status == 403, (method, target, answer)
        if method != "HEAD":
            assert answer.json["error"] == "forbidden", (method, target)
    for target in UNDECODED:
        assert (await ask(open_gateway, link, "PUT", target)).status in {400, 403}, target
    assert (await ask(open_gateway, link, "GET", "/socket", *UPGRADE)).status == 403
    if kind == "share":
        assert (await ask(open_gateway, link, "PUT", "/upload/in/b.txt", body=b"x")).status == 403
        assert (await ask(open_gateway, link, "POST", "/-/shared")).status == 403


@pytest.mark.parametrize(
    "lines",
    [
        ("If-None-Match: *",),
        ("If-Match: *",),
        ("X-HTTP-Method-Override: DELETE",),
        ("X-Method-Override: GET",),
        ("Content-Range: bytes 0-0/1",),
        (TUS, "Upload-Concat: partial", "Upload-Length: 1"),
    ],
)
async def test_an_upload_that_would_tell_or_do_more_is_refused(
    open_gateway: Gateway, lines: tuple[str, ...]
) -> None:
    link = await make_link(open_gateway, "drop", "/upload/in/")
    answer = await ask(open_gateway, link, "PUT", "/upload/in/a.txt", *lines, body=b"x")
    assert (answer.status, answer.json["error"]) == (403, "forbidden")


async def test_a_drop_link_uploads_by_every_protocol_without_replacing_and_without_telling(
    open_gateway: Gateway, tmp_path: Path
) -> None:
    link = await make_link(open_gateway, "drop", "/upload/in/")
    plain = await ask(open_gateway, link, "PUT", "/upload/in/a.txt", body=b"put")
    assert plain.status == 201
    assert plain.json.keys() == {"upload_id", "bytes", "mime"}
    form = (
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="../a.txt"\r\n\r\nform\r\n--b--\r\n'
    )
    in_form = await ask(
        open_gateway,
        link,
        "POST",
        "/upload/in/",
        "Content-Type: multipart/form-data; boundary=b",
        body=form,
    )
    assert in_form.status == 201
    assert "path" not in in_form.json["uploads"][0]
    created = await ask(
        open_gateway, link, "POST", "/upload/in/", TUS, "Upload-Length: 3",
        f"Upload-Metadata: filename {b64('a.txt')}",
    )  # fmt: skip
    place = target_of(created.headers["Location"])
    assert (await ask(open_gateway, link, "HEAD", place, TUS)).headers["Upload-Offset"] == "0"
    done = await ask(open_gateway, link, "PATCH", place, TUS, PIECE, "Upload-Offset: 0", body=b"tus")
    assert done.status == 204
    draft = await ask(
        open_gateway,
        link,
        "PUT",
        "/upload/in/a.txt",
        "Upload-Complete: ?0",
        "Upload-Length: 5",
        body=b"dra",
    )
    place = target_of(draft.headers["Location"])
    done = await ask(
        open_gateway, link, "PATCH", place, "Upload-Complete: ?1", "Upload-Offset: 3",
        "Content-Type: application/partial-upload", body=b"ft",
    )  # fmt: skip
    assert done.status == 201, done
    assert "path" not in done.json
    ranged = f"/upload/in/a.txt?{KEY}"
    first = await ask(open_gateway, link, "PUT", ranged, "Content-Range: bytes 0-1/4", body=b"ra")
    assert first.status == 204
    assert (await ask(open_gateway, link, "HEAD", ranged)).headers["Upload-Offset"] == "2"
    done = await ask(open_gateway, link, "PUT", ranged, "Content-Range: bytes 2-3/4", body=b"ng")
    assert done.status == 201
    status = await ask(open_gateway, link, "GET", f"/-/uploads/{done.json['upload_id']}")
    assert status.json["state"] == "stored"
    assert not status.json.keys() & {"path", "handlers", "principal", "remote", "etag"}
    folder = tmp_path / "data" / "upload" / "in"
    assert {file.read_text() for file in folder.iterdir()} == {
        "what is there", "put", "form", "tus", "draft", "rang",
    }  # fmt: skip
    assert (folder / "a.txt").read_text() == "what is there"
    row = await link.row()
    assert (row["files"], row["bytes"]) == (5, len("putformtusdraftrang"))


async def test_an_upload_of_another_link_or_person_is_not_there(open_gateway: Gateway) -> None:
    mine = await make_link(open_gateway, "drop", "/upload/in/")
    other = await make_link(open_gateway, "drop", "/upload/in/")
    created = await ask(open_gateway, other, "POST", "/upload/in/", TUS, "Upload-Length: 3")
    place = target_of(created.headers["Location"])
    for method, lines in (
        ("HEAD", (TUS,)),
        ("DELETE", (TUS,)),
        ("PATCH", (TUS, PIECE, "Upload-Offset: 0")),
        ("GET", ()),
    ):
        assert (await ask(open_gateway, mine, method, place, *lines)).status == 404, method
    upload_id = place.partition("upload=")[2].partition(".")[0]
    assert (await ask(open_gateway, mine, "GET", f"/-/uploads/{upload_id}")).status == 404
    anonymous = (await put(open_gateway, "/upload/in/b.txt")).json["upload_id"]
    assert (await ask(open_gateway, mine, "GET", f"/-/uploads/{anonymous}")).status == 404
    assert (await ask(open_gateway, other, "HEAD", place, TUS)).headers["Upload-Offset"] == "0"
    assert (await ask(open_gateway, other, "DELETE", place, TUS)).status == 204
    await ask(
        open_gateway, other, "PUT", f"/upload/in/c?{KEY}", "Content-Range: bytes 0-1/4", body=b"ra"
    )
    assert "Upload-Offset" not in (await ask(open_gateway, mine, "HEAD", f"/upload/in/c?{KEY}")).headers
    assert (await ask(open_gateway, mine, "DELETE", f"/upload/in/c?{KEY}")).status == 404
    assert (await ask(open_gateway, other, "DELETE", f"/upload/in/c?{KEY}")).status == 204


async def test_handlers_still_refuse_and_send_elsewhere_and_never_replace(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    plugins = write_plugin(
        tmp_path / "plugins",
        """
name: decide
event: APIGW.OnFileUploading
script: |
  async def decide(event, handle):
      if event["path"].endswith(".exe"):
          await handle.terminate(code=422, output=f"not for {event['principal']['kind']}")
      event["path"] = event["path"].replace("/in/", "/sorted/")
      event["on_conflict"] = "replace"
""",
    )
    gateway = await start_gateway(auth="token", tokens=TOKENS, plugins=[str(plugins)])
    link = await make_link(gateway, "drop", "/upload/in/")
    refused = await ask(gateway, link, "PUT", "/upload/in/a.exe", body=b"x")
    assert (refused.status, refused.body) == (422, b"not for link")
    for _ in range(2):
        assert (await ask(gateway, link, "PUT", "/upload/in/a.txt", body=b"x")).status == 201
    folder = tmp_path / "data" / "upload" / "sorted"
    assert {file.name for file in folder.iterdir()} == {"a.txt", "a-1.txt"}
    assert (await link.row())["files"] == 2


async def test_a_link_confines_who_is_signed_in_or_has_a_token_too(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(auth="token", tokens=TOKENS)
    link = await make_link(gateway, "drop", "/upload/in/")
    body = json.dumps({"token": OPERATOR}).encode()
    length, kind = f"Content-Length: {len(body)}", "Content-Type: application/json"
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("POST", "/-/session", length, kind) + body)
        cookie = (await connection.answer()).headers["Set-Cookie"].partition(";")[0]
    for line in (f"Cookie: {cookie}", f"X-Auth-Token: {OPERATOR}"):
        assert (await get(gateway, "/-/links", line)).status == 200
        answer = await ask(gateway, link, "GET", "/-/links", line)
        assert (answer.status, answer.json["error"]) == (403, "forbidden")
        assert (await ask(gateway, link, "PUT", "/upload/in/a", line)).status == 201
    row = await link.row()
    assert row["files"] == 2
