"""Searches over real sockets: in pieces, for those who may list, and of nothing that no list has."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest

from gateway.endpoints.listing import search as listing_search
from tests.conftest import StartGateway
from tests.support.cli import run_verb
from tests.support.harness import get, write_plugin

NAMES = ("Report.pdf", "a/b/report 2.txt", "a/reports/x", "b/y", "Grüße/z")


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    upload = tmp_path / "data" / "upload"
    for name in NAMES:
        (upload / name).parent.mkdir(parents=True, exist_ok=True)
        (upload / name).write_bytes(b"x")
    return upload


def names(page: dict[str, Any]) -> list[str]:
    return [entry["name"] for entry in page["entries"]]


async def test_a_search_comes_in_pieces_with_urls_that_work(
    start_gateway: StartGateway, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await start_gateway(listing=True, downloads=True)
    page = (await get(gateway, "/upload/?search=REPORT")).json
    assert names(page) == ["Report.pdf", "a/b/report 2.txt", "a/reports"]
    assert (page["next"], page["searched"], page["url"]) == (None, 5, f"{gateway.url}/upload/")
    file, folder = page["entries"][1:]
    assert (await get(gateway, file["url"].removeprefix(gateway.url))).status == 200
    assert names((await get(gateway, folder["url"].removeprefix(gateway.url))).json) == ["x"]
    monkeypatch.setattr(listing_search, "MAX_SEARCHED_FILES", 2)
    pieces, more = [], ""
    for _ in range(3):
        page = (await get(gateway, f"/upload/?search=report{more}")).json
        pieces.append(names(page))
        more = f"&cursor={page['next']}"
    assert page["next"] is None
    assert pieces == [["Report.pdf"], ["a/b/report 2.txt", "a/reports"], []]
    assert (await get(gateway, "/upload/?search=gr%C3%BCSSE")).json["entries"][0]["name"] == "Grüße"
    html = await get(gateway, "/upload/?search=report&limit=1", "Accept: text/html")
    assert "limit=1&amp;search=report" in html.body.decode()


async def test_who_may_not_list_may_not_search(
    start_gateway: StartGateway, stored: Path, tmp_path: Path
) -> None:
    digest = hashlib.sha256(b"T").hexdigest()
    one_level = """
name: oneLevel
event: APIGW.OnFileListing
authorization: keep
script: |
  async def oneLevel(event, handle):
      if event["recursive"]:
          await handle.terminate(code=403, output="one level only")
"""
    folder = write_plugin(tmp_path / "p", one_level)
    gateway = await start_gateway(
        listing=True, auth="token", tokens=[f"me:{digest}"], plugins=[str(folder)]
    )
    assert (await get(gateway, "/upload/?search=x")).status == 401
    assert (await get(gateway, "/-/files?path=/upload/&search=x")).status == 401
    assert (await get(gateway, "/upload/", "X-Auth-Token: T")).status == 200
    assert (await get(gateway, "/upload/?search=x", "X-Auth-Token: T")).body == b"one level only"
    page = (await get(gateway, "/-/files?path=/upload/&search=report", "X-Auth-Token: T")).json
    assert names(page) == ["Report.pdf", "a/b/report 2.txt", "a/reports"]


async def test_nothing_is_found_that_no_list_has(
    start_gateway: StartGateway, stored: Path, tmp_path: Path
) -> None:
    write_plugin(stored / "plugins", "name: c\nconfig: {}\n", "p.yaml")
    (tmp_path / "secret").write_bytes(b"x")
    (stored / "secret link").symlink_to(tmp_path / "secret")
    (stored / "new\nline").write_bytes(b"x")
    gateway = await start_gateway(listing=True, plugins=[str(stored / "plugins")])
    for text in ("journal", "p.yaml", "secret", "plugins", "line", "%2f"):
        assert (await get(gateway, f"/upload/?search={text}")).json["entries"] == [], text


async def test_searches_at_the_same_time_are_bounded_and_shared(
    start_gateway: StartGateway, stored: Path
) -> None:
    gateway = await start_gateway(listing=True)
    searches = gateway.endpoints.dispatcher.files.folders.listing.lists.searches
    held = [searches.acquire("another client") for _ in range(searches.total // 2)]
    assert not searches.would_fit("another client")
    assert (await get(gateway, "/upload/?search=x")).status == 200
    held += [searches.acquire(f"client {number}") for number in range(searches.total - len(held))]
    answer = await get(gateway, "/upload/?search=x")
    assert (answer.status, answer.json["error"]) == (503, "overloaded")
    assert (await get(gateway, "/upload/")).status == 200
    for lease in held:
        lease.close()
    assert searches.used == 0


async def test_the_command_line_searches_with_and_without_a_server(
    start_gateway: StartGateway, stored: Path
) -> None:
    async def run(*words: str) -> tuple[int, str]:
        code, printed, _ = await asyncio.to_thread(run_verb, stored.parent, "files", *words)
        return code, printed

    expected = ["Report.pdf", "a/b/report 2.txt", "a/reports/"]
    for served in (False, True):
        if served:
            await start_gateway()
        code, printed = await run("list", "--search", "report")
        assert (code, [line[33:].strip() for line in printed.splitlines()]) == (0, expected)
        assert "has no such name" in (await run("list", "--search", "nothing"))[1]
        assert (await run("show", "/upload/b/y", "--search", "x"))[0] == 2
