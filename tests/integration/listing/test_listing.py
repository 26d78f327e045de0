"""Lists of folders over real sockets: whole, in pages, contained, and for those who may see them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import curl, get, put, write_plugin
from tests.support.hostile_paths import BAD_NAMES


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    upload = tmp_path / "data" / "upload"
    for name in ("a.txt", "b-1", "b/c/d.bin", "b0", "Grüße 😀 %41.csv"):
        (upload / name).parent.mkdir(parents=True, exist_ok=True)
        (upload / name).write_bytes(name.encode())
    return upload


def names(page: dict[str, Any]) -> list[str]:
    return [entry["name"] for entry in page["entries"]]


async def pages(gateway: Gateway, target: str) -> list[list[str]]:
    found, cursor = [], ""
    while True:
        join = "&" if "?" in target else "?"
        page = (await get(gateway, target + (f"{join}cursor={cursor}" if cursor else ""))).json
        found.append(names(page))
        cursor = page["next"]
        if cursor is None:
            return found


def joined(found: list[list[str]]) -> list[str]:
    return [name for page in found for name in page]


@pytest.mark.parametrize(("downloads", "status"), [(False, 400), (True, 404)])
async def test_off_is_off(
    start_gateway: StartGateway, stored: Path, downloads: bool, status: int
) -> None:
    gateway = await start_gateway(downloads=downloads)
    answer = await get(gateway, "/upload/")
    assert answer.status == status
    assert b"a.txt" not in answer.body


async def test_a_folder_is_listed_with_what_is_known_of_its_files(
    start_gateway: StartGateway, stored: Path
) -> None:
    gateway = await start_gateway(listing=True, downloads=True)
    await put(gateway, "/upload/typed", b"12345", "Content-Type: text/x-own")
    answer = await get(gateway, "/upload/")
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    page = answer.json
    assert page["path"] == "/upload/"
    assert page["next"] is None
    assert names(page) == ["Grüße 😀 %41.csv", "a.txt", "b-1", "b", "b0", "typed"]
    typed, folder = page["entries"][-1], page["entries"][3]
    sent = await get(gateway, "/upload/typed")
    assert (typed["kind"], typed["bytes"], typed["mime"]) == ("file", 5, "text/x-own")
    assert sent.headers["ETag"] == f'"{typed["etag"]}"'
    assert folder == {
        "name": "b",
        "kind": "folder",
        "path": "/upload/b/",
        "url": f"{gateway.url}/upload/b/",
    }
    for entry in page["entries"]:
        done = await curl("--globoff", entry["url"])
        assert done.status == 200, entry
    below = (await get(gateway, "/upload/b/")).json
    assert names(below) == ["c"]
    assert (await get(gateway, "/upload/Gr%C3%BC/")).status == 404
    assert (await get(gateway, "/upload/a.txt/")).status == 404


async def test_the_folder_of_all_uploads_is_empty_before_the_first_one(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(listing=True)
    page = (await get(gateway, "/upload/")).json
    assert page == {"path": "/upload/", "url": f"{gateway.url}/upload/", "entries": [], "next": None}
    assert (await get(gateway, "/upload/none/")).status == 404


@pytest.mark.parametrize("limit", [1, 2, 4, 1000])
async def test_pages_have_every_entry_once(
    start_gateway: StartGateway, stored: Path, limit: int
) -> None:
    gateway = await start_gateway(listing=True)
    found = await pages(gateway, f"/upload/?limit={limit}")
    assert joined(found) == ["Grüße 😀 %41.csv", "a.txt", "b-1", "b", "b0"]
    assert max(map(len, found)) <= limit
    deep = await pages(gateway, f"/upload/?recursive=true&limit={limit}")
    assert joined(deep) == ["Grüße 😀 %41.csv", "a.txt", "b-1", "b/c/d.bin", "b0"]


async def test_a_list_goes_on_while_files_come_and_go(start_gateway: StartGateway, stored: Path) -> None:
    gateway = await start_gateway(listing=True)
    first = (await get(gateway, "/upload/?limit=2")).json
    (stored / "a.txt").unlink()
    (stored / "0").write_bytes(b"")
    (stored / "b1").write_bytes(b"")
    rest = (await get(gateway, f"/upload/?cursor={first['next']}")).json
    assert names(rest) == ["b-1", "b", "b0", "b1"]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=1001", "limit=x", "limit=-1", "limit=1&limit=2", "limit=%C2%B2",
        "recursive=1", "cursor=%00", "cursor=AAAA", "cursor=Zg", "cursor=" + "Zi8" * 4000,
        "recursive=true&cursor=Zi91cGxvYWQvYQ", "recursive=true&cursor=ci8uLi9ldGM",
    ],
)  # fmt: skip
async def test_a_query_that_means_nothing_is_refused(
    start_gateway: StartGateway, stored: Path, query: str
) -> None:
    gateway = await start_gateway(listing=True)
    answer = await get(gateway, f"/upload/?{query}")
    assert (answer.status, answer.json["error"]) == (400, "bad_request"), answer.body


async def test_links_and_the_places_of_the_gateway_are_in_no_list(
    start_gateway: StartGateway, stored: Path, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"x")
    (stored / "link").symlink_to(tmp_path / "outside")
    (stored / "b" / "file link").symlink_to(tmp_path / "outside" / "secret")
    os.mkfifo(stored / "pipe")
    write_plugin(stored / "plugins", "name: c\nconfig: {}\n", "p.yaml")
    gateway = await start_gateway(listing=True, plugins=[str(stored / "plugins")])
    listed = joined(await pages(gateway, "/upload/") + await pages(gateway, "/upload/b/"))
    assert not {"link", "file link", "pipe", "plugins"} & {*listed}
    assert (await get(gateway, "/upload/link/")).status in {400, 404}
    assert (await get(gateway, "/upload/plugins/")).status == 403
    deep = joined(await pages(gateway, "/upload/?recursive=true"))
    assert not any("link" in name or "secret" in name or "plugins" in name for name in deep)


async def test_a_page_that_ends_at_a_name_that_is_not_utf8_leads_to_the_next(
    start_gateway: StartGateway, stored: Path
) -> None:
    for name in (b"a\xff", b"b\xfe.d", b"\xed\xa0\x80"):
        (stored / os.fsdecode(name)).write_bytes(b"")
    gateway = await start_gateway(listing=True)
    found = await pages(gateway, "/upload/?limit=1")
    assert joined(found) == ["Grüße 😀 %41.csv", "a.txt", "b-1", "b", "b0"]
    assert len(found) > 5
    assert len(joined(await pages(gateway, "/upload/?limit=1&search=."))) == 3


async def test_no_path_leads_out(start_gateway: StartGateway, stored: Path) -> None:
    gateway = await start_gateway(listing=True)
    for name in (*BAD_NAMES.split(" "), "../.gateway", "%2e%2e/.gateway"):
        answer = await get(gateway, f"/upload/{name}/")
        assert answer.status in {400, 404}, name
        assert b"journal" not in answer.body


async def test_a_token_is_asked_for(start_gateway: StartGateway, stored: Path) -> None:
    digest = hashlib.sha256(b"T").hexdigest()
    gateway = await start_gateway(listing=True, auth="token", tokens=[f"me:{digest}"])
    assert (await get(gateway, "/upload/")).status == 401
    assert (await get(gateway, "/upload/none/")).status == 401
    assert (await get(gateway, "/upload/", "X-Auth-Token: T")).status == 200


DECIDING = """
name: decide
event: APIGW.OnFileListing
timeout: 1
script: |
  import time
  async def decide(event, handle):
      name = event["path"].rstrip("/").rpartition("/")[2]
      if name == "secret":
          await handle.terminate(code=404, output="nothing here")
      if name == "fails":
          raise ValueError(name)
      if name == "blocks":
          time.sleep(30)
      if name == "out":
          event["path"] = "/upload/../.gateway/"
      if name == "file":
          event["path"] = "/upload/a.txt"
      if name == "other":
          event["path"] = "upload/b/"
      if event["recursive"] and name == "upload":
          await handle.terminate(code=403, output="one level only")
"""


async def test_handlers_decide_instead(
    start_gateway: StartGateway, stored: Path, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "p", DECIDING)
    gateway = await start_gateway(listing=True, auth="token", plugins=[str(folder)])
    assert (await get(gateway, "/upload/")).status == 200
    assert (await get(gateway, "/upload/?recursive=true")).body == b"one level only"
    refused = await get(gateway, "/upload/secret/")
    assert (refused.status, refused.body) == (404, b"nothing here")
    for name in ("fails", "blocks", "out", "file"):
        failed = await get(gateway, f"/upload/{name}/")
        assert (failed.status, failed.json["error"]) == (503, "hook_failed"), name
    assert names((await get(gateway, "/upload/other/")).json) == ["c"]


async def test_a_handler_that_keeps_the_authorization_does_not_replace_it(
    start_gateway: StartGateway, stored: Path, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "p", DECIDING + "authorization: keep\n")
    gateway = await start_gateway(listing=True, auth="token", plugins=[str(folder)])
    assert (await get(gateway, "/upload/")).status == 401


# -- HTML


async def test_a_browser_gets_a_page_in_which_no_name_is_markup(
    start_gateway: StartGateway, stored: Path
) -> None:
    gateway = await start_gateway(listing=True, downloads=True)
    evil = "<script>alert(1)</script>\" onclick='x' &amp; javascript:alert(2)"
    evil = evil.replace("/", "∕")
    (stored / evil).write_bytes(b"x")
    answer = await get(gateway, "/upload/", "Accept: text/html,application/xhtml+xml,*/*;q=0.8")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    text = answer.body.decode()
    assert "<script" not in text
    assert f'href="./{quote(evil)}"' in text.replace("&#x27;", "'").replace("&amp;", "&")
    assert "&lt;script&gt;" in text
    assert answer.headers["Vary"] == "Accept"
    both = await get(gateway, "/upload/", "Accept: text/html, application/json")
    assert both.headers["Content-Type"].startswith("application/json")


async def test_a_page_leads_to_the_next_and_to_the_folder_above(
    start_gateway: StartGateway, stored: Path
) -> None:
    gateway = await start_gateway(listing=True)
    page = (await get(gateway, "/upload/?limit=2", "Accept: text/html")).body.decode()
    assert 'rel="next"' in page
    assert "&amp;limit=2" in page
    assert "Folder above" not in page
    assert ">a.txt<" in page
    assert "a.txt</a>" not in page  # without --downloads there is nothing to fetch
    assert '<a href="../-/files?path=/upload/">Open in the console</a>' in page
    deep = (await get(gateway, "/upload/?limit=2&recursive=true", "Accept: text/html")).body.decode()
    assert "&amp;limit=2&amp;recursive=true" in deep
    below = (await get(gateway, "/upload/b/", "Accept: text/html")).body.decode()
    assert 'href="../../-/files?path=/upload/b/"' in below
    assert '<a href="../">Folder above</a>' in below
    empty = (await get(gateway, "/upload/b/?limit=1&cursor=Zi91cGxvYWQvYi96", "Accept: text/html")).body
    assert b"There is nothing more." in empty
    other = await start_gateway(listing=True, web="off", directory=str(stored.parent.parent / "other"))
    assert b"console" not in (await get(other, "/upload/", "Accept: text/html")).body


async def test_head_has_the_headers_and_no_body(start_gateway: StartGateway, stored: Path) -> None:
    gateway = await start_gateway(listing=True)
    done = await curl("--head", f"{gateway.url}/upload/")
    assert done.status == 200
    missing = await curl("--head", f"{gateway.url}/upload/none/")
    assert missing.status == 404


async def test_a_hundred_thousand_files_come_in_pages_in_little_memory(
    start_gateway: StartGateway, stored: Path
) -> None:
    many = stored / "many"
    many.mkdir()
    for number in range(100_000):
        os.close(os.open(many / f"{number:06d}", os.O_CREAT | os.O_WRONLY))
    os.utime(many, (1_700_000_000, 1_700_000_000))
    gateway = await start_gateway(listing=True)
    found = await pages(gateway, "/upload/many/")
    assert len(found) == 100
    assert sum(map(len, found)) == 100_000
    assert found[99][-1] == "099999"
    windows = gateway.resources.parts.storage._folder_pages._windows  # type: ignore[attr-defined]
    assert sum(len(window.names) for window in windows.values()) <= 20_000


async def test_listings_at_the_same_time_are_bounded(start_gateway: StartGateway, stored: Path) -> None:
    gateway = await start_gateway(listing=True)
    listings = gateway.endpoints.dispatcher.files.folders.listing.lists.listings
    held = [listings.acquire(f"client {number}") for number in range(listings.total)]
    answer = await get(gateway, "/upload/")
    assert (answer.status, answer.json["error"]) == (503, "overloaded")
    for lease in held:
        lease.close()
    assert (await get(gateway, "/upload/")).status == 200
    assert listings.used == 0
