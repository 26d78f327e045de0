"""What every storage promises: the directory's and the bucket's, on two servers that differ."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.endpoints.listing import search as listing_search
from gateway.endpoints.listing.search import search
from gateway.errors import Refusal, Superseded
from gateway.settings.values import Bucket
from gateway.storage.local.storage import LocalStorage
from gateway.storage.local.tree import DirectoryTree
from gateway.storage.protocols import FolderStorage, Stat
from gateway.storage.s3.client import Clients
from gateway.storage.s3.storage import S3Storage
from tests.support.s3.servers import S3Server

ODD = "/upload/hé llo+1%41 &=?#/ü~'(x)[y].txt"


@dataclass
class Stocked:
    """A storage, and how something comes onto it without the gateway."""

    storage: FolderStorage
    put: Callable[[str, bytes], Awaitable[None]]
    order: Callable[[str], Any] = str.encode

    async def paths(self, prefix: str, after: str | None = None) -> list[str]:
        return [stat.path async for stat in self.storage.list(prefix, after=after)]

    async def read(self, path: str, **part: Any) -> bytes:
        async with self.storage.open(path, **part) as opened:
            return b"".join([bytes(piece) async for piece in opened])


@pytest.fixture(
    params=[
        "file",
        pytest.param("s3", marks=pytest.mark.slow),
        pytest.param("rclone", marks=pytest.mark.slow),
    ]
)
async def stocked(
    request: pytest.FixtureRequest, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stocked]:
    if request.param == "file":
        (tmp_path / "root").mkdir()
        tree = DirectoryTree(tmp_path / "root", [])

        async def store(path: str, content: bytes) -> None:
            file = tmp_path / "root" / path[1:]
            file.parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "new").write_bytes(content)
            (tmp_path / "new").rename(file)

        yield Stocked(LocalStorage(tree), store)
        tree.close()
        return
    server: S3Server = request.getfixturevalue(request.param)
    await server.make(bucket)
    server.set_environment(monkeypatch)
    clients, place = Clients(), Bucket(bucket, "a prefix")

    async def put(path: str, content: bytes) -> None:
        client = await clients.client()
        await client.put_object(Bucket=bucket, Key=place.key(path), Body=content)

    # SeaweedFS lists folder by folder, unlike S3: `a/b` comes before `a-b`.
    order = _by_folders if request.param == "s3" else str.encode
    yield Stocked(S3Storage(place, clients), put, order)
    await clients.close()


def _by_folders(path: str) -> list[bytes]:
    return [segment.encode() for segment in path.split("/")]


async def test_a_file_is_described_and_read_whole(stocked: Stocked) -> None:
    content = bytes(range(256)) * 4096 * 3
    await stocked.put("/upload/a.bin", content)
    stat = await stocked.storage.stat("/upload/a.bin")
    assert (stat.path, stat.bytes) == ("/upload/a.bin", len(content))
    assert stat.etag
    assert '"' not in stat.etag
    assert stat.modified > 1_700_000_000
    found = await stocked.read("/upload/a.bin", etag=stat.etag)
    assert hashlib.sha256(found).digest() == hashlib.sha256(content).digest()


@pytest.mark.parametrize(
    ("start", "length"), [(0, 1), (0, 100), (10, 5), (99, 1), (50, None), (0, 0), (40, 0), (100, 0)]
)
async def test_a_part_is_that_part_with_the_size_of_the_whole(
    stocked: Stocked, start: int, length: int | None
) -> None:
    content = bytes(range(100))
    await stocked.put("/a", content)
    end = 100 if length is None else start + length
    async with stocked.storage.open("/a", start=start, length=length) as opened:
        assert b"".join([bytes(piece) async for piece in opened]) == content[start:end]
        assert opened.stat.bytes == 100
        assert opened.stat.etag == (await stocked.storage.stat("/a")).etag


async def test_an_empty_file_is_read_as_nothing(stocked: Stocked) -> None:
    await stocked.put("/empty", b"")
    assert await stocked.read("/empty") == b""
    assert (await stocked.storage.stat("/empty")).bytes == 0


async def test_a_file_that_has_been_replaced_is_superseded(stocked: Stocked) -> None:
    await stocked.put("/a", b"old")
    old = (await stocked.storage.stat("/a")).etag
    await stocked.put("/a", b"newer")
    for part in ({}, {"start": 1, "length": 1}, {"length": 0}):
        with pytest.raises(Superseded):
            await stocked.read("/a", etag=old, **part)
    with pytest.raises(Superseded):
        await stocked.storage.delete("/a", old)
    assert await stocked.read("/a") == b"newer"


async def test_a_missing_file_is_not_found(stocked: Stocked) -> None:
    await stocked.put("/folder/file", b"x")
    for path in ("/nothing", "/folder", "/folder/file/below", "/fold"):
        for ask in (stocked.storage.stat, stocked.read, stocked.storage.delete):
            with pytest.raises(Refusal) as refused:
                await ask(path)
            assert refused.value.code == "not_found", (path, ask)


@pytest.mark.parametrize("path", ["/../etc/passwd", "/a/../b", "/a//b", "/a\x00", "/a\\b", "/./a"])
async def test_a_path_that_leads_elsewhere_is_refused(stocked: Stocked, path: str) -> None:
    for ask in (stocked.storage.stat, stocked.read, stocked.storage.delete):
        with pytest.raises(Refusal) as refused:
            await ask(path)
        assert refused.value.code == "bad_path"


async def test_odd_names_are_kept_to_the_letter(stocked: Stocked) -> None:
    await stocked.put(ODD, b"odd")
    await stocked.put(ODD.replace("%41", "A"), b"another")
    assert await stocked.read(ODD) == b"odd"
    assert (await stocked.storage.stat(ODD)).path == ODD
    assert sorted(await stocked.paths("/upload/hé")) == sorted([ODD, ODD.replace("%41", "A")])
    await stocked.storage.delete(ODD)
    assert await stocked.paths("/") == [ODD.replace("%41", "A")]


async def test_a_removed_file_is_not_found(stocked: Stocked) -> None:
    await stocked.put("/a", b"x")
    await stocked.storage.delete("/a", (await stocked.storage.stat("/a")).etag)
    with pytest.raises(Refusal):
        await stocked.storage.stat("/a")
    assert await stocked.paths("/") == []


async def test_a_list_is_in_the_order_of_keys_below_a_prefix_that_is_text(stocked: Stocked) -> None:
    names = ["/a-b/x", "/a.txt", "/a/b/c", "/a/b0", "/ab", "/b/1", "/b/2", "/ä"]
    for name in reversed(names):
        await stocked.put(name, b"x")
    expected = sorted(names, key=stocked.order)
    assert await stocked.paths("/") == expected
    assert await stocked.paths("/a") == [name for name in expected if name.startswith("/a")]
    assert await stocked.paths("/a/") == ["/a/b/c", "/a/b0"]
    assert await stocked.paths("/zzz") == []
    for position, name in enumerate(expected):
        assert await stocked.paths("/", after=name) == expected[position + 1 :]


async def test_a_list_describes_each_file_as_stat_does(stocked: Stocked) -> None:
    await stocked.put("/list/a", b"four")
    (found,) = [stat async for stat in stocked.storage.list("/list")]
    stat = await stocked.storage.stat("/list/a")
    assert (found.path, found.bytes, found.etag) == ("/list/a", 4, stat.etag)
    assert abs(found.modified - stat.modified) < 2


# -- folders


async def folder_pages(stocked: Stocked, folder: str, limit: int = 1000) -> list[list[Stat | str]]:
    pages, after = [], None
    while True:
        page = await stocked.storage.list_folder(folder, after=after, limit=limit)
        assert len(page.entries) <= limit
        pages.append(list(page.entries))
        after = page.next
        if after is None:
            return pages


def names(entries: list[Stat | str]) -> list[str]:
    return [entry if isinstance(entry, str) else entry.path for entry in entries]


async def test_a_folder_has_its_files_and_folders_and_nothing_of_what_is_below(stocked: Stocked) -> None:
    for path in ("/a/b/c", "/a/b-1", "/a/b0", "/a/b/d/e", "/ab", "/a/z", ODD.replace("/upload", "/a")):
        await stocked.put(path, b"12")
    (entries,) = await folder_pages(stocked, "/a/")
    assert names(entries) == ["/a/b-1", "/a/b/", "/a/b0", "/a/hé llo+1%41 &=?#/", "/a/z"]
    described = {entry.path: entry for entry in entries if isinstance(entry, Stat)}
    assert described["/a/z"].etag == (await stocked.storage.stat("/a/z")).etag
    assert described["/a/z"].bytes == 2
    assert names((await folder_pages(stocked, "/"))[0]) == ["/a/", "/ab"]


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_pages_of_a_folder_have_every_entry_once(stocked: Stocked, limit: int) -> None:
    paths = [f"/a/{name}" for name in ("0", "b", "b-", "b.c", "c/1", "c/2", "c-", "c0", "d/x", "z", "é")]
    for path in paths:
        await stocked.put(path, b"")
    seen = [name for page in await folder_pages(stocked, "/a/", limit) for name in names(page)]
    assert sorted(seen) == sorted(
        ["/a/0", "/a/b", "/a/b-", "/a/b.c", "/a/c/", "/a/c-", "/a/c0", "/a/d/", "/a/z", "/a/é"]
    )


async def test_a_page_goes_on_where_files_came_and_went(stocked: Stocked) -> None:
    for number in range(10):
        await stocked.put(f"/a/{number}", b"")
    first = await stocked.storage.list_folder("/a/", limit=4)
    await stocked.storage.delete("/a/3")  # the last of the page
    await stocked.storage.delete("/a/5")
    await stocked.put("/a/00", b"")  # behind us
    await stocked.put("/a/77", b"")
    rest = await stocked.storage.list_folder("/a/", after=first.next)
    assert names(list(first.entries)) == ["/a/0", "/a/1", "/a/2", "/a/3"]
    assert names(list(rest.entries)) == ["/a/4", "/a/6", "/a/7", "/a/77", "/a/8", "/a/9"]


async def test_a_folder_that_is_not_there_is_not_found(stocked: Stocked) -> None:
    await stocked.put("/folder/file", b"x")
    for folder in ("/nothing/", "/folder/file/", "/fold/"):
        with pytest.raises(Refusal) as refused:
            await stocked.storage.list_folder(folder)
        assert refused.value.code == "not_found", folder


@pytest.mark.parametrize(
    "folder", ["/../", "/a/../b/", "/a//b/", "/a\x00/", "/a\\b/", "/./", "/.gateway/"]
)
async def test_a_folder_that_leads_elsewhere_is_refused(stocked: Stocked, folder: str) -> None:
    with pytest.raises(Refusal) as refused:
        await stocked.storage.list_folder(folder)
    assert refused.value.code in {"bad_path", "forbidden"}


# -- search


async def search_all(stocked: Stocked, folder: str, text: str, limit: int = 1000) -> list[str]:
    """Search to the end, part by part."""
    names, after = list[str](), None
    for _ in range(100):
        result = await search(stocked.storage, folder, text, after=after, limit=limit)
        assert len(result.entries) <= limit
        names += [entry if isinstance(entry, str) else entry.path for entry in result.entries]
        after = result.reached
        if after is None:
            return names
    raise AssertionError(f"the search does not end: {names}")


@pytest.mark.parametrize("limit", [1, 2, 1000])
async def test_a_search_has_each_matching_file_and_folder_below_once(
    stocked: Stocked, limit: int
) -> None:
    paths = [
        "/a/Report.pdf",
        "/a/b",
        "/a/b-report",
        "/a/reports/1",
        "/a/reports/2/report",
        "/a/reports/x/y",
    ]
    for path in (*paths, "/a/x/old reports/z", "/a/x/n", "/about/report", "/report", ODD):
        await stocked.put(path, b"")
    matching = [
        "/a/Report.pdf",
        "/a/b-report",
        "/a/reports/",
        "/a/reports/2/report",
        "/a/x/old reports/",
    ]
    assert sorted(await search_all(stocked, "/a/", "rEPort", limit)) == matching
    assert await search_all(stocked, "/a/", "none", limit) == []
    assert await search_all(stocked, "/none/", "x", limit) == []


async def test_a_search_that_is_cut_off_goes_on_where_it_ended(
    stocked: Stocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(7):
        await stocked.put(f"/a/{number}/x", b"")
    monkeypatch.setattr(listing_search, "MAX_SEARCHED_FILES", 3)
    first = await search(stocked.storage, "/a/", "x", after=None, limit=10)
    assert (first.searched, first.reached) == (3, "/a/2/x")
    assert await search_all(stocked, "/a/", "x") == [f"/a/{number}/x" for number in range(7)]


async def test_what_belongs_to_the_gateway_is_in_no_folder(stocked: Stocked) -> None:
    await stocked.put("/.gateway/probe", b"")
    await stocked.put("/a", b"")
    assert names((await folder_pages(stocked, "/"))[0]) == ["/a"]
    assert await search_all(stocked, "/", "probe") == []
