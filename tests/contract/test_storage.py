"""What every storage promises: the directory's and the bucket's, on two servers that differ."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import Refusal, Superseded
from gateway.settings.values import Bucket
from gateway.storage.local.storage import LocalStorage
from gateway.storage.local.tree import DirectoryTree
from gateway.storage.protocols import Storage
from gateway.storage.s3.client import Clients
from gateway.storage.s3.storage import S3Storage
from tests.support.s3.servers import S3Server

ODD = "/upload/hé llo+1%41 &=?#/ü~'(x)[y].txt"


@dataclass
class Stocked:
    """A storage, and how something comes onto it without the gateway."""

    storage: Storage
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
