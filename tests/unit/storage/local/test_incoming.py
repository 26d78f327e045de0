"""Bodies that are received: private, whole, and removed without a trace when they are discarded."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Refusal
from gateway.storage.local import incoming as incoming_module
from gateway.storage.local.incoming import IncomingDirectory, IncomingFile
from gateway.storage.local.xattrs import ATTRIBUTE, read_attributes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "incoming" / "0"


@pytest.fixture
def incoming(folder: Path) -> Iterator[IncomingDirectory]:
    before = len(os.listdir("/proc/self/fd"))
    opened = IncomingDirectory(folder)
    yield opened
    opened.close()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_the_folder_is_private(incoming: IncomingDirectory, folder: Path) -> None:
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert incoming.device == folder.stat().st_dev


def test_a_small_body_stays_in_memory_until_it_is_finalized(
    incoming: IncomingDirectory, folder: Path
) -> None:
    body = incoming.create("u", 0o640)
    body.buffer(b"small body")
    assert list(incoming.upload_ids()) == []
    identity = body.finalize(durable=True)
    found = (folder / "u").stat()
    assert (folder / "u").read_bytes() == b"small body"
    assert identity == (found.st_ino, 10, found.st_mtime_ns)


def test_what_is_buffered_comes_behind_what_was_written(
    incoming: IncomingDirectory, folder: Path
) -> None:
    body = incoming.create("u", 0o640)
    body.write([b"one ", b"", b"two "])
    body.buffer(b"three")
    assert body.received == 8
    assert body.finalize(durable=False).size == 13
    assert (folder / "u").read_bytes() == b"one two three"


def test_an_empty_body_is_an_empty_file(incoming: IncomingDirectory, folder: Path) -> None:
    assert incoming.create("u", 0o640).finalize(durable=False).size == 0
    assert (folder / "u").read_bytes() == b""


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o604, 0o666])
def test_a_body_has_the_mode_it_was_given_whatever_the_umask(folder: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        incoming = IncomingDirectory(folder)
        incoming.create("u", mode).finalize(durable=False)
        incoming.close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "u").stat().st_mode) == mode


def test_a_body_never_opens_an_existing_file(incoming: IncomingDirectory, folder: Path) -> None:
    (folder / "precious").write_bytes(b"precious")
    (folder / "link").symlink_to("precious")
    for name in ("precious", "link"):
        body = incoming.create(name, 0o640)
        with pytest.raises(FileExistsError):
            body.write([b"x"])
        body.discard()
    assert (folder / "precious").read_bytes() == b"precious"


# -- writing


def in_parts(size: int) -> Callable[[int, Sequence[bytes]], int]:
    """Return a `writev` that takes `size` bytes at the most, as the kernel may."""

    def writev(fd: int, pieces: Sequence[bytes]) -> int:
        return os.write(fd, b"".join(pieces)[:size])

    return writev


@pytest.mark.parametrize("size", [1, 3, 4, 7, 1000])
def test_writes_of_which_the_kernel_takes_only_a_part_are_finished(
    incoming: IncomingDirectory, folder: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(os, "writev", in_parts(size))
    body = incoming.create("u", 0o640)
    body.write([b"abc", b"", b"defg", b"h", b"ijklmnop"])
    body.write([])
    assert body.received == 16
    body.finalize(durable=False)
    assert (folder / "u").read_bytes() == b"abcdefghijklmnop"


@given(st.lists(st.binary(max_size=9), max_size=30), st.integers(1, 20))
def test_any_pieces_in_any_parts_come_out_whole(pieces: list[bytes], size: int) -> None:
    fd = os.memfd_create("body")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "writev", in_parts(size))
            assert incoming_module.write_all(fd, pieces) == sum(map(len, pieces))
        assert os.pread(fd, 1000, 0) == b"".join(pieces)
    finally:
        os.close(fd)


def test_more_pieces_than_the_kernel_takes_at_once_are_written(
    incoming: IncomingDirectory, folder: Path
) -> None:
    pieces = [bytes([number % 256]) for number in range(5000)]
    body = incoming.create("u", 0o640)
    body.write(pieces)
    assert body.finalize(durable=False).size == 5000
    assert (folder / "u").read_bytes() == b"".join(pieces)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_refused_with_its_error_code(
    incoming: IncomingDirectory, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def write(fd: int, piece: bytes) -> int:
        raise OSError(error, "full")

    monkeypatch.setattr(os, "write", write)
    body = incoming.create("u", 0o640)
    with pytest.raises(Refusal) as caught:
        body.write([b"x"])
    assert caught.value.code == "no_space"
    body.discard()
    assert list(incoming.upload_ids()) == []


def test_digests_are_of_all_bytes_in_their_order(incoming: IncomingDirectory) -> None:
    body = incoming.create("u", 0o640, ["sha256", "md5"])
    assert body.digests.are_expected
    body.write([b"one", b"two"])
    body.write([b"three"])
    assert body.digests.digest("sha256") == hashlib.sha256(b"onetwothree").digest()
    assert body.digests.digest("md5") == hashlib.md5(b"onetwothree").digest()
    body.discard()
    assert not incoming.create("v", 0o640).digests.are_expected


def digest_of_file(folder: Path) -> dict[str, str]:
    """Return the digest that the file itself tells."""
    with (folder / "u").open("rb") as file:
        return dict(read_attributes(file.fileno(), os.fstat(file.fileno())).digests)


SHA_OF_BODY = base64.b64encode(hashlib.sha256(b"body").digest()).decode()


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("buffered", [True, False])
def test_a_digest_stays_with_the_file(
    incoming: IncomingDirectory, folder: Path, durable: bool, buffered: bool
) -> None:
    body = incoming.create("u", 0o640, (), "sha256")
    assert not body.digests.are_expected
    assert body.digests.kept() == {}
    body.xattr = b'{"mime": "a/b"}'
    if buffered:
        body.buffer(b"body")
    else:
        body.write([b"bo", b"dy"])
        body.sync()
    body.finalize(durable=durable)
    assert body.digests.kept() == {"sha256": hashlib.sha256(b"body").digest()}
    assert digest_of_file(folder) == {"sha-256": SHA_OF_BODY}
    assert os.getxattr(folder / "u", ATTRIBUTE) == b'{"mime": "a/b"}'


def test_a_digest_that_was_computed_elsewhere_stays_with_the_file_too(
    incoming: IncomingDirectory, folder: Path
) -> None:
    body = incoming.create("u", 0o640)
    body.buffer(b"body")
    body.digests.keep_named("sha256", {"md5": "x", "sha-256": SHA_OF_BODY})
    body.finalize(durable=True)
    assert digest_of_file(folder) == {"sha-256": SHA_OF_BODY}


# -- closed bodies


@pytest.mark.parametrize("written", [False, True], ids=["new", "written"])
def test_nothing_is_written_to_a_discarded_body_and_no_file_comes_back(
    incoming: IncomingDirectory, written: bool
) -> None:
    body = incoming.create("u", 0o640)
    if written:
        body.write([b"x"])
    body.discard()
    body.buffer(b"late")
    for late in (lambda: body.write([b"late"]), body.sync, partial(body.finalize, durable=False)):
        with pytest.raises(OSError, match="this body is closed"):
            late()
    assert list(incoming.upload_ids()) == []


def test_a_discard_waits_for_the_thread_that_writes(
    incoming: IncomingDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go_on, write = threading.Event(), threading.Event(), os.write
    body, written = incoming.create("u", 0o640), []

    def slow(fd: int, piece: bytes) -> int:
        entered.set()
        assert go_on.wait(30)
        written.append(write(fd, piece))
        return written[-1]

    monkeypatch.setattr(os, "write", slow)
    writing = threading.Thread(target=body.write, args=([b"late"],))
    writing.start()
    assert entered.wait(30)
    discarding = threading.Thread(target=body.discard)
    discarding.start()
    discarding.join(0.05)
    assert discarding.is_alive()
    go_on.set()
    writing.join()
    discarding.join()
    assert written == [4]
    assert list(incoming.upload_ids()) == []


def test_a_body_with_other_bytes_than_were_received_is_not_finalized(
    incoming: IncomingDirectory, folder: Path
) -> None:
    body = incoming.create("u", 0o640)
    body.write([b"mine"])
    with (folder / "u").open("ab") as file:
        file.write(b"another's")
    with pytest.raises(OSError, match="4 bytes were received, and the file has 13"):
        body.finalize(durable=True)
    body.discard()
    assert list(incoming.upload_ids()) == []


# -- durability


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Remember how large a file was at each sync."""
    sizes: list[int] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        sizes.append(os.fstat(fd).st_size)
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    return sizes


def test_finalizing_syncs_all_bytes_once(incoming: IncomingDirectory, synced: list[int]) -> None:
    body = incoming.create("u", 0o640)
    body.write([b"12345"])
    body.buffer(b"678")
    body.sync()
    body.sync()
    body.finalize(durable=True)
    assert synced == [8]


def test_bytes_written_after_a_sync_are_synced_too(
    incoming: IncomingDirectory, synced: list[int]
) -> None:
    body = incoming.create("u", 0o640)
    body.write([b"12345"])
    body.sync()
    body.write([b"678"])
    body.finalize(durable=True)
    assert synced == [5, 8]


def test_without_durability_nothing_is_synced(incoming: IncomingDirectory, synced: list[int]) -> None:
    body = incoming.create("u", 0o640)
    body.write([b"12345"])
    body.finalize(durable=False)
    assert synced == []


# -- the end without a file


def fresh(body: IncomingFile) -> None:
    """Nothing has come yet."""


def kept(body: IncomingFile) -> None:
    body.buffer(b"small")


def written(body: IncomingFile) -> None:
    body.write([b"bytes"])


def synced_body(body: IncomingFile) -> None:
    body.write([b"bytes"])
    body.sync()


def sealed(body: IncomingFile) -> None:
    body.write([b"bytes"])
    body.finalize(durable=False)


def removed(body: IncomingFile) -> None:
    body.write([b"bytes"])
    body._incoming.remove(body.upload_id)


ENDS = [fresh, kept, written, synced_body, sealed, removed]


@pytest.mark.parametrize("reach", ENDS, ids=lambda reach: reach.__name__)
def test_discarding_leaves_nothing_in_whatever_state(
    incoming: IncomingDirectory, reach: Callable[[IncomingFile], None]
) -> None:
    body = incoming.create("u", 0o640)
    reach(body)
    body.discard()
    body.discard()
    assert list(incoming.upload_ids()) == []


def test_discarding_does_not_touch_a_body_of_another(incoming: IncomingDirectory, folder: Path) -> None:
    (folder / "u").write_bytes(b"another's")
    incoming.create("u", 0o640).discard()
    assert (folder / "u").read_bytes() == b"another's"


@pytest.mark.parametrize("reach", [written, synced_body, sealed], ids=lambda reach: reach.__name__)
def test_truncating_frees_the_space_and_keeps_the_file(
    incoming: IncomingDirectory, reach: Callable[[IncomingFile], None]
) -> None:
    body = incoming.create("u", 0o640)
    reach(body)
    body.truncate()
    assert incoming.stat("u").st_size == 0


def test_removing_a_missing_body_raises_nothing(incoming: IncomingDirectory) -> None:
    incoming.remove("never was")
    with pytest.raises(FileNotFoundError):
        incoming.stat("never was")
