"""DIRECTORY under load and power loss: what is synced, and who may make the same folders at once."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from gateway.domain import paths
from gateway.storage.local.directory import sync_file_system
from gateway.storage.local.tree import DirectoryTree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def tree(root: Path) -> Iterator[DirectoryTree]:
    opened = DirectoryTree(root, protected=[])
    yield opened
    opened.close()


def test_new_folders_are_synced_with_those_that_hold_them_each_once(
    tree: DirectoryTree, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))

    def sync(path: str, done: set[tuple[int, int]] | None = None) -> list[str]:
        synced.clear()
        with tree.open_parent(paths.check_path(path)) as parent:
            parent.sync(done)
            parent.sync(done)
        names = {place.stat().st_ino: place.name for place in (root, *root.rglob("*"))}
        return [names[inode] for inode in synced]

    assert sync("a/b/c/f") == ["c", "b", "a", root.name, "c"]
    assert sync("a/b/c/g") == ["c", "c"]
    assert sync("a/b/d/f", set()) == ["d", "b"]
    assert sync("a/b/d/g", set()) == ["d"]
    (root / "by-another").mkdir()
    assert sync("by-another/f", set()) == ["by-another", root.name]


def test_a_batch_syncs_a_folder_that_its_uploads_share_once(
    tree: DirectoryTree, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    parents = [tree.open_parent(paths.check_path(path)) for path in ("a/b/f", "a/b/g", "a/c/f", "a/f")]
    done: set[tuple[int, int]] = set()
    for parent in parents:
        parent.sync(done)
        parent.close()
    assert sorted(synced) == sorted((root / name).stat().st_ino for name in ("", "a", "a/b", "a/c"))


@pytest.mark.parametrize(
    ("changed", "synced"), [("a/b", {"a/b"}), ("a", {"a/b", "a"}), ("", {"a/b", ""})]
)
def test_a_change_by_others_makes_the_entries_of_that_folder_doubtful_again(
    tree: DirectoryTree, root: Path, changed: str, synced: set[str]
) -> None:
    with tree.open_parent(("a", "b", "f")) as parent:
        parent.sync()
    os.utime(root / changed, ns=(0, 0))  # what removing a folder and making it anew does
    done: set[tuple[int, int]] = set()
    with tree.open_parent(("a", "b", "f")) as parent:
        parent.sync(done)
    assert {inode for _, inode in done} == {(root / name).stat().st_ino for name in synced}


def test_of_a_deep_folder_only_the_entries_in_doubt_are_synced(
    tree: DirectoryTree, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = (*"abcdefgh", "f")
    with tree.open_parent(deep) as parent:
        parent.sync()
    (root / "flat").write_bytes(b"1")  # what every upload beside it does
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    with tree.open_parent(deep) as parent:
        parent.sync()
    assert synced == [(root / "a/b/c/d/e/f/g/h").stat().st_ino, root.stat().st_ino]


def test_a_failed_sync_is_repeated(tree: DirectoryTree, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []

    def failing(fd: int) -> None:
        synced.append(fd)
        if len(synced) == 2:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with tree.open_parent(("a", "b", "f")) as parent:
        with pytest.raises(OSError, match="Input/output"):
            parent.sync()
        parent.sync()
    assert len(synced) == 2 + 3


def test_many_threads_may_make_the_same_folders_at_once(tree: DirectoryTree, root: Path) -> None:
    barrier = Barrier(16, timeout=30)

    def work(number: int) -> None:
        for turn in range(10):
            barrier.wait()
            with tree.open_parent(("upload", str(turn), "a", "b", "c", str(number))) as parent:
                parent.sync()
                os.close(os.open(parent.name, os.O_WRONLY | os.O_CREAT, dir_fd=parent.fd))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
    assert sum(1 for place in root.rglob("*") if place.is_file()) == 160


def test_a_deep_tree_needs_one_descriptor(root: Path) -> None:
    deep = ("d",) * 98 + ("x", "f")
    tree = DirectoryTree(root, [], max_new_folders=99)
    before = len(os.listdir("/proc/self/fd"))
    with tree.open_parent(deep) as parent:
        assert len(os.listdir("/proc/self/fd")) == before + 1
        parent.sync()
    parent.close()
    assert tree.lstat(deep) is None
    tree.close()


# -- the file system


def test_one_file_system_is_synced_and_no_other(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sync", lambda: pytest.fail("all file systems are synced"))
    fd = os.open(root, os.O_RDONLY)
    try:
        sync_file_system(fd)
    finally:
        os.close(fd)


def test_a_file_system_that_cannot_be_synced_is_an_error() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        sync_file_system(-1)


def test_a_c_library_without_the_call_syncs_everything(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    monkeypatch.setattr(os, "sync", lambda: synced.append("all"))
    sync_file_system(-1)
    assert synced == ["all"]
