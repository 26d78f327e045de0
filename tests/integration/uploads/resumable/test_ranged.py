"""PUT that goes on after a break: with curl, with the recipe of the documentation, and by hand."""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from gateway.auth.tokens import token_digest
from gateway.commit.local_open_partial import LocalOpenPartial
from gateway.endpoints.uploads.resumable import requests
from gateway.server.app import Gateway
from tests.conftest import StartGateway, StartProcess
from tests.support.cutting_relay import CuttingRelay, cutting_relay
from tests.support.harness import (
    TIMEOUT,
    curl,
    files_below,
    put,
    raw_connection,
    request_head,
    wait_until,
    write_plugin,
)
from tests.support.partials import StorePartials
from tests.support.resumable import Exchange, request, wait_begun

BODY = os.urandom(1 << 20)
SIZE = len(BODY)
KEYED = "/upload/x?resume=0123456789abcdef"

RECIPE = """\
f=big.bin s=$(wc -c < $f) u="http://host/upload/big.bin?resume=$(sha256sum $f | cut -c1-32)"
until o=$(curl -sI -o /dev/null -w '%header{upload-offset}' "$u"); tail -c +$((${o:-0}+1)) $f |
      curl -fsS -H "Content-Range: bytes ${o:-0}-$((s-1))/$s" -T - "$u" || [ $? -eq 22 ]; do sleep 2; done
"""  # noqa: E501 - word for word

DELAYING = """
name: delaying
event: APIGW.OnFileUploading
script: |
  import asyncio, pathlib

  async def delaying(event, handle):
      if event["headers"].get("X-Delay") == "yes":
          pathlib.Path("{started}").touch()
          while not pathlib.Path("{goes_on}").exists():
              await asyncio.sleep(0.01)
"""


def curl_has(form: str) -> bool:
    """Tell whether this curl still sends ranges by itself (`-C`), or can write headers out (7.84)."""
    printed = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout
    match = re.match(r"curl (\d+)\.(\d+)", printed)
    assert match is not None
    version = int(match[1]), int(match[2])
    return version < (8, 22) if form == "-C" else version >= (7, 84)


needs_range_option = pytest.mark.skipif(not curl_has("-C"), reason="this curl resumes no uploads")
needs_header_variable = pytest.mark.skipif(not curl_has("%header"), reason="this curl is too old")


def stored(tmp_path: Path) -> dict[str, bytes]:
    return files_below(tmp_path / "data/upload")


async def put_range(
    gateway: Gateway, text: str, body: bytes, *lines: str, target: str = "/upload/x"
) -> Exchange:
    return await request(gateway, "PUT", target, f"Content-Range: bytes {text}", *lines, body=body)


async def told(gateway: Gateway, target: str = "/upload/x", *lines: str) -> dict[str, str]:
    """Return what HEAD tells of a partial upload."""
    headers = (await request(gateway, "HEAD", target, *lines)).final.headers
    return {name: headers[name] for name in headers if name.startswith("Upload-")}


async def cut_put(
    gateway: Gateway, body: bytes, offset: int, *lines: str, target: str = "/upload/x"
) -> None:
    """Send the beginning of a body, end the connection, and wait until all of it is durable."""
    async with raw_connection(gateway) as connection:
        length = () if "Transfer-Encoding: chunked" in lines else (f"Content-Length: {SIZE}",)
        await connection.send(request_head("PUT", target, *length, *lines) + body)
        await wait_begun(gateway)

    async def kept() -> bool:
        return (await told(gateway, target)).get("Upload-Offset") == str(offset)

    await wait_until(kept)


# -- the recipe


@needs_header_variable
@pytest.mark.parametrize("cuts", [[], [300_000, 1_500_000, 400_000]])
async def test_the_recipe_goes_on_until_the_file_is_whole(
    start_gateway: StartGateway, tmp_path: Path, cuts: list[int]
) -> None:
    gateway = await start_gateway(hosts="host")
    content = os.urandom(4 << 20)
    (tmp_path / "big.bin").write_bytes(content)
    async with cutting_relay(cuts) as relay:
        relay.target = gateway.address
        assert await run_recipe(tmp_path, relay) == 0
        assert relay.cuts == []
    assert stored(tmp_path) == {"big.bin": content}


@needs_header_variable
async def test_the_recipe_goes_on_after_a_kill(gateway_process: StartProcess, tmp_path: Path) -> None:
    flags = ("--hosts", "host")
    gateway, content = gateway_process(*flags), os.urandom(1 << 20) * 48
    (tmp_path / "big.bin").write_bytes(content)
    partials = tmp_path / "data/.gateway/partials"
    async with cutting_relay() as relay:
        relay.target = gateway.address
        recipe = asyncio.create_task(run_recipe(tmp_path, relay))
        await wait_until(lambda: any(file.stat().st_size > 4 << 20 for file in partials.glob("*-0")))
        gateway.kill()
        relay.target = None
        relay.target = gateway_process(*flags).address
        assert await recipe == 0
    assert files_below(tmp_path / "data/upload") == {"big.bin": content}
    assert files_below(partials) == {}


@needs_header_variable
async def test_the_recipe_ends_where_it_is_refused(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway(hosts="host", max_bytes="1000")
    (tmp_path / "big.bin").write_bytes(BODY)
    async with cutting_relay() as relay:
        relay.target = gateway.address
        assert await run_recipe(tmp_path, relay) == 0
    assert stored(tmp_path) == {}


@needs_header_variable
async def test_the_recipe_ends_at_once_where_the_answer_was_lost(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(hosts="host")
    (tmp_path / "big.bin").write_bytes(BODY)
    async with cutting_relay() as relay:
        relay.target = gateway.address
        assert await run_recipe(tmp_path, relay) == 0
        (tmp_path / "data/upload/big.bin").write_bytes(b"a newer one")
        assert await run_recipe(tmp_path, relay) == 0  # as one whose first answer was lost
    assert stored(tmp_path) == {"big.bin": b"a newer one"}


async def run_recipe(folder: Path, relay: CuttingRelay) -> int:
    """Run the recipe word for word; `host` is the relay, and pauses are short."""
    host, port = relay.address
    (folder / ".curlrc").write_text(f'connect-to = "host:80:{host}:{port}"\n')
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin/sleep").write_text("#!/bin/sh\nexec /bin/sleep 0.05\n")
    (folder / "bin/sleep").chmod(0o755)
    environment = {"HOME": str(folder), "PATH": f"{folder}/bin:{os.environ['PATH']}"}
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", RECIPE, cwd=folder, env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(2 * TIMEOUT):
        return await process.wait()


# -- curl by itself


@needs_range_option
async def test_curl_goes_on_at_an_offset(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway()
    file = tmp_path / "f"
    file.write_bytes(BODY)
    async with cutting_relay([400_000]) as relay:
        relay.target = gateway.address
        first = await curl("-C", "-", "-T", str(file), f"{relay.url}/upload/x")
        assert first.code != 0
        offset = await wait_until(lambda: _late_offset(gateway))
        last = await curl("-C", offset, "-T", str(file), f"{relay.url}/upload/x")
    assert (last.code, last.status) == (0, 201)
    assert last.uploaded == SIZE - int(offset)
    assert stored(tmp_path) == {"x": BODY}


async def _late_offset(gateway: Gateway) -> str | None:
    """Return the offset once it is where the connection was cut."""
    offset = (await told(gateway)).get("Upload-Offset", "0")
    return offset if int(offset) > 300_000 else None


@needs_range_option
async def test_curl_that_would_go_on_with_nothing_uploads_the_whole_file(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    for size in (0, 5, SIZE):
        (tmp_path / "f").write_bytes(BODY[:size])
        answer = await curl("-C", "-", "-T", str(tmp_path / "f"), f"{gateway.url}/upload/{size}")
        assert answer.status == 201
        assert stored(tmp_path)[str(size)] == BODY[:size]


@needs_range_option
async def test_curl_that_does_not_know_the_length_is_refused(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    answer = await curl("-C", "4000", "-T", "-", f"{gateway.url}/upload/x", stdin=BODY)
    assert answer.status == 400
    assert "tail -c" in answer.body
    assert stored(tmp_path) == {}


# -- by hand


async def test_a_range_of_a_post_is_refused(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway()
    # curl -C 4000 --data-binary @f labels the first bytes of the file so.
    line = "Content-Range: bytes 4000-9999/10000"
    for lines in ((line,), (line, "Content-Type: application/x-www-form-urlencoded")):
        answer = await request(gateway, "POST", "/upload/x", *lines, body=BODY[:6000])
        assert answer.status in {405, 415}
    assert stored(tmp_path) == {}
    assert files_below(tmp_path / "data/.gateway/partials") == {}


async def test_an_upload_goes_on_where_it_broke(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway()
    await cut_put(gateway, BODY[:300_000], 300_000, f"Content-Range: bytes 0-{SIZE - 1}/{SIZE}")
    assert await told(gateway) == {
        "Upload-Offset": "300000", "Upload-Length": str(SIZE), "Upload-Complete": "?0",
    }  # fmt: skip
    last = await put_range(gateway, f"300000-{SIZE - 1}/{SIZE}", BODY[300_000:])
    assert (last.status, last.complete) == (201, "?1")
    assert last.final.json["bytes"] == SIZE
    assert stored(tmp_path) == {"x": BODY}
    assert await told(gateway) == {"Upload-Length": str(SIZE), "Upload-Complete": "?1"}


@pytest.fixture
def let_go(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Let requests keep their partial uploads open until this is set."""
    may_close, close = asyncio.Event(), LocalOpenPartial.close

    async def close_later(opened: LocalOpenPartial) -> None:
        await may_close.wait()
        await close(opened)

    monkeypatch.setattr(LocalOpenPartial, "close", close_later)
    return may_close


async def test_a_request_at_the_offset_that_was_told_waits_until_the_one_before_has_let_go(
    start_gateway: StartGateway,
    tmp_path: Path,
    let_go: asyncio.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateway, waits = await start_gateway(), asyncio.Event()
    monkeypatch.setattr(requests, "refuse_gone", lambda request: waits.set())
    await cut_put(gateway, BODY[:300_000], 300_000, f"Content-Range: bytes 0-{SIZE - 1}/{SIZE}")
    going_on = asyncio.create_task(put_range(gateway, f"300000-{SIZE - 1}/{SIZE}", BODY[300_000:]))
    async with asyncio.timeout(TIMEOUT):
        await waits.wait()
    let_go.set()
    assert (await going_on).status == 201
    assert stored(tmp_path) == {"x": BODY}


async def test_a_request_at_another_offset_is_refused_while_the_one_before_goes_on(
    start_gateway: StartGateway, tmp_path: Path, let_go: asyncio.Event
) -> None:
    gateway = await start_gateway()
    await cut_put(gateway, BODY[:300_000], 300_000, f"Content-Range: bytes 0-{SIZE - 1}/{SIZE}")
    refused = await put_range(gateway, f"200000-{SIZE - 1}/{SIZE}", BODY[200_000:])
    assert (refused.status, refused.final.headers["Upload-Offset"]) == (409, "300000")
    let_go.set()
    assert (await put_range(gateway, f"300000-{SIZE - 1}/{SIZE}", BODY[300_000:])).status == 201
    assert stored(tmp_path) == {"x": BODY}


async def test_what_a_kill_leaves_of_an_upload_before_its_key_was_given_is_removed_at_the_next_start(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    partials = tmp_path / "data/.gateway/partials"
    first = await asyncio.to_thread(gateway_process, die_at="after partial head")
    with pytest.raises((OSError, asyncio.IncompleteReadError)):
        await put(first, KEYED, BODY)
    assert first.wait() == -9
    assert files_below(partials)
    again = await asyncio.to_thread(gateway_process)
    await wait_until(lambda: not files_below(partials))
    assert (await put(again, KEYED, BODY)).status == 201
    assert stored(tmp_path) == {"x": BODY}


async def test_a_sweep_of_a_disk_that_breaks_removes_no_upload_that_has_a_key(
    start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await start_gateway()
    await cut_put(gateway, BODY[:300_000], 300_000, target=KEYED)
    partials = StorePartials(gateway)

    def broken_disk(*args: object, **named: object) -> str:
        raise OSError(errno.EIO, "the disk is broken")

    with monkeypatch.context() as broken:
        broken.setattr("os.readlink", broken_disk)
        assert await partials.expire(time.time(), monkeypatch) == []
        refused = await put_range(gateway, f"300000-{SIZE - 1}/{SIZE}", BODY[300_000:], target=KEYED)
        assert refused.status in {500, 503}
    assert await partials.expire(time.time(), monkeypatch) == []
    last = await put_range(gateway, f"300000-{SIZE - 1}/{SIZE}", BODY[300_000:], target=KEYED)
    assert last.status == 201
    assert stored(tmp_path) == {"x": BODY}


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("Content-Type: multipart/form-data; boundary=x", 415),
        ("Content-Encoding: aws-chunked", 415),
        ("Content-Transfer-Encoding: base64", 415),
        ("x-amz-copy-source: /b/k", 501),
    ],
)
async def test_the_rest_of_a_file_in_an_envelope_is_refused_and_the_upload_kept(
    start_gateway: StartGateway, tmp_path: Path, line: str, status: int
) -> None:
    gateway = await start_gateway()
    await cut_put(gateway, BODY[:300_000], 300_000, target=KEYED)
    rest = (f"300000-{SIZE - 1}/{SIZE}", BODY[300_000:])
    assert (await put_range(gateway, *rest, line, target=KEYED)).status == status
    assert (await told(gateway, KEYED))["Upload-Offset"] == "300000"
    assert (await put_range(gateway, *rest, target=KEYED)).status == 201
    assert stored(tmp_path) == {"x": BODY}


async def test_a_key_makes_any_put_one_that_goes_on(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway()
    await cut_put(gateway, BODY[:300_000], 300_000, target=KEYED)
    assert "Upload-Offset" not in await told(gateway)
    assert (await told(gateway, KEYED))["Upload-Length"] == str(SIZE)
    answer = await put_range(gateway, f"300000-{SIZE - 1}/{SIZE}", BODY[300_000:])
    assert answer.status == 409  # another upload: it has no key
    last = await put_range(gateway, f"300000-{SIZE - 1}/{SIZE}", BODY[300_000:], target=KEYED)
    assert last.status == 201
    assert stored(tmp_path) == {"x": BODY}


async def test_a_chunked_body_with_a_key_goes_on_when_its_length_is_known(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    chunk = b"%x\r\n%s\r\n" % (300_000, BODY[:300_000])
    await cut_put(gateway, chunk, 300_000, "Transfer-Encoding: chunked", target=KEYED)
    assert "Upload-Length" not in await told(gateway, KEYED)
    last = await put_range(gateway, f"300000-{SIZE - 1}/{SIZE}", BODY[300_000:], target=KEYED)
    assert last.status == 201
    assert stored(tmp_path) == {"x": BODY}


async def test_a_put_without_range_and_key_leaves_no_trace(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    async with raw_connection(gateway) as connection:
        await connection.send(
            request_head("PUT", "/upload/x", f"Content-Length: {SIZE}") + BODY[:300_000]
        )
        await wait_begun(gateway)
    await wait_until(lambda: not len(gateway.endpoints.inflight))
    assert await told(gateway) == {}
    assert files_below(tmp_path / "data/.gateway/partials") == {}
    assert stored(tmp_path) == {}


@pytest.mark.parametrize("offset", [1, 299_999, 300_001, SIZE - 1])
async def test_a_wrong_offset_is_told_the_true_one(start_gateway: StartGateway, offset: int) -> None:
    gateway = await start_gateway()
    await cut_put(gateway, BODY[:300_000], 300_000, f"Content-Range: bytes 0-{SIZE - 1}/{SIZE}")
    answer = await put_range(gateway, f"{offset}-{SIZE - 1}/{SIZE}", BODY[offset:])
    assert (answer.status, answer.offset, answer.complete) == (409, 300_000, "?0")
    assert answer.final.json["error"] == "mismatching_offset"


async def test_another_length_is_refused_and_the_upload_kept(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    await cut_put(gateway, BODY[:300_000], 300_000, f"Content-Range: bytes 0-{SIZE - 1}/{SIZE}")
    answer = await put_range(gateway, f"300000-{SIZE}/{SIZE + 1}", BODY[300_000:] + b"x")
    assert answer.status == 409
    assert (await told(gateway))["Upload-Offset"] == "300000"


async def test_a_range_from_the_first_byte_begins_anew(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    await cut_put(gateway, BODY[:300_000], 300_000, f"Content-Range: bytes 0-{SIZE - 1}/{SIZE}")
    answer = await put_range(gateway, "0-4/5", b"other")
    assert answer.status == 201
    assert stored(tmp_path) == {"x": b"other"}
    await wait_until(lambda: not files_below(tmp_path / "data/.gateway/partials"))


async def test_what_a_key_has_begun_is_not_begun_anew_by_a_request_that_is_sent_once_more(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(on_conflict="rename")
    once, piece = f"{KEYED}&begin=once", (f"0-99/{SIZE}", BODY[:100])
    assert (await put_range(gateway, *piece, target=once)).status == 204
    again = await put_range(gateway, *piece, target=once)
    assert (again.status, again.final.headers["Upload-Offset"], again.complete) == (409, "100", "?0")
    last = await put_range(gateway, f"100-{SIZE - 1}/{SIZE}", BODY[100:], target=KEYED)
    assert last.status == 201
    for text in (f"0-99/{SIZE}", f"0-{SIZE - 1}/{SIZE}"):
        again = await put_range(gateway, text, BODY[: 100 if "99/" in text else SIZE], target=once)
        assert (again.status, again.final.json["error"], again.complete) == (
            409, "mismatching_offset", "?1",
        )  # fmt: skip
    assert stored(tmp_path) == {"x": BODY}


@pytest.mark.parametrize("body", [b"", b"x"], ids=["empty", "a byte"])
async def test_a_whole_file_that_is_sent_once_more_is_stored_once(
    start_gateway: StartGateway, tmp_path: Path, body: bytes
) -> None:
    gateway = await start_gateway(on_conflict="rename")
    answers = [await request(gateway, "PUT", f"{KEYED}&begin=once", body=body) for _ in range(2)]
    assert [(answer.status, answer.complete) for answer in answers] == [(201, "?1"), (409, "?1")]
    assert stored(tmp_path) == {"x": body}


async def test_an_upload_of_which_no_byte_has_come_is_begun_anew_once(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", KEYED, f"Content-Length: {SIZE}"))
        await wait_until(lambda: files_below(tmp_path / "data/.gateway/partials"))
    await wait_until(lambda: len(gateway.endpoints.inflight) == 0)
    assert (await told(gateway, KEYED))["Upload-Offset"] == "0"
    answer = await put_range(gateway, f"0-{SIZE - 1}/{SIZE}", BODY, target=f"{KEYED}&begin=once")
    assert answer.status == 201
    assert stored(tmp_path) == {"x": BODY}


async def test_begin_with_another_value_is_refused_where_there_is_a_key(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    assert (await put(gateway, f"{KEYED}&begin=twice")).status == 400
    assert (await put(gateway, f"{KEYED}&begin=once&begin=once")).status == 400
    assert stored(tmp_path) == {}
    assert (await put(gateway, "/upload/y?begin=twice")).status == 201


async def test_a_delayed_older_request_does_not_begin_anew_what_a_newer_one_has_begun(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    started, goes_on = tmp_path / "started", tmp_path / "goes on"
    plugins = write_plugin(
        tmp_path / "plugins", DELAYING.format(started=str(started), goes_on=str(goes_on))
    )
    gateway = await start_gateway(plugins=plugins)
    whole = f"Content-Range: bytes 0-{SIZE - 1}/{SIZE}"
    async with raw_connection(gateway) as older:
        length = f"Content-Length: {SIZE}"
        await older.send(request_head("PUT", KEYED, length, whole, "X-Delay: yes") + BODY[:5])
        await wait_until(started.exists)
        await cut_put(gateway, BODY[:300_000], 300_000, whole, target=KEYED)
        goes_on.touch()
        answer = await older.answer()
    assert (answer.status, answer.headers["Retry-After"]) == (423, "1")
    assert (await told(gateway, KEYED))["Upload-Offset"] == "300000"
    rest = f"300000-{SIZE - 1}/{SIZE}"
    assert (await put_range(gateway, rest, BODY[300_000:], target=KEYED)).status == 201
    assert stored(tmp_path) == {"x": BODY}


async def test_a_range_never_changes_a_published_file(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    assert (await request(gateway, "PUT", "/upload/x", body=b"published")).status == 201
    for text, body in (("4-8/9", b"XXXXX"), ("9-10/11", b"XX")):
        answer = await put_range(gateway, text, body)
        assert answer.status == 409
        assert "Upload-Offset" not in answer.final.headers
    assert stored(tmp_path) == {"x": b"published"}


async def test_a_chunked_body_that_ends_before_the_file_is_refused_and_kept(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    async with raw_connection(gateway) as connection:
        lines = ("Content-Range: bytes 0-9/10", "Transfer-Encoding: chunked")
        await connection.send(request_head("PUT", "/upload/x", *lines) + b"4\r\n1234\r\n0\r\n\r\n")
        answer = await connection.answer()
    assert answer.status == 400
    assert answer.headers["Upload-Offset"] == "4"
    assert (await put_range(gateway, "4-9/10", b"567890")).status == 201
    assert stored(tmp_path) == {"x": b"1234567890"}


async def test_a_lost_answer_is_given_again_to_who_has_a_key(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    first = await put_range(gateway, "0-4/5", b"12345", target=KEYED)
    assert await told(gateway, KEYED) == {
        "Upload-Offset": "4", "Upload-Length": "5", "Upload-Complete": "?1",
    }  # fmt: skip
    again = await put_range(gateway, "4-4/5", b"5", target=KEYED)
    assert (again.status, again.complete) == (200, "?1")
    assert again.final.json["upload_id"] == first.final.json["upload_id"]
    assert (await put_range(gateway, "3-4/5", b"45", target=KEYED)).status == 409
    assert (await put_range(gateway, "4-5/6", b"56", target=KEYED)).status == 409
    assert stored(tmp_path) == {"x": b"12345"}


async def test_without_a_key_another_file_of_the_same_size_is_uploaded_whole(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    assert (await put_range(gateway, "0-4/5", b"12345")).status == 201
    assert (await put_range(gateway, "4-4/5", b"X")).status == 409
    assert (await put_range(gateway, "0-4/5", b"67890")).status == 200
    assert stored(tmp_path) == {"x": b"67890"}


async def test_uploads_of_two_principals_are_apart(start_gateway: StartGateway, tmp_path: Path) -> None:
    tokens = [f"{name}:{token_digest(name)}" for name in ("me", "you")]
    gateway = await start_gateway(auth="token", tokens=tokens)
    mine, yours = "Authorization: Bearer me", "Authorization: Bearer you"
    async with raw_connection(gateway) as connection:
        lines = (f"Content-Range: bytes 0-{SIZE - 1}/{SIZE}", f"Content-Length: {SIZE}", mine)
        await connection.send(request_head("PUT", "/upload/x", *lines) + BODY[:300_000])
        await wait_begun(gateway)

    async def kept() -> bool:
        return (await told(gateway, "/upload/x", mine)).get("Upload-Offset") == "300000"

    await wait_until(kept)
    assert await told(gateway, "/upload/x", yours) == {}
    assert await told(gateway) == {}
    assert (await put_range(gateway, f"300000-{SIZE - 1}/{SIZE}", BODY[300_000:], yours)).status == 409
    assert (await put_range(gateway, f"300000-{SIZE - 1}/{SIZE}", BODY[300_000:], mine)).status == 201
    assert stored(tmp_path) == {"x": BODY}


async def test_with_a_key_a_file_comes_in_pieces(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway()
    first = await put_range(gateway, f"0-299999/{SIZE}", BODY[:300_000], target=KEYED)
    assert (first.status, first.offset) == (204, 300_000)
    second = await put_range(gateway, f"300000-699999/{SIZE}", BODY[300_000:700_000], target=KEYED)
    assert (second.status, second.offset, second.final.body) == (204, 700_000, b"")
    again = await put_range(gateway, f"300000-699999/{SIZE}", BODY[300_000:700_000], target=KEYED)
    assert (again.status, again.offset) == (409, 700_000)
    assert stored(tmp_path) == {}
    last = await put_range(gateway, f"700000-{SIZE - 1}/{SIZE}", BODY[700_000:], target=KEYED)
    assert last.status == 201
    assert stored(tmp_path) == {"x": BODY}
    link = (await request(gateway, "HEAD", KEYED)).final.headers["Link"]
    assert link == f'</-/uploads/{last.final.json["upload_id"]}>; rel="status"'
    unkeyed = await put_range(gateway, f"0-9/{SIZE}", BODY[:10], target="/upload/y")
    assert (unkeyed.status, unkeyed.final.json["error"]) == (400, "bad_range")


async def test_a_delete_with_the_key_cancels_what_is_not_stored(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(deletes="on")
    await put_range(gateway, f"0-299999/{SIZE}", BODY[:300_000], target=KEYED)
    other = "/upload/x?resume=fedcba9876543210"
    assert (await request(gateway, "DELETE", other)).status == 404
    assert (await request(gateway, "DELETE", KEYED)).status == 204
    assert await told(gateway, KEYED) == {}
    assert files_below(tmp_path / "data/.gateway/partials") == {}
    whole = await put_range(gateway, f"0-{SIZE - 1}/{SIZE}", BODY, target=KEYED)
    assert whole.status == 201
    assert (await request(gateway, "DELETE", KEYED)).status == 404
    assert stored(tmp_path) == {"x": BODY}


async def test_without_resumable_uploads_a_delete_with_a_key_removes_no_file(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(deletes="on", resumable="off")
    assert (await request(gateway, "PUT", "/upload/x", body=b"x")).status == 201
    assert (await request(gateway, "DELETE", KEYED)).status == 404
    assert stored(tmp_path) == {"x": b"x"}


@pytest.mark.parametrize("key", ["short", "k" * 65, ""])
@pytest.mark.parametrize("method", ["PUT", "HEAD", "DELETE"])
async def test_a_key_of_another_length_is_refused(
    start_gateway: StartGateway, tmp_path: Path, key: str, method: str
) -> None:
    gateway = await start_gateway()
    answer = await request(
        gateway, method, f"/upload/x?resume={key}", body=b"x" if method == "PUT" else None
    )
    assert answer.status == 400
    assert stored(tmp_path) == {}


async def test_the_digest_of_the_file_is_checked_over_all_requests(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    digest = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
    line = f"Repr-Digest: sha-256=:{digest}:"
    await cut_put(gateway, BODY[:300_000], 300_000, f"Content-Range: bytes 0-{SIZE - 1}/{SIZE}", line)
    answer = await put_range(gateway, f"300000-{SIZE - 1}/{SIZE}", bytes(SIZE - 300_000))
    assert (answer.status, answer.final.json["error"]) == (400, "digest_mismatch")
    assert await told(gateway) == {}
    assert stored(tmp_path) == {}


# -- HEAD beside a file


async def test_a_head_of_a_file_tells_of_the_newer_one_that_comes(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(downloads="on")
    assert (await request(gateway, "PUT", "/upload/x", body=b"old")).status == 201
    before = await request(gateway, "HEAD", "/upload/x")
    assert not any(name.startswith("Upload-") for name in before.final.headers)
    await cut_put(gateway, BODY[:300_000], 300_000, f"Content-Range: bytes 0-{SIZE - 1}/{SIZE}")
    during = await request(gateway, "HEAD", "/upload/x")
    assert during.status == before.status == 200
    assert during.final.headers["Content-Length"] == "3"
    assert during.final.headers["ETag"] == before.final.headers["ETag"]
    assert during.offset == 300_000
    missing = await request(gateway, "HEAD", "/upload/y")
    assert missing.status == 404


async def test_a_head_without_downloads_is_not_found_where_there_is_an_upload(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway()
    assert (await request(gateway, "HEAD", "/upload/x")).status == 405
    await cut_put(gateway, BODY[:300_000], 300_000, f"Content-Range: bytes 0-{SIZE - 1}/{SIZE}")
    answer = await request(gateway, "HEAD", "/upload/x")
    assert (answer.status, answer.offset) == (404, 300_000)
    assert answer.final.headers["Cache-Control"] == "no-store"
    assert (await request(gateway, "HEAD", "/upload/y?resume=0123456789abcdef")).status == 404


async def test_without_resumable_uploads_a_range_is_refused(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(resumable="off")
    assert (await put_range(gateway, "4-9/10", b"567890")).status == 400
    assert (await put_range(gateway, "0-4/5", b"12345")).status == 201
    assert (await request(gateway, "PUT", "/upload/y?resume=x", body=b"y")).status == 201
    assert stored(tmp_path) == {"x": b"12345", "y": b"y"}
