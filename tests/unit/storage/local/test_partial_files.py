"""A partial upload on the disk: what counts after a kill, after a reboot, and on a failing disk."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import Refusal
from gateway.storage.local import partial_cells, partial_files
from gateway.storage.local.incoming import IncomingDirectory
from gateway.storage.local.partial_directory import (
    PartialCommittingError,
    PartialDirectory,
    PartialLockedError,
)
from gateway.storage.local.partial_files import PartialFile
from gateway.storage.local.partial_opening import create_partial, open_partial, remove_idle
from tests.support.partials import partial_head

_BLOCK = 4096


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[PartialDirectory]:
    opened = PartialDirectory(tmp_path / "partials")
    yield opened
    opened.close()


@pytest.fixture
def incoming(tmp_path: Path, folder: PartialDirectory) -> Iterator[IncomingDirectory]:
    opened = IncomingDirectory(tmp_path / "incoming" / "0", folder)
    yield opened
    opened.close()


def create(folder: PartialDirectory, content: bytes = b"", length: int | None = 100) -> PartialFile:
    """Create a partial upload, and settle its first bytes."""
    file = create_partial(folder, partial_head(length=length), 0o640, 0o022)
    append(file, content)
    return file


def append(file: PartialFile, content: bytes, *, settle: bool = True, unchecked: bool = False) -> None:
    file.begin(unchecked=unchecked)
    file.write([content])
    if settle:
        file.settle()


def reopen(folder: PartialDirectory, upload_id: str) -> PartialFile:
    file = open_partial(folder, upload_id)
    assert file is not None
    return file


def crash(file: PartialFile) -> str:
    """Let go of a file as the end of its process does: its descriptors are closed."""
    file._close()
    return file.upload_id


def reboot(monkeypatch: pytest.MonkeyPatch, number: int = 1) -> None:
    """Let the kernel have started anew."""
    monkeypatch.setattr(partial_cells, "boot_id", lambda: bytes([number]) * 16)


def body(folder: PartialDirectory, upload_id: str) -> bytes:
    with open(folder.open(upload_id, os.O_RDONLY), "rb") as file:
        return file.read()


def spoil(folder: PartialDirectory, upload_id: str, *, newest: bool) -> None:
    """Tear the newest cell, or the other one."""
    fd = folder.open(upload_id + ".at", os.O_RDWR)
    cells = {
        slot: partial_cells.decode(os.pread(fd, partial_cells._SIZE, slot * _BLOCK)) for slot in (0, 1)
    }
    order = sorted(cells, key=lambda slot: -1 if (cell := cells[slot]) is None else cell.sequence)
    slot = order[-1] if newest else order[0]
    os.pwrite(fd, os.urandom(24), slot * _BLOCK)
    os.close(fd)


def test_after_a_kill_all_written_bytes_count(folder: PartialDirectory) -> None:
    file = create(folder, b"12345")
    append(file, b"678", settle=False)
    reopened = reopen(folder, crash(file))
    assert (reopened.offset, reopened.received) == (8, 8)
    append(reopened, b"90")
    assert body(folder, crash(reopened)) == b"1234567890"


def test_after_a_kill_bytes_beyond_the_length_do_not_count(folder: PartialDirectory) -> None:
    file = create(folder, b"12345", length=6)
    append(file, b"678", settle=False)
    reopened = reopen(folder, crash(file))
    assert reopened.offset == 6
    assert body(folder, crash(reopened)) == b"123456"


def test_after_a_kill_bytes_that_were_to_be_verified_do_not_count(folder: PartialDirectory) -> None:
    file = create(folder, b"12345")
    append(file, b"678", settle=False, unchecked=True)
    reopened = reopen(folder, crash(file))
    assert reopened.offset == 5
    append(reopened, b"abc", settle=False)
    assert body(folder, crash(reopened)) == b"12345abc"
    assert reopen(folder, reopened.upload_id).offset == 8


def test_after_a_reboot_what_a_cell_counts_is_kept_and_junk_behind_it_is_cut_off(
    folder: PartialDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = create(folder, b"12345")
    append(file, b"678", settle=False)
    upload_id = crash(file)
    with open(folder.open(upload_id, os.O_WRONLY | os.O_APPEND), "ab") as junk:
        junk.write(os.urandom(10_000))
    reboot(monkeypatch)
    status = folder.status(upload_id)
    assert status is not None
    assert status.offset == 5
    reopened = reopen(folder, upload_id)
    assert (reopened.offset, reopened.received) == (5, 5)
    assert body(folder, upload_id) == b"12345"
    append(reopened, b"abc", settle=False)  # in the new boot, a kill loses nothing
    assert reopen(folder, crash(reopened)).offset == 8


def test_after_two_reboots_bytes_of_neither_boot_count_unless_settled(
    folder: PartialDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_id = crash(create(folder, b"12345"))
    for number in (1, 2, 3):
        reboot(monkeypatch, number)
        file = reopen(folder, upload_id)
        assert file.offset == 5
        append(file, os.urandom(9), settle=False)
        crash(file)


@pytest.mark.parametrize("rebooted", [False, True])
@pytest.mark.parametrize("newest", [True, False])
def test_a_torn_cell_costs_only_what_it_counted(
    folder: PartialDirectory, monkeypatch: pytest.MonkeyPatch, newest: bool, rebooted: bool
) -> None:
    file = create(folder, b"12345")
    append(file, b"678")
    upload_id = crash(file)
    spoil(folder, upload_id, newest=newest)
    if rebooted:
        reboot(monkeypatch)
    file = reopen(folder, upload_id)
    assert file.offset == (5 if newest and rebooted else 8)
    append(file, b"9")
    spoil(folder, crash(file), newest=False)
    assert reopen(folder, upload_id).offset == file.offset


def test_a_cell_is_never_written_over_the_newest_durable_one(
    folder: PartialDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever write of a cell is lost in a power loss, the offset that was told is in the other one."""
    written: list[int] = []
    real = os.pwrite

    def pwrite(fd: int, content: bytes, offset: int) -> int:
        written.append(offset)
        return real(fd, content, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    file = create(folder, b"1")
    for number in range(6):
        written.clear()
        settled = body_slot(folder, file.upload_id)
        append(file, b"x", unchecked=number % 2 == 0)
        assert set(written) == {(1 - settled) * _BLOCK}
    for _ in range(3):
        file = reopen(folder, crash(file))
        settled = body_slot(folder, file.upload_id)
        written.clear()
        append(file, b"x", settle=False, unchecked=True)
        assert set(written) <= {(1 - settled) * _BLOCK}


def body_slot(folder: PartialDirectory, upload_id: str) -> int:
    """Return the slot of the newest cell that counts the settled bytes."""
    fd = folder.open(upload_id + ".at", os.O_RDONLY)
    cells = {
        slot: partial_cells.decode(os.pread(fd, partial_cells._SIZE, slot * _BLOCK)) for slot in (0, 1)
    }
    os.close(fd)
    settled = {slot: cell.sequence for slot, cell in cells.items() if cell and not cell.unchecked}
    return max(settled, key=lambda slot: settled[slot])


def test_a_length_survives_a_kill_and_a_reboot(
    folder: PartialDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = create(folder, b"12345", length=None)
    file.begin(unchecked=True)
    file.set_length(7)
    file.write([b"67"])
    upload_id = crash(file)
    reopened = reopen(folder, upload_id)
    assert (reopened.offset, reopened.length) == (5, 7)
    crash(reopened)
    reboot(monkeypatch)
    assert reopen(folder, upload_id).length == 7


def test_bytes_that_the_disk_lost_are_not_told(
    folder: PartialDirectory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    upload_id = crash(create(folder, b"12345"))
    os.truncate(f"/proc/self/fd/{folder.fd}/{upload_id}", 3)
    reboot(monkeypatch)
    status = folder.status(upload_id)
    assert status is not None
    assert status.offset == 3
    assert reopen(folder, upload_id).offset == 3
    assert "lost" in caplog.text


def test_without_syncs_a_reboot_keeps_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = PartialDirectory(tmp_path / "partials", durable=False)
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    monkeypatch.setattr(os, "fsync", synced.append)
    upload_id = crash(create(folder, b"12345"))
    file = reopen(folder, upload_id)
    assert file.offset == 5
    assert synced == []
    for cells in (b"", os.urandom(52)):
        crash(file)
        with open(folder.open(upload_id + ".at", os.O_WRONLY | os.O_TRUNC), "wb") as lost:
            lost.write(cells)
        reboot(monkeypatch)
        file = reopen(folder, upload_id)
        assert file.offset == 0


def test_what_could_not_be_synced_never_counts(
    folder: PartialDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel drops dirty pages after an error, and takes them for written."""
    file = create(folder, b"12345")
    file.begin(unchecked=False)
    file.write([b"678"])

    def broken(_: int) -> None:
        raise OSError(errno.EIO, "the disk is dying")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", broken)
        with pytest.raises(OSError, match="dying"):
            file.settle()
    assert (file.offset, file.received) == (5, 5)
    append(file, b"abc")
    assert body(folder, crash(file)) == b"12345abc"


def test_a_full_disk_keeps_what_came_before(
    folder: PartialDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = create(folder, b"12345")
    file.begin(unchecked=False)
    file.write([b"678"])

    def full(fd: int, pieces: Any) -> int:
        os.write(fd, b"half")
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patched:
        patched.setattr(partial_files, "write_all", full)
        with pytest.raises(Refusal) as caught:
            file.write([b"half of it"])
    assert caught.value.code == "no_space"
    assert file.settle() == 8
    append(file, b"9")
    assert body(folder, crash(file)) == b"123456789"


def test_a_closed_one_takes_nothing(folder: PartialDirectory) -> None:
    file = create(folder)
    file.close()
    file.close()
    for use in (lambda: file.write([b"x"]), file.settle, lambda: file.begin(unchecked=False)):
        with pytest.raises(OSError, match="closed"):
            use()


def test_who_waits_for_the_lock_of_one_that_is_removed_finds_none(folder: PartialDirectory) -> None:
    file = create(folder)
    waiting = folder.open(file.upload_id + ".at", os.O_RDWR)
    file.remove()
    fcntl.flock(waiting, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(waiting)
    assert open_partial(folder, file.upload_id) is None
    assert list(folder.names()) == ["identities"]


def test_a_creation_waits_for_a_sweep_that_took_its_lock_and_begins_again(
    folder: PartialDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, swept = fcntl.flock, False

    def flock(fd: int, mode: int) -> None:
        nonlocal swept
        if not swept:
            swept = True
            assert folder.remove_rests() == 1
        real(fd, mode)

    monkeypatch.setattr(fcntl, "flock", flock)
    file = create(folder, b"1")
    assert swept
    assert folder.remove_rests() == 0
    assert reopen(folder, crash(file)).offset == 1


def test_the_file_has_the_mode_of_published_ones(folder: PartialDirectory) -> None:
    file = create_partial(folder, partial_head(length=1), 0o664, 0o027)
    status = folder.stat(file.upload_id)
    assert status is not None
    assert status.st_mode & 0o777 == 0o664


def test_a_body_that_is_committed_is_moved_and_taken_back(
    folder: PartialDirectory, incoming: IncomingDirectory
) -> None:
    file = create(folder, b"12345", length=5)
    upload_id = file.upload_id
    moved = file.move_to(incoming, b"{}")
    assert (moved.size, list(incoming.upload_ids())) == (5, [upload_id])
    moved.truncate()  # the rows cannot be deleted now: every byte stays
    assert incoming.stat(upload_id).st_size == 5
    status = folder.status(upload_id)
    assert status is not None
    assert status.is_whole
    crash(file)
    with pytest.raises(PartialCommittingError):
        open_partial(folder, upload_id)
    assert folder.remove_rests() == 0
    assert remove_idle(folder, upload_id) is None
    assert incoming.withdraw(upload_id)
    assert incoming.withdraw(upload_id)  # as recovery may do again
    assert list(incoming.upload_ids()) == []
    file = reopen(folder, upload_id)
    assert (file.offset, body(folder, upload_id)) == (5, b"12345")
    file.move_to(incoming, None).discard()
    append(file, b"")
    assert body(folder, crash(file)) == b"12345"


def test_a_body_that_could_not_be_taken_back_is_committed_from_where_it_is(
    folder: PartialDirectory, incoming: IncomingDirectory
) -> None:
    file = create(folder, b"12345", length=5)
    file.move_to(incoming, None)
    assert file.move_to(incoming, None).finalize(durable=True).size == 5
    incoming.remove(file.upload_id)
    with pytest.raises(FileNotFoundError):
        file.move_to(incoming, None)


def test_a_move_that_cannot_be_synced_is_undone(
    folder: PartialDirectory, incoming: IncomingDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = create(folder, b"12345", length=5)

    def broken() -> None:
        raise OSError(errno.EIO, "the disk is dying")

    with monkeypatch.context() as patched:
        patched.setattr(incoming, "sync", broken)
        with pytest.raises(OSError, match="dying"):
            file.move_to(incoming, None)
    assert list(incoming.upload_ids()) == []
    assert reopen(folder, crash(file)).offset == 5


def test_parts_are_copied_where_the_file_system_cannot_share_them(
    folder: PartialDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: Any) -> int:
        raise OSError(errno.EXDEV, "another file system")

    part, whole = create(folder, b"12345"), create(folder, b"ab")
    monkeypatch.setattr(os, "copy_file_range", unsupported)
    assert whole.copy(part, 1, 3) == 3
    assert whole.settle() == 5
    append(whole, b"cd")
    assert body(folder, whole.upload_id) == b"ab234cd"
    with pytest.raises(OSError, match="shorter"):
        whole.copy(part, 5, 1)


def test_an_open_one_is_not_removed_and_an_idle_one_is(folder: PartialDirectory) -> None:
    file = create(folder, b"1")
    with pytest.raises(PartialLockedError):
        folder.lock(file.upload_id)
    assert remove_idle(folder, file.upload_id) is None
    file.close()
    assert remove_idle(folder, file.upload_id, time.time() + 9) is None
    removed = remove_idle(folder, file.upload_id)
    assert removed is not None
    assert removed.head == file.head
    assert list(folder.names()) == ["identities"]
    assert remove_idle(folder, file.upload_id) is None
