"""Forms over real sockets: curl, requests, hostile bodies; what is stored, told and refused."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import requests

from gateway.auth.tokens import token_digest
from gateway.endpoints.uploads.form_parts import FormPart, FormReader
from gateway.server.app import Gateway
from tests.conftest import StartGateway, StartProcess
from tests.support.harness import (
    GatewayProcess,
    RawResponse,
    curl,
    files_below,
    get,
    leftovers,
    raw_connection,
    request_head,
    wait_settled,
    wait_until,
    write_plugin,
)
from tests.support.recorders import captured_log, write_handler

BOUNDARY = "forms-boundary"
TYPE = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
END = f"--{BOUNDARY}--\r\n".encode()
LARGE = os.urandom(3_000_000)
TOKENS = {"auth": "token", "tokens": [f"alice:{token_digest('secret-alice')}"]}
BEARER = "Authorization: Bearer secret-alice"
RECORD = """
name: record
event: APIGW.OnFileUploaded
script: |
  async def record(event, handle):
      with open("{log}", "a") as log:
          log.write(json.dumps([event["path"], event["metadata"], event["method"], event["mime"],
                                event["headers"].get("Content-Type")]) + "\\n")
"""


def part(name: str, content: bytes | str, filename: str | None = None, *lines: str) -> bytes:
    named = "" if filename is None else f'; filename="{filename}"'
    head = "\r\n".join([f'Content-Disposition: form-data; name="{name}"{named}', *lines])
    body = content if isinstance(content, bytes) else content.encode()
    return f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + body + b"\r\n"


async def post(
    gateway: Gateway | GatewayProcess, target: str, body: bytes, *lines: str, content_type: str = TYPE
) -> RawResponse:
    async with raw_connection(gateway) as connection:
        head = request_head("POST", target, content_type, f"Content-Length: {len(body)}", *lines)
        await connection.send(head + body)
        return await connection.answer()


def paths_of(answer: RawResponse) -> list[tuple[int, str | None]]:
    return [(file["status"], file.get("path")) for file in answer.json["uploads"]]


def stored(tmp_path: Path) -> dict[str, bytes]:
    return files_below(tmp_path / "data/upload")


# -- clients


async def test_curl_posts_files_to_a_folder_with_their_metadata(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    log = tmp_path / "events"
    plugins = write_plugin(tmp_path / "plugins", RECORD.format(log=log))
    gateway = await start_gateway(plugins=[str(plugins)])
    (tmp_path / "a.txt").write_bytes(b"hello")
    (tmp_path / "b.bin").write_bytes(LARGE)
    result = await curl(
        *("-F", "title=Sunrise"),
        *("-F", f"f=@{tmp_path}/a.txt"),
        *("-F", "place=Zürich"),
        *("-F", f"g=@{tmp_path}/b.bin;type=image/x-odd"),
        f"{gateway.url}/upload/docs/",
    )
    assert result.status == 201
    assert stored(tmp_path) == {"docs/a.txt": b"hello", "docs/b.bin": LARGE}
    await wait_settled(gateway)
    lines = sorted(log.read_text().splitlines())
    assert lines == [
        '["/upload/docs/a.txt", {"title": "Sunrise"}, "POST", "text/plain", "text/plain"]',
        '["/upload/docs/b.bin", {"title": "Sunrise", "place": "Z\\u00fcrich"}, "POST",'
        ' "image/x-odd", "image/x-odd"]',
    ]
    assert leftovers(tmp_path / "data") == []


async def test_curl_posts_one_file_to_a_path(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway()
    (tmp_path / "b.bin").write_bytes(LARGE)
    result = await curl("-F", f"f=@{tmp_path}/b.bin", f"{gateway.url}/upload/a/named.bin")
    assert (result.status, '"filename": "b.bin"' in result.body) == (201, True)
    assert stored(tmp_path) == {"a/named.bin": LARGE}


async def test_requests_posts_a_form(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway()
    files: Any = [("f", ("ä.txt", b"one")), ("f", ("two.bin", LARGE, "image/x-odd"))]
    answer = await asyncio.to_thread(
        requests.post, f"{gateway.url}/upload/", files=files, data={"title": "x"}, timeout=60
    )
    assert answer.status_code == 201
    assert [file["mime"] for file in answer.json()["uploads"]] == ["text/plain", "image/x-odd"]
    assert stored(tmp_path) == {"ä.txt": b"one", "two.bin": LARGE}


async def test_a_form_of_unknown_length_that_waits_for_100_continue_is_stored(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    body = part("f", b"hello", "a") + END
    async with raw_connection(gateway) as connection:
        lines = (TYPE, "Transfer-Encoding: chunked", "Expect: 100-continue")
        await connection.send(request_head("POST", "/upload/", *lines))
        assert await connection.line() == b"HTTP/1.1 100 Continue\r\n"
        await connection.line()
        for byte in body:
            await connection.send(b"1\r\n%c\r\n" % byte)
        await connection.send(b"0\r\n\r\n")
        assert (await connection.answer()).status == 201
        await connection.send(request_head("GET", "/-/health"))
        assert (await connection.answer()).status == 200
    assert stored(tmp_path) == {"a": b"hello"}


# -- what is stored where


@pytest.mark.parametrize(
    ("filename", "name"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\photo.jpg", "photo.jpg"),
        ("a%22b.txt", 'a"b.txt'),
        ("50%.txt", "50%.txt"),
        ("%2e%2e%2fx", "%2e%2e%2fx"),
    ],
)
async def test_the_last_segment_of_the_filename_is_the_name(
    start_gateway: StartGateway, tmp_path: Path, filename: str, name: str
) -> None:
    gateway = await start_gateway()
    answer = await post(gateway, "/upload/in/", part("f", b"x", filename) + END)
    assert (answer.status, answer.json["uploads"][0]["path"]) == (201, f"/upload/in/{name}")
    assert stored(tmp_path) == {f"in/{name}": b"x"}


@pytest.mark.parametrize("filename", ["dir/", ""])
async def test_a_file_without_a_name_gets_a_uuid(
    start_gateway: StartGateway, tmp_path: Path, filename: str
) -> None:
    gateway = await start_gateway()
    assert (await post(gateway, "/upload/", part("f", b"x", filename) + END)).status == 201
    [name] = stored(tmp_path)
    assert len(name) == 36


@pytest.mark.parametrize("filename", ["..", "a/..", ".", "a\x00b", "a\tb", "x" * 300])
async def test_a_bad_filename_is_refused(
    start_gateway: StartGateway, tmp_path: Path, filename: str
) -> None:
    gateway = await start_gateway()
    answer = await post(gateway, "/upload/in/", part("f", b"x", filename) + END)
    assert (answer.status, answer.json["error"]) == (400, "bad_path")
    assert stored(tmp_path) == {}


async def test_a_place_of_the_gateway_is_refused(start_gateway: StartGateway, tmp_path: Path) -> None:
    plugins = write_plugin(tmp_path / "data/upload/plugins", RECORD.format(log="x"))
    gateway = await start_gateway(plugins=[str(plugins)])
    answer = await post(gateway, "/upload/plugins/", part("f", b"x", "evil.yaml") + END)
    assert answer.status == 403
    assert [*stored(tmp_path)] == ["plugins/plugin.yaml"]


async def test_an_input_without_a_file_is_no_file(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway()
    empty = part("g", b"", "", "Content-Type: application/octet-stream")
    answer = await post(gateway, "/upload/in/x", empty + part("f", b"x", "a") + empty + END)
    assert paths_of(answer) == [(201, "/upload/in/x")]
    answer = await post(gateway, "/upload/in/x", empty + END)
    assert (answer.status, "no file" in answer.json["message"]) == (400, True)


@pytest.mark.parametrize(
    ("template", "target", "path"),
    [
        ("/files/{team}/{filename}", "/files/red/", "/files/red/a"),
        ("/{filepath}", "/docs/", "/docs/a"),
        ("/files/{filepath}", "/files/", "/files/a"),
    ],
)
async def test_a_folder_of_another_template_takes_a_form(
    start_gateway: StartGateway, template: str, target: str, path: str
) -> None:
    gateway = await start_gateway(file_upload_api_path=template, stored_path=template)
    assert paths_of(await post(gateway, target, part("f", b"x", "a") + END)) == [(201, path)]


async def test_metadata_of_the_request_and_the_digests_of_a_part_count(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    wrong = part("f", b"x", "a", "Content-MD5: AAAAAAAAAAAAAAAAAAAAAA==")
    answer = await post(gateway, "/upload/", wrong + END)
    assert (answer.status, answer.json["error"]) == (400, "digest_mismatch")
    right = part("f", b"hello", "a", "Content-MD5: XUFAKrxLKna5cZ2REBfFkg==")
    answer = await post(gateway, "/upload/", right + END, "X-Amz-Meta-Title: Sunrise")
    assert answer.status == 201
    digest = "Content-Digest: sha-256=:uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=:"
    answer = await post(gateway, "/upload/", right + END, digest)
    assert (answer.status, answer.json["error"]) == (400, "bad_digest")


# -- several files, one of which fails


async def test_what_precedes_a_refused_file_is_stored_and_told(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(max_bytes="100")
    body = part("f", b"1", "one") + part("f", b"x" * 101, "two") + part("f", b"3", "three") + END
    answer = await post(gateway, "/upload/", body)
    assert answer.status == 207
    first, second = answer.json["uploads"]
    assert (first["status"], first["path"], first["filename"]) == (201, "/upload/one", "one")
    assert (second["status"], second["error"], second["filename"]) == (413, "too_large", "two")
    assert (await get(gateway, f"/-/uploads/{second['upload_id']}")).json["state"] == "failed"
    assert stored(tmp_path) == {"one": b"1"}
    assert leftovers(tmp_path / "data") == []


async def test_the_first_refusal_is_the_answer_where_nothing_was_stored(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(max_bytes="10", on_conflict="reject")
    body = part("f", b"x" * 11, "one") + part("f", b"2", "two") + END
    answer = await post(gateway, "/upload/", body)
    assert (answer.status, answer.json["error"], stored(tmp_path)) == (413, "too_large", {})
    assert (await post(gateway, "/upload/", part("f", b"1", "one") + END)).status == 201
    answer = await post(gateway, "/upload/", part("f", b"2", "one") + END)
    assert (answer.status, stored(tmp_path)) == (409, {"one": b"1"})


async def test_a_path_takes_exactly_one_file_and_nothing_else_is_stored(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    for body in (part("f", LARGE, "a") + part("f", b"2", "b") + END, part("f", LARGE, "a"), END):
        answer = await post(gateway, "/upload/x", body)
        assert (answer.status, stored(tmp_path)) == (400, {})
    assert leftovers(tmp_path / "data") == []


async def test_a_folder_keeps_what_came_before_the_form_broke(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    body = part("f", b"1", "one") + part("f", b"2", "two")[:-8]
    answer = await post(gateway, "/upload/", body)
    assert paths_of(answer) == [(201, "/upload/one"), (400, None)]
    assert answer.json["uploads"][1]["error"] == "incomplete_body"
    assert stored(tmp_path) == {"one": b"1"}


async def test_handlers_decide_about_each_file(start_gateway: StartGateway, tmp_path: Path) -> None:
    script = (
        "if event['path'].endswith('.exe'):\n"
        "    await handle.terminate(code=422, output='no programs')\n"
        "event['path'] = '/in/' + event['path'].rsplit('/', 1)[1]"
    )
    gateway = await start_gateway(plugins=write_handler(tmp_path / "plugins", script))
    body = part("f", b"1", "a.txt") + part("f", b"2", "b.exe") + part("f", b"3", "c.txt") + END
    answer = await post(gateway, "/upload/", body)
    assert paths_of(answer) == [(201, "/in/a.txt"), (422, None)]
    assert answer.json["uploads"][1]["output"] == "no programs"
    answer = await post(gateway, "/upload/", part("f", b"2", "b.exe") + END)
    assert (answer.status, answer.body) == (422, b"no programs")
    assert files_below(tmp_path / "data/in") == {"a.txt": b"1"}


async def test_a_cut_connection_leaves_whole_files_and_no_trace_of_the_other(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    async with raw_connection(gateway) as connection:
        body = part("f", b"1", "one") + part("f", LARGE, "two")[:-100_000]
        lines = (TYPE, f"Content-Length: {len(body) + 100_000}")
        await connection.send(request_head("POST", "/upload/", *lines) + body)
        await wait_until(lambda: leftovers(tmp_path / "data"))
        connection.reset()
    await wait_until(lambda: not len(gateway.endpoints.inflight))
    await wait_until(lambda: not leftovers(tmp_path / "data"))
    assert stored(tmp_path) == {"one": b"1"}


async def test_a_form_that_stops_coming_times_out(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway(idle_timeout="0.3")
    async with raw_connection(gateway) as connection:
        body = part("f", b"1", "one") + part("f", b"2", "two")[:-8]
        await connection.send(request_head("POST", "/upload/", TYPE, "Content-Length: 9999") + body)
        answer = await connection.answer()
    assert paths_of(answer) == [(201, "/upload/one"), (408, None)]
    assert stored(tmp_path) == {"one": b"1"}


# -- fields


async def test_a_form_is_answered_with_a_redirect_where_its_field_may_lead(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(cors_origins=["https://app.example"])
    file = part("f", b"x", "a") + END
    for url in ("/thanks", "https://app.example/done?x=1"):
        answer = await post(gateway, "/upload/", part("redirect", url) + file)
        assert (answer.status, answer.headers["Location"]) == (303, url)
        assert paths_of(answer)[0][1] == "/upload/a"
    behind = part("f", b"x", "a") + part("success_action_redirect", "/thanks") + END
    assert (await post(gateway, "/upload/a", behind)).status == 303
    for url in ("https://evil.example/", "//evil.example/", "/\\evil.example"):
        answer = await post(gateway, "/upload/new/", part("redirect", url) + file)
        assert (answer.status, answer.json["error"]) == (400, "bad_request")
    assert stored(tmp_path) == {"a": b"x"}


async def test_fields_behind_the_last_file_are_told_to_be_unused(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    body = part("f", b"x", "a") + part("submit", "Send") + END
    for target in ("/upload/", "/upload/a"):
        answer = await post(gateway, target, body)
        assert (answer.json["unused_fields"], len(answer.json["uploads"])) == (["submit"], 1)


async def test_a_name_that_cannot_be_metadata_is_refused(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    answer = await post(gateway, "/upload/", part("first_name", "x") + part("f", b"x", "a") + END)
    assert (answer.status, "'first_name'" in answer.json["message"]) == (400, True)
    assert stored(tmp_path) == {}


# -- who may


async def test_a_form_needs_the_authorization_of_an_upload(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(**TOKENS)
    body = part("f", b"x", "a") + END
    answer = await post(gateway, "/upload/", body)
    assert (answer.status, answer.json["error"]) == (401, "unauthorized")
    injected = part("f", b"x", "a", BEARER) + END
    assert (await post(gateway, "/upload/", injected)).status == 401
    assert stored(tmp_path) == {}
    assert (await post(gateway, "/upload/", body, BEARER)).status == 201


async def test_headers_of_a_part_are_none_of_the_request(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    script = "await handle.terminate(code=418, output=json.dumps(event['headers']))"
    gateway = await start_gateway(plugins=write_handler(tmp_path / "plugins", script))
    lines = ("X-Remote-User: root", "X-Forwarded-For: 10.0.0.1", "If-None-Match: *", "X-Amz-Meta-A: b")
    answer = await post(gateway, "/upload/", part("f", b"x", "a", *lines) + END, "X-Mine: 1")
    assert answer.status == 418
    assert answer.json == {"Host": "localhost", "X-Mine": "1", "Transfer-Encoding": "chunked"}


async def test_a_page_of_another_origin_posts_nothing_unless_it_is_named(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(auth="none", cors_origins=["https://app.example"])
    body = part("f", b"x", "a") + END
    evil = ("Origin: https://evil.example", "Sec-Fetch-Site: cross-site")
    answer = await post(gateway, "/upload/", body, *evil)
    assert (answer.status, stored(tmp_path)) == (403, {})
    image = part("f", b"x", "a", "Content-Type: image/png") + END
    assert (await post(gateway, "/upload/", image, *evil)).status == 403
    named = ("Origin: https://app.example", "Sec-Fetch-Site: cross-site")
    answer = await post(gateway, "/upload/", body, *named)
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (201, "https://app.example")


# -- what is refused before any part is read


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (("Content-Type: multipart/form-data",), 400),
        (("Content-Type: multipart/form-data; boundary=" + "b" * 100,), 400),
        (("Content-Type: text/plain",), 415),
        (("Content-Type: application/x-www-form-urlencoded",), 415),
        ((TYPE, TYPE), 400),
        ((TYPE, "Content-Encoding: gzip"), 415),
        ((TYPE, "X-Amz-Copy-Source: /a"), 501),
        ((TYPE, "If-Unmodified-Since: Sun, 29 Nov 2026 00:00:00 GMT"), 412),
    ],
)
async def test_a_request_that_is_no_plain_form_is_refused(
    start_gateway: StartGateway, tmp_path: Path, lines: Sequence[str], status: int
) -> None:
    gateway = await start_gateway()
    body = part("f", b"x", "a") + END
    first, *more = lines
    answer = await post(gateway, "/upload/", body, *more, content_type=first)
    assert (answer.status, stored(tmp_path)) == (status, {})


async def test_a_put_of_a_form_names_the_post(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    (answer,) = [await curl("-X", "PUT", "-F", "f=x", f"{gateway.url}/upload/a")]
    assert (answer.status, "curl -F file=@FILE" in answer.body) == (415, True)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x" * 200_000,
        f"--{BOUNDARY}".encode() * 20_000,
        b"\r\n" * 200_000,
        f"--{BOUNDARY}\r\n".encode() + b"X: " + b"y" * 200_000,
        f"--{BOUNDARY}\r\n".encode() * 5_000,
        (part("f", b"x", "a") * 1)[:-2],
        part("f", b"x", "a")[:-2] + b"\r\n--" + BOUNDARY.encode(),
        part("_charset_", "utf-7") + part("f", b"x", "a") + END,
        part("f", part("g", b"x", "b") + END, "a", "Content-Type: multipart/mixed; boundary=q") + END,
        part("f", b"eA==", "a", "Content-Transfer-Encoding: base64") + END,
        END + part("f", b"x", "a"),
    ],
    ids=str,
)
async def test_a_hostile_form_ends_with_a_refusal_and_nothing_stored(
    start_gateway: StartGateway, tmp_path: Path, body: bytes
) -> None:
    gateway = await start_gateway()
    with captured_log() as lines:
        answer = await post(gateway, "/upload/", body)
    assert 400 <= answer.status < 500
    assert stored(tmp_path) == {}
    assert not [line for line in lines if "ERROR" in str(line)]


# -- all or nothing


@pytest.mark.parametrize(
    ("point", "left"),
    [
        ("after admit", []),
        ("mid body", ["one"]),
        ("after file sync", []),
        ("after journal commit", []),
        ("after rename", ["one"]),
        ("after form file", ["one"]),
    ],
)
async def test_a_kill_in_the_middle_of_a_form_leaves_each_file_whole_or_not_at_all(
    gateway_process: StartProcess, tmp_path: Path, point: str, left: list[str]
) -> None:
    dying = gateway_process(die_at=point)
    body = part("f", b"1", "one") + part("f", LARGE, "two") + END
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await post(dying, "/upload/", body)
    assert dying.wait() == -9
    gateway_process()
    assert [*stored(tmp_path)] == left
    assert leftovers(tmp_path / "data") == []


async def test_a_form_is_stored_in_a_bucket(start_gateway: StartGateway, s3_storage: str) -> None:
    gateway = await start_gateway(auth="none", downloads=True, storage=s3_storage, max_bytes="4000000")
    body = part("title", "Sunrise") + part("f", LARGE, "a.bin") + part("f", b"2", "b.txt")
    answer = await post(gateway, "/upload/docs/", body + part("f", b"x" * 4_000_001, "c") + END)
    assert paths_of(answer) == [(201, "/upload/docs/a.bin"), (201, "/upload/docs/b.txt"), (413, None)]
    assert (await get(gateway, "/upload/docs/a.bin")).body == LARGE
    assert (await get(gateway, "/upload/docs/c")).status == 404
    files = gateway.resources.scripts.files
    assert (await files.stat("/upload/docs/b.txt")).metadata == {"title": "Sunrise"}


async def test_a_form_that_breaks_off_behind_a_stored_file_gets_no_status(
    start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 500 would say that nothing is visible."""
    gateway, next_part = await start_gateway(), FormReader.next_part

    async def fail_later(reader: FormReader) -> FormPart | None:
        found = await next_part(reader)
        if found is not None and found.filename == "second":
            raise RuntimeError("a mistake of ours")
        return found

    monkeypatch.setattr(FormReader, "next_part", fail_later)
    body = part("f", "1", "first") + part("f", "2", "second") + END
    async with raw_connection(gateway) as connection:
        head = request_head("POST", "/upload/", TYPE, f"Content-Length: {len(body)}")
        await connection.send(head + body)
        assert await connection.closed() == b""
    assert files_below(tmp_path / "data/upload") == {"first": b"1"}
    assert (await post(gateway, "/upload/", part("f", "2", "second") + END)).status == 500
