"""Reads on the event loop: the same containment and the same bytes as in threads, or None."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import Refusal
from gateway.storage.local import cached_read
from gateway.storage.local.cached_read import CachedReader
from gateway.storage.local.storage import LocalStorage
from gateway.storage.local.tree import DirectoryTree
from gateway.storage.local.xattrs import encode_xattr, write_xattr
from gateway.storage.protocols import MAX_SINGLE_PASS_BYTES, SinglePassRead, Stat

Parts = Sequence[tuple[int, int]]
PATH = "/upload/sub/f"


@pytest.fixture(autouse=True)
def remembers_new_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a test are younger than what a server remembers."""
    monkeypatch.setattr(cached_read, "MIN_AGE", -1.0)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "data"
    (root / "upload" / "sub").mkdir(parents=True)
    (root / "own").mkdir()
    yield root
    assert descriptors(root) == []


def descriptors(root: Path) -> list[str]:
    """Return what is open below the root, and the root itself."""
    names = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # a thread has closed it meanwhile
            names.append(os.readlink(f"/proc/self/fd/{fd}"))
    return [name for name in names if name.startswith(str(root))]


def storage_of(root: Path, *protected: Path) -> LocalStorage:
    """Return a storage whose reader reads plainly: that works on every file system."""
    tree = DirectoryTree(root, protected)
    reader = CachedReader(tree, in_memory=True, writes_access_time=False)
    return LocalStorage(tree, cached_reader=reader)


@pytest.fixture
def storage(root: Path) -> Iterator[LocalStorage]:
    storage = storage_of(root, root / "own")
    yield storage
    storage.tree.close()


@pytest.fixture
def on_disk(root: Path) -> Iterator[LocalStorage]:
    """A storage with the reader of a server, on a file system that has a page cache."""
    tree = DirectoryTree(root, [root / "own"])
    reader = CachedReader.where_supported(tree)
    if reader is None or reader._in_memory:
        tree.close()
        pytest.skip("tests run on a file system without RWF_NOWAIT")
    yield LocalStorage(tree, cached_reader=reader)
    tree.close()


def whole(stat: Stat) -> Parts:
    return ((0, stat.bytes),)


async def known(storage: LocalStorage, root: Path, content: bytes = b"content") -> Path:
    """Write a file and let a thread read it once."""
    file = root / PATH[1:]
    file.write_bytes(content)
    await storage.read_parts(PATH, whole)
    assert storage.read_parts_now(PATH, whole) is not None
    return file


def access_later(file: Path) -> None:
    """Read a file until its time of access is behind its last change: clocks of kernels tick."""
    if os.statvfs(file).f_flag & os.ST_NOATIME:
        return
    while (status := file.stat()).st_atime <= max(status.st_mtime, status.st_ctime):
        file.read_bytes()


# -- what is read


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 16, b"z" * MAX_SINGLE_PASS_BYTES])
async def test_a_file_that_a_thread_has_read_is_read_at_once_with_the_same_result(
    storage: LocalStorage, root: Path, content: bytes
) -> None:
    file = root / "upload" / "n\u00e4me \u65e5.txt"
    file.write_bytes(content)
    with file.open("rb") as opened:
        write_xattr(opened.fileno(), encode_xattr("/x", "text/plain", {"owner": "\u00e4"}) or b"")
    path = "/upload/n\u00e4me \u65e5.txt"
    assert storage.read_parts_now(path, whole) is None
    read = await storage.read_parts(path, whole)
    assert storage.read_parts_now(path, whole) == read
    assert read.stat.metadata == {"owner": "\u00e4"}

    def ends(stat: Stat) -> Parts:
        return ((0, min(1, stat.bytes)), (stat.bytes, 0))

    assert storage.read_parts_now(path, ends) == await storage.read_parts(path, ends)


async def test_what_is_longer_than_a_short_file_is_left_to_a_thread(
    storage: LocalStorage, root: Path
) -> None:
    file = await known(storage, root)
    file.write_bytes(b"x" * (MAX_SINGLE_PASS_BYTES + 1))
    await storage.stat(PATH)
    assert storage.read_parts_now(PATH, whole) is None


async def test_a_sparse_file_is_read_as_zeros(storage: LocalStorage, root: Path) -> None:
    file = await known(storage, root)
    os.truncate(file, 0)
    os.truncate(file, 5000)
    assert storage.read_parts_now(PATH, whole) is None
    await storage.read_parts(PATH, whole)
    assert storage.read_parts_now(PATH, whole) == SinglePassRead(await storage.stat(PATH), [bytes(5000)])


async def test_a_refusal_of_the_caller_is_raised_and_nothing_stays_open(
    storage: LocalStorage, root: Path
) -> None:
    await known(storage, root)

    def refuse(stat: Stat) -> Parts:
        raise Refusal("precondition_failed", "no")

    with pytest.raises(Refusal, match="no"):
        storage.read_parts_now(PATH, refuse)


# -- changes


async def test_another_version_or_another_attribute_is_left_to_a_thread(
    storage: LocalStorage, root: Path
) -> None:
    file = await known(storage, root)
    with file.open("rb") as opened:
        write_xattr(opened.fileno(), encode_xattr(PATH, "text/plain", {}) or b"")
    assert storage.read_parts_now(PATH, whole) is None
    await storage.read_parts(PATH, whole)
    read = storage.read_parts_now(PATH, whole)
    assert read is not None
    assert read.stat.mime == "text/plain"
    (root / "new").write_bytes(b"content")
    os.rename(root / "new", file)
    assert storage.read_parts_now(PATH, whole) is None
    await storage.read_parts(PATH, whole)
    file.unlink()
    assert storage.read_parts_now(PATH, whole) is None


async def test_a_file_that_changes_right_now_is_not_remembered(
    storage: LocalStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_read, "MIN_AGE", 60.0)
    (root / PATH[1:]).write_bytes(b"young")
    await storage.read_parts(PATH, whole)
    assert storage.read_parts_now(PATH, whole) is None


async def test_of_a_file_replaced_during_the_read_the_old_version_is_read_and_closed_in_a_thread(
    storage: LocalStorage, root: Path
) -> None:
    file, before = await known(storage, root), descriptors(root)

    def replace_and_read(stat: Stat) -> Parts:
        replace(file)
        replace(file)
        return whole(stat)

    read = storage.read_parts_now(PATH, replace_and_read)
    assert read is not None
    assert (read.stat.bytes, read.pieces) == (7, [b"content"])
    async with asyncio.timeout(30):
        while descriptors(root) != before:
            await asyncio.sleep(0)


async def test_a_file_cut_short_during_the_read_is_left_to_a_thread(
    storage: LocalStorage, root: Path
) -> None:
    file = await known(storage, root)

    def cut(stat: Stat) -> Parts:
        os.truncate(file, 2)
        return whole(stat)

    assert storage.read_parts_now(PATH, cut) is None


async def test_no_more_is_remembered_than_the_bounds_allow(
    storage: LocalStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_read, "MAX_FILES", 2)
    for name in "abc":
        (root / name).write_bytes(b"x")
        await storage.read_parts(f"/{name}", whole)
    found = [storage.read_parts_now(f"/{name}", whole) is not None for name in "abc"]
    assert found == [False, True, True]
    with monkeypatch.context() as patched:
        patched.setattr(cached_read, "MAX_TEXT", 1)
        await storage.read_parts("/a", whole)
    assert storage.read_parts_now("/a", whole) is None
    deep = "/" + "/".join("d" * cached_read.MAX_SEGMENTS) + "/f"
    (root / deep[1:]).parent.mkdir(parents=True)
    (root / deep[1:]).write_bytes(b"x")
    await storage.read_parts(deep, whole)
    assert storage.read_parts_now(deep, whole) is None


# -- containment


def replace(file: Path) -> None:
    new = file.with_name("new")  # not in place: opening a FIFO would wait for its reader
    new.write_bytes(b"written")
    os.rename(new, file)


def symlink(file: Path) -> None:
    os.rename(file, file.with_name("real"))
    file.symlink_to("real")


def symlink_on_the_way(file: Path) -> None:
    os.rename(file.parent, file.parent.with_name("real"))
    file.parent.symlink_to("real")


def fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def unix_socket(file: Path) -> None:
    file.unlink()
    cwd = os.open(".", os.O_RDONLY)
    os.chdir(file.parent)  # a socket's path has at most 108 bytes
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(file.name)
    finally:
        os.fchdir(cwd)
        os.close(cwd)


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def file_on_the_way(file: Path) -> None:
    shutil.rmtree(file.parent)
    file.parent.write_bytes(b"content")


@pytest.mark.parametrize(
    "change", [symlink, symlink_on_the_way, fifo, unix_socket, folder, file_on_the_way]
)
async def test_whatever_is_no_regular_file_below_plain_folders_is_left_to_a_thread(
    storage: LocalStorage, root: Path, change: Callable[[Path], None]
) -> None:
    change(await known(storage, root))
    assert storage.read_parts_now(PATH, whole) is None
    with pytest.raises(Refusal):
        await storage.read_parts(PATH, whole)


async def test_a_protected_folder_that_was_moved_onto_the_way_is_refused(
    storage: LocalStorage, root: Path
) -> None:
    file = await known(storage, root)
    os.rename(file, root / "own" / "f")  # the very same file, and so known
    file.parent.rmdir()
    os.rename(root / "own", file.parent)
    await refused_both_ways(storage)
    os.rename(file.parent, root / "upload" / "elsewhere")
    os.mkdir(file.parent)
    os.rename(root / "upload" / "elsewhere", file.parent / "deeper")
    assert storage.read_parts_now("/upload/sub/deeper/f", whole) is None


async def test_places_protected_by_path_by_inode_or_while_running_are_refused(
    storage: LocalStorage, root: Path
) -> None:
    file = await known(storage, root)
    secret = root / "secret"
    os.link(file, secret)
    await storage.read_parts(PATH, whole)  # another link is another ctime
    for place in (secret, file, file.parent, file.parent.parent):
        storage.tree.reload_protected([place])
        await refused_both_ways(storage)
    storage.tree.reload_protected([root / "upload" / "sub" / "not there"])
    assert storage.read_parts_now(PATH, whole) is not None


async def refused_both_ways(storage: LocalStorage) -> None:
    with pytest.raises(Refusal) as now:
        storage.read_parts_now(PATH, whole)
    with pytest.raises(Refusal) as later:
        await storage.read_parts(PATH, whole)
    assert (now.value.code, str(now.value)) == ("forbidden", str(later.value))


async def test_a_folder_that_some_may_enter_and_not_read_is_left_to_a_thread(
    storage: LocalStorage, root: Path
) -> None:
    file = await known(storage, root)
    for mode, at_once in ((0o711, False), (0o750, True), (0o751, False), (0o700, True)):
        file.parent.chmod(mode)
        assert (storage.read_parts_now(PATH, whole) is not None) == at_once


async def test_no_other_file_system_is_entered() -> None:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        storage = storage_of(Path("/dev"))
        path = file.name.removeprefix("/dev")
        assert (await storage.read_parts(path, whole)).pieces == [b""]
        assert storage.read_parts_now(path, whole) is None
        storage.tree.close()


CHANGES: dict[str, Callable[[Path], None]] = {
    "write": lambda root: replace(_file(root)),
    "symlink": lambda root: symlink(_file(root)),
    "symlink on the way": lambda root: symlink_on_the_way(_file(root)),
    "fifo": lambda root: fifo(_file(root)),
    "remove": lambda root: _file(root).unlink(),
    "move the folder away": lambda root: os.rename(root / "upload/sub", root / "upload/away"),
    "move the folder back": lambda root: os.rename(root / "upload/away", root / "upload/sub"),
    "make the folder": lambda root: os.mkdir(root / "upload/sub"),
    "move the protected one here": lambda root: os.rename(root / "own", root / "upload/sub"),
    "move it back": lambda root: os.rename(root / "upload/sub", root / "own"),
    "exchange the files": lambda root: os.rename(root / "own/f", _file(root)),
    "protect the file": lambda root: os.rename(_file(root), root / "own/f"),
    "link the protected file": lambda root: os.link(root / "own/f", _file(root)),
}


def _file(root: Path) -> Path:
    return root / PATH[1:]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(names=st.lists(st.sampled_from(sorted(CHANGES)), min_size=1, max_size=12))
def test_after_any_changes_the_result_is_that_of_a_thread_or_none(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "upload/sub").mkdir(parents=True)
        (root / "own").mkdir()
        (root / "own/f").write_bytes(b"secret")
        (root / PATH[1:]).write_bytes(b"content")
        storage = storage_of(root, root / "own", root / "own/f")
        asyncio.run(_compare(storage, root, names))
        storage.tree.close()


async def _compare(storage: LocalStorage, root: Path, names: list[str]) -> None:
    for name in ["write", *names]:
        with contextlib.suppress(OSError):
            CHANGES[name](root)
        now: object = None
        try:
            now = storage.read_parts_now(PATH, whole)
        except Refusal as refusal:
            now = refusal.code, str(refusal)
        try:
            later: object = await storage.read_parts(PATH, whole)
        except Refusal as refusal:
            later = refusal.code, str(refusal)
        assert now in (None, later)


# -- waiting for nothing


async def test_what_is_not_in_the_page_cache_is_left_to_a_thread(
    on_disk: LocalStorage, root: Path
) -> None:
    file = root / PATH[1:]
    file.write_bytes(b"content" * 1000)
    access_later(file)
    await on_disk.read_parts(PATH, whole)
    assert on_disk.read_parts_now(PATH, whole) == await on_disk.read_parts(PATH, whole)
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert on_disk.read_parts_now(PATH, whole) is None


async def test_a_read_that_would_write_the_time_of_access_is_left_to_a_thread(
    on_disk: LocalStorage, root: Path
) -> None:
    assert on_disk.cached_reader is not None
    if not on_disk.cached_reader._writes_access_time:
        pytest.skip("this file system keeps no time of access")
    file, day = root / PATH[1:], 86_400
    file.write_bytes(b"content")
    for accessed, changed in ((-day, -day), (-day - 1, -day - 2), (day, -day)):
        os.utime(file, (time.time() + accessed, time.time() + changed))
        await on_disk.stat(PATH)
        assert on_disk.read_parts_now(PATH, whole) is None
        assert on_disk.read_parts_now(PATH, lambda _: ()) is not None  # no read, no access
    os.utime(file)
    access_later(file)
    await on_disk.read_parts(PATH, whole)
    assert on_disk.read_parts_now(PATH, whole) is not None


async def test_reads_are_left_to_threads_where_machine_kernel_or_file_system_do_not_fit(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = DirectoryTree(root, [])
    storage = LocalStorage(tree)
    (root / "f").write_bytes(b"x")
    await storage.read_parts("/f", whole)
    assert storage.read_parts_now("/f", whole) is None
    proc = DirectoryTree(Path("/proc"), [])
    assert CachedReader.where_supported(proc) is None
    monkeypatch.setattr(cached_read, "_file_system", lambda fd: cached_read._TMPFS)
    assert CachedReader.where_supported(tree) is not None
    with monkeypatch.context() as patched:
        patched.setattr(cached_read, "_OPENAT2", 1_000_000)  # ENOSYS
        assert CachedReader.where_supported(tree) is None
    monkeypatch.setattr(cached_read, "_MACHINES", frozenset({"pdp11"}))
    assert CachedReader.where_supported(tree) is None
    tree.close()
    proc.close()
