"""The storage of a directory: one version of a file, the order of keys, nothing but what was stored."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import Refusal, Superseded
from gateway.storage.local import listing
from gateway.storage.local.storage import LocalStorage
from gateway.storage.local.tree import DirectoryTree
from gateway.storage.local.xattrs import (
    ATTRIBUTE,
    NO_ATTRIBUTES,
    FileAttributes,
    encode_xattr,
    guess_mime,
    read_attributes,
    write_xattr,
)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[DirectoryTree]:
    (tmp_path / "root").mkdir()
    tree = DirectoryTree(tmp_path / "root", [tmp_path / "root" / "own"])
    yield tree
    tree.close()


@pytest.fixture
def root(tree: DirectoryTree, tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def storage(tree: DirectoryTree) -> LocalStorage:
    return LocalStorage(tree)


def store(root: Path, key: str, content: bytes = b"x") -> Path:
    file = root / key
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


async def keys(storage: LocalStorage, prefix: str, after: str | None = None) -> list[str]:
    return [stat.path async for stat in storage.list(prefix, after=after)]


def fails_to_open(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """Let every folder of this name be one that the disk or the system does not give."""
    open_really = os.open

    def open_or_fail(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == name:
            raise OSError(number, os.strerror(number), name)
        return open_really(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr("os.open", open_or_fail)


async def test_a_file_is_described_and_read_in_part(storage: LocalStorage, root: Path) -> None:
    store(root, "upload/a.bin", bytes(range(100)))
    stat = await storage.stat("/upload/a.bin")
    assert (stat.path, stat.bytes, stat.mime) == ("/upload/a.bin", 100, None)
    async with storage.open("/upload/a.bin", start=10, length=5, etag=stat.etag) as opened:
        assert b"".join([piece async for piece in opened]) == bytes(range(10, 15))
        assert opened.stat == stat
        assert opened.fd is not None


async def test_what_is_open_stays_what_it_was_while_its_name_gets_another_file(
    storage: LocalStorage, root: Path
) -> None:
    store(root, "a", b"old")
    async with storage.open("/a") as opened:
        os.rename(store(root, "b", b"new!"), root / "a")
        assert b"".join([piece async for piece in opened]) == b"old"
        with pytest.raises(Superseded):
            async with storage.open("/a", etag=opened.stat.etag):
                pass


async def test_a_file_that_is_cut_short_raises_and_is_no_short_file(
    storage: LocalStorage, root: Path
) -> None:
    store(root, "a", b"whole")
    async with storage.open("/a") as opened:
        os.truncate(root / "a", 2)
        with pytest.raises(OSError, match="cut short"):
            [piece async for piece in opened]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/none", "not_found"),
        ("/folder", "not_found"),
        ("/folder/file/below", "not_found"),
        ("/fifo", "not_found"),
        ("/link", "not_found"),
        ("/linked/file", "bad_path"),
        ("/own/key", "forbidden"),
        ("/.gateway/journal.db", "bad_path"),
        ("/folder/../own/key", "bad_path"),
    ],
)
async def test_what_was_never_stored_is_not_read(
    storage: LocalStorage, root: Path, path: str, code: str
) -> None:
    store(root, "folder/file")
    store(root, "own/key")
    os.mkfifo(root / "fifo")
    (root / "link").symlink_to("folder/file")
    (root / "linked").symlink_to("folder")
    with pytest.raises(Refusal) as refused:
        await storage.stat(path)
    assert refused.value.code == code


async def test_a_protected_file_is_known_by_its_inode_under_another_name(tmp_path: Path) -> None:
    store(tmp_path, "config.yaml")
    os.link(tmp_path / "config.yaml", tmp_path / "innocent")
    tree = DirectoryTree(tmp_path, [tmp_path / "config.yaml"])
    with pytest.raises(Refusal, match="belongs to the gateway"):
        await LocalStorage(tree).stat("/innocent")
    assert await keys(LocalStorage(tree), "/") == []
    tree.close()


async def test_a_list_leaves_out_links_protected_places_and_invalid_names(
    storage: LocalStorage, root: Path
) -> None:
    store(root, "a/b")
    store(root, "own/key")
    store(root, ".gateway/journal.db")
    store(root, "back\\slash")
    (root / os.fsdecode(b"no-utf8-\xff")).write_bytes(b"")
    (root / "link").symlink_to("a")
    (root / "a" / "link").symlink_to("b")
    assert await keys(storage, "/") == ["/a/b"]


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EMFILE])
async def test_a_folder_that_cannot_be_entered_makes_the_list_raise(
    storage: LocalStorage, root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for key in ("a/1", "b/broken/2", "c/3"):
        store(root, key)
    fails_to_open(monkeypatch, "broken", number)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="broken") as fault:
        await keys(storage, "/")
    assert fault.value.errno == number
    assert len(os.listdir("/proc/self/fd")) == before
    assert await keys(storage, "/a/") == ["/a/1"]


async def test_a_folder_whose_names_cannot_be_read_makes_the_list_raise(
    storage: LocalStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(root, "a/1")
    store(root, "broken/2")
    scandir = os.scandir

    def scan(fd: int) -> Any:
        if os.readlink(f"/proc/self/fd/{fd}").endswith("/broken"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return scandir(fd)

    monkeypatch.setattr("os.scandir", scan)
    with pytest.raises(OSError, match="Input/output"):
        await keys(storage, "/")


async def test_a_file_that_cannot_be_described_makes_the_list_raise(
    storage: LocalStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(root, "a/broken")
    described = os.stat

    def describe(path: Any, **how: Any) -> os.stat_result:
        if path == "broken":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return described(path, **how)

    monkeypatch.setattr("os.stat", describe)
    with pytest.raises(OSError, match="Input/output"):
        await keys(storage, "/")


@pytest.mark.parametrize(("key", "passed"), [("lost+found/1", True), ("a/lost+found/1", False)])
async def test_only_lost_and_found_is_left_out_where_it_may_not_be_read(
    storage: LocalStorage, root: Path, monkeypatch: pytest.MonkeyPatch, key: str, passed: bool
) -> None:
    store(root, key)
    store(root, "z")
    assert await keys(storage, "/") == [f"/{key}", "/z"]
    fails_to_open(monkeypatch, "lost+found", errno.EACCES)
    if passed:
        assert await keys(storage, "/") == ["/z"]
    else:
        with pytest.raises(PermissionError):
            await keys(storage, "/")


async def test_a_folder_that_is_removed_while_it_is_listed_is_left_out(
    storage: LocalStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(root, "a/gone/1")
    store(root, "b")
    fails_to_open(monkeypatch, "gone", errno.ENOENT)
    assert await keys(storage, "/") == ["/b"]


async def test_a_list_of_a_folder_that_does_not_exist_is_empty(
    storage: LocalStorage, root: Path
) -> None:
    store(root, "a/b")
    assert await keys(storage, "/none/") == []
    assert await keys(storage, "/a/b/") == []
    assert await keys(storage, "/a/b") == ["/a/b"]


_NAMES = st.text(st.sampled_from("ab-.0é€😀"), min_size=1, max_size=3).filter(
    lambda name: name not in {".", ".."}
)
_KEYS = st.lists(_NAMES, min_size=1, max_size=3).map("/".join)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sets(_KEYS, max_size=12), _KEYS | st.just(""), _KEYS | st.none(), st.integers(1, 3))
def test_a_list_has_the_order_and_the_bounds_of_an_object_store(
    tmp_path_factory: pytest.TempPathFactory, wanted: set[str], prefix: str, after: str | None, page: int
) -> None:
    root = tmp_path_factory.mktemp("root")
    stored = []
    for key in wanted:
        try:
            store(root, key)
        except OSError:  # a file where a folder is needed, or the other way round
            continue
        stored.append(key)
    tree = DirectoryTree(root, [])
    whole, listing.PAGE_SIZE = listing.PAGE_SIZE, page  # type: ignore[misc]
    try:
        found = asyncio.run(keys(LocalStorage(tree), "/" + prefix, after and "/" + after))
    finally:
        listing.PAGE_SIZE = whole  # type: ignore[misc]
        tree.close()
    expected = [
        key for key in stored if key.startswith(prefix) and key.encode() > (after or "").encode()
    ]
    assert found == ["/" + key for key in sorted(expected, key=str.encode)]


async def test_a_list_that_is_ended_early_leaves_no_folder_open(
    storage: LocalStorage, root: Path
) -> None:
    for number in range(700):
        store(root, f"a/{number:04}")
    before = len(os.listdir("/proc/self/fd"))
    found = storage.list("/")
    assert (await anext(found)).path == "/a/0000"
    assert len(os.listdir("/proc/self/fd")) > before
    await found.aclose()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_file_is_removed_only_while_its_etag_matches(storage: LocalStorage, root: Path) -> None:
    file = store(root, "a/b")
    stat = await storage.stat("/a/b")
    os.utime(file, ns=(1, 1))
    with pytest.raises(Superseded):
        await storage.delete("/a/b", stat.etag)
    assert file.exists()
    await storage.delete("/a/b", (await storage.stat("/a/b")).etag)
    with pytest.raises(Refusal, match="no such file"):
        await storage.delete("/a/b")


def attributes(file: BinaryIO) -> FileAttributes:
    return read_attributes(file.fileno(), os.fstat(file.fileno()))


async def test_type_and_metadata_are_stored_with_the_file(storage: LocalStorage, root: Path) -> None:
    note = encode_xattr("/a.txt", "text/x-ü", {"title": "Grüße"})
    assert note is not None
    with open(store(root, "a.txt"), "r+b") as file:
        write_xattr(file.fileno(), note)
        if attributes(file).mime is None:
            pytest.skip("this file system keeps no attributes")
    os.rename(root / "a.txt", root / "b.txt")
    stat = await storage.stat("/b.txt")
    assert (stat.mime, stat.metadata) == ("text/x-ü", {"title": "Grüße"})


def test_a_type_that_the_name_implies_is_not_stored() -> None:
    assert encode_xattr("/a.txt", "text/plain", {}) is None
    assert encode_xattr("/a", None, {}) is None
    assert guess_mime("/a.tar.gz") == "application/gzip"
    assert guess_mime("/folder.txt/a") == "application/octet-stream"


@pytest.mark.parametrize("junk", [b"{", b"[]", b'{"mime": 1, "metadata": {"a": 1}}', b"\xff"])
def test_a_foreign_attribute_is_ignored(tmp_path: Path, junk: bytes) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"")
    with file.open("r+b") as opened:
        try:
            os.setxattr(opened.fileno(), ATTRIBUTE, junk)
        except OSError:
            pytest.skip("this file system keeps no attributes")
        assert attributes(opened) == NO_ATTRIBUTES
