"""Uploads are paused, gone on with after a reload, cancelled, and refused in words."""

from __future__ import annotations

import json
import os
import re
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.async_api import Dialog, Request, Route, expect

from tests.conftest import StartGateway
from tests.integration.console.upload.visits import (
    PIECE,
    UploadVisit,
    visiting_uploads,
    write_files,
)
from tests.support.harness import files_below, get, put, wait_until, write_plugin

pytestmark = pytest.mark.slow

SLOW = 2_000_000
ABSENT = (
    "error: Failed to load resource: the server responded with a status of 404 (Not Found) /upload/{}"
)
COUNT_RECORDS = """new Promise((resolve) => {
    const opening = indexedDB.open("upload-gateway");
    opening.onsuccess = () => {
        const counting = opening.result.transaction("unfinished").objectStore("unfinished").count();
        counting.onsuccess = () => resolve(counting.result);
    };
})"""
REFUSING = """\
name: refusing
event: APIGW.OnFileUploading
script: |
  async def refusing(event, handle):
      if event["path"].endswith(".exe"):
          await handle.terminate(415, {"message": "programs are not <b>taken</b> here"})
"""


def ranges_of(requests: list[Request]) -> list[int]:
    """Return the first byte of each piece that was sent, in order."""
    texts = [request.headers.get("content-range", "") for request in requests]
    return [int(match[1]) for text in texts if (match := re.match(r"bytes (\d+)-", text))]


def is_put(request: Request) -> bool:
    return request.method == "PUT"


async def wait_sent(visit: UploadVisit, name: str, percent: int) -> None:
    """Wait until so much of a file is sent."""
    script = f"document.querySelector('[aria-label=\"Progress of {name}\"]')?.value ?? 0"

    async def is_sent() -> bool:
        return bool(await visit.page.evaluate(script) > percent / 100)

    try:
        await wait_until(is_sent)
    except TimeoutError:
        raise AssertionError(await visit("main").inner_text(), visit.said) from None


async def keeps_no_record(visit: UploadVisit) -> bool:
    """Tell whether the browser remembers no upload that is to go on, or to be removed."""
    return bool(await visit.page.evaluate(COUNT_RECORDS) == 0)


async def test_a_large_file_goes_in_pieces_and_is_paused_and_gone_on_with(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    body = os.urandom(1 << 20) * 40
    (tmp_path / "big.bin").write_bytes(body)
    async with visiting_uploads() as visit:
        puts = visit.requests(is_put)
        await visit.open(gateway.url)
        await visit.slow(SLOW)
        await visit.add(tmp_path / "big.bin")
        await wait_sent(visit, "big.bin", 10)
        await expect(visit.page).to_have_title(re.compile(r"\d+% · Upload"))
        await visit.press("Pause big.bin")
        await expect(visit.row("big.bin")).to_contain_text("Paused at")
        await expect(visit.page.get_by_role("button", name="Go on with big.bin")).to_be_focused()

        async def bytes_kept() -> int:
            rows = (await get(gateway, "/-/uploads?state=waiting")).json["uploads"]
            return sum(row["bytes"] for row in rows)

        kept = await wait_until(bytes_kept)
        assert files_below(tmp_path / "data/upload") == {}
        await visit.slow(0)
        await visit.page.keyboard.press("Enter")
        await visit.headline("1 file is stored")
        begins = ranges_of(puts)
        assert begins[0] == 0
        assert begins[1] >= kept > 1_000_000
        assert {end - begin for begin, end in pairwise(begins[1:])} == {PIECE}
        await expect(visit.page).to_have_title("Upload · Upload Gateway")
    assert files_below(tmp_path / "data/upload") == {"big.bin": body}


async def test_after_a_reload_the_same_files_go_on_where_they_were(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    files = write_files(tmp_path / "mine", [12_000_000, 9_000_000, 100])
    async with visiting_uploads() as visit:
        asked: list[str] = []

        async def leave(dialog: Dialog) -> None:
            asked.append(dialog.type)
            await dialog.accept()

        visit.page.on("dialog", leave)
        await visit.open(gateway.url)
        await visit("#to-folder").fill("a/b")
        await visit.slow(SLOW // 2)
        await visit.add(*(tmp_path / "mine" / name for name in files))
        await wait_sent(visit, "file-000.bin", 15)
        await expect(visit.row("file-002.bin")).to_have_attribute("data-state", "stored")
        await visit.page.reload()
        assert asked == ["beforeunload"]
        await expect(visit(".call h2").last).to_have_text(
            re.compile("uploads? of an earlier visit (is|are) not whole")
        )
        await expect(visit.row("file-000.bin")).to_contain_text(re.compile(r"\d+% of 12 MB so far"))
        await expect(visit("#to-folder")).to_have_value("")
        puts = visit.requests(is_put)
        await visit.slow(0)
        await visit.add(*(tmp_path / "mine" / name for name in ("file-000.bin", "file-001.bin")))
        await expect(visit(".call").last).to_be_hidden()
        await visit.headline("All 2 files are stored")
        begins = ranges_of(puts)
        assert len(begins) == 2
        assert min(begins) > 0
        secrets = await visit.page.evaluate("JSON.stringify([localStorage, sessionStorage])")
        assert "token" not in secrets.lower()
    assert files_below(tmp_path / "data/upload") == {f"a/b/{name}": body for name, body in files.items()}
    assert files_below(tmp_path / "data/.gateway/partials") == {}


async def test_a_cancelled_upload_leaves_no_trace(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway()
    write_files(tmp_path / "mine", [24_000_000, 18_000_000])
    partials = tmp_path / "data/.gateway/partials"
    async with visiting_uploads() as visit:
        await visit.open(gateway.url)
        await visit.slow(SLOW)
        await visit.add(*(tmp_path / "mine").iterdir())
        await wait_sent(visit, "file-000.bin", 10)
        await wait_sent(visit, "file-001.bin", 10)
        assert files_below(partials)
        await visit.press("Cancel file-000.bin")
        await expect(visit.row("file-000.bin")).to_have_count(0)
        await expect(visit.page.get_by_role("button", name="Pause file-001.bin")).to_be_focused()
        await visit.press("Pause file-001.bin")
        await visit.press("Cancel file-001.bin")
        await expect(visit("#add-files")).to_be_focused()
        await expect(visit(".summary")).to_be_hidden()
        await wait_until(lambda: not files_below(partials))
        await visit.page.reload()
        await expect(visit("#add-files")).to_be_visible()
        await wait_until(lambda: keeps_no_record(visit))
    assert files_below(tmp_path / "data/upload") == {}
    assert files_below(partials) == {}
    assert set(visit.said) <= {ABSENT.format(name) for name in ("file-000.bin", "file-001.bin")}


async def test_what_a_browser_sends_again_behind_a_cancelled_upload_is_removed_too(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    write_files(tmp_path / "mine", [24_000_000])
    partials = tmp_path / "data/.gateway/partials"
    removals = 0
    async with visiting_uploads() as visit:

        async def begin_again_once(route: Route) -> None:
            nonlocal removals
            if route.request.method == "DELETE":
                removals += 1
                answer = await route.fetch()
                if removals == 1:
                    piece = "Content-Range: bytes 0-9/24000000"
                    address = route.request.url.removeprefix(gateway.url)
                    assert (await put(gateway, address, bytes(10), piece)).status == 204
                    assert files_below(partials)
                await route.fulfill(response=answer)
            else:
                await route.continue_()

        await visit.page.route("**/upload/**", begin_again_once)
        await visit.open(gateway.url)
        await visit.slow(SLOW)
        await visit.add(tmp_path / "mine/file-000.bin")
        await wait_sent(visit, "file-000.bin", 5)
        await visit.press("Cancel file-000.bin")
        await wait_until(lambda: keeps_no_record(visit))
    assert files_below(partials) == {}
    assert removals == 3


async def test_what_is_refused_is_told_in_words_while_others_go_on(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    plugins = str(write_plugin(tmp_path / "plugins", REFUSING))
    gateway = await start_gateway(plugins=[plugins], on_conflict="reject", max_bytes="2000")
    assert (await put(gateway, "/upload/taken.txt", b"first")).status == 201
    async with visiting_uploads() as visit:
        await visit.open(gateway.url)
        await expect(visit(".limits")).to_have_text("Up to 2 kB each.")
        puts = visit.requests(is_put)
        files = {
            "a.txt": b"a",
            "run.exe": b"x",
            "taken.txt": b"second",
            "large.bin": bytes(2001),
            "b.txt": b"",
        }
        await visit.make(tmp_path / "mine", files)
        await visit.headline("3 files were not stored")
        await expect(visit(".facts-line")).to_have_text("2 files are stored")
        await expect(visit.row("run.exe")).to_contain_text("Programs are not <b>taken</b> here.")
        await expect(visit.row("taken.txt")).to_contain_text("exists")
        await expect(visit.row("large.bin")).to_contain_text(
            "It has 2,001 bytes, and 2,000 is the most."
        )
        assert not any("large.bin" in request.url for request in puts)
        sent = len(puts)
        assert sent == 4  # what is refused is not sent again by itself
        (tmp_path / "data/upload/taken.txt").unlink()
        await visit.press("Try taken.txt again")
        await expect(visit(".facts-line")).to_have_text("3 files are stored")
        assert len(puts) == sent + 1
        await visit.press("Take run.exe out of the list")
        await visit.press("Take large.bin out of the list")
        await visit.headline("All 3 files are stored")
        await visit.press("Clear the list")
        await expect(visit("#add-files")).to_be_focused()
    assert files_below(tmp_path / "data/upload") == {"a.txt": b"a", "taken.txt": b"second", "b.txt": b""}


async def test_a_gateway_that_is_busy_is_asked_again_when_it_says_so(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    answers = [
        (503, "overloaded", "1"),
        (429, "too_many_requests", "1"),
        (429, "too_many_requests", "7200"),
    ]

    async with visiting_uploads() as visit:
        await visit.open(gateway.url)

        async def answer(route: Route, request: Request) -> None:
            if request.method != "PUT" or not answers:
                await route.continue_()
                return
            status, code, wait = answers.pop(0)
            body = json.dumps({"error": code, "message": f"{code}, please wait"})
            await route.fulfill(status=status, headers={"Retry-After": wait}, body=body)

        await visit.page.route("**/upload/**", answer)
        await visit.make(tmp_path / "mine", {"a.txt": b"abc"})
        await expect(visit.row("a.txt")).to_contain_text("Overloaded, please wait.")
        await expect(visit.row("a.txt")).to_contain_text("Try again in 2 h")
        await visit.press("Try a.txt again")
        await visit.headline("1 file is stored")
    assert files_below(tmp_path / "data/upload") == {"a.txt": b"abc"}


async def test_a_lost_answer_stores_no_file_twice(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway(on_conflict="rename")
    lost: list[str] = []
    async with visiting_uploads() as visit:
        await visit.open(gateway.url)

        async def lose(route: Route, request: Request) -> None:
            if request.method != "PUT" or request.url in lost:
                await route.continue_()
                return
            lost.append(request.url)
            assert (await route.fetch()).status == 201  # it is stored, and the page is not told
            await route.abort("connectionreset")

        await visit.page.route("**/upload/**", lose)
        await visit.make(tmp_path / "mine", {"a.txt": b"abc", "empty.txt": b""})
        await visit.headline("All 2 files are stored")
        await expect(visit.row("a.txt")).to_contain_text("Stored as /upload/a.txt")
        assert len(lost) == 2
    assert files_below(tmp_path / "data/upload") == {"a.txt": b"abc", "empty.txt": b""}


async def test_what_has_expired_begins_anew_with_a_note(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    body = os.urandom(5_000_000)
    async with visiting_uploads() as visit:
        puts = visit.requests(is_put)
        await visit.open(gateway.url)
        await visit.slow(1_000_000)
        await visit.make(tmp_path / "mine", {"old.bin": body})
        await wait_sent(visit, "old.bin", 10)
        await visit.press("Pause old.bin")
        other = await visit.page.context.new_page()
        await other.goto(gateway.url)
        await expect(other.locator("#add-files")).to_be_visible()
        # It does not take over what is of a page that is open.
        await expect(other.locator(".upload-page[aria-busy]")).to_have_count(0)
        await expect(other.locator(".call:not([hidden])")).to_have_count(0)
        await other.close()
        assert (await visit.page.request.delete(puts[0].url)).status == 204
        await visit.page.reload()
        await expect(visit.row("old.bin")).to_contain_text("Nothing of it is kept")
        await visit.add(tmp_path / "mine/old.bin")
        await visit.headline("1 file is stored")
    assert files_below(tmp_path / "data/upload") == {"old.bin": body}


async def test_without_resumable_uploads_each_file_is_one_request(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(resumable="off")
    async with visiting_uploads() as visit:
        requests = visit.requests(lambda request: "/upload/" in request.url)
        await visit.open(gateway.url)
        await visit.make(tmp_path / "mine", {"a.txt": b"abc", "b.txt": b"b"})
        await visit.headline("All 2 files are stored")
        assert sorted(request.url for request in requests) == [
            f"{gateway.url}/upload/{name}.txt" for name in "ab"
        ]
    assert files_below(tmp_path / "data/upload") == {"a.txt": b"abc", "b.txt": b"b"}
