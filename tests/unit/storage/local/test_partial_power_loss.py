"""Random lives of a partial upload under kills and power losses, against a model of the disk.

The model knows which bytes were synced. At a power loss a cell that was not may have its old content,
its new one, or junk, and the body any length from the synced one on, with junk. No offset that was told
may fall, and the bytes in front of it are those that were sent.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.storage.local import partial_cells
from gateway.storage.local.partial_directory import PartialDirectory
from gateway.storage.local.partial_files import PartialFile
from gateway.storage.local.partial_opening import create_partial, open_partial
from tests.support.partials import partial_head

BLOCK = 4096
CELL = 52
STEPS = 100


class LossyDisk:
    """A partial upload on a disk that keeps for sure only what was synced."""

    def __init__(self, folder: Path, chance: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
        self.chance = chance
        self.path = folder / "partials"
        self.synced: dict[int, bytes] = {}
        self.boot = 1
        monkeypatch.setattr(os, "fdatasync", self.sync)
        monkeypatch.setattr(os, "fsync", self.sync)
        monkeypatch.setattr(partial_cells, "boot_id", lambda: self.boot.to_bytes(16, "big"))
        self.folder = PartialDirectory(self.path)
        self.sent = bytearray()
        self.told = 0
        self.length: int | None = None
        self.checked: int | None = None
        """Where a request began that is to be verified: nothing of it may count."""
        self.file = create_partial(self.folder, partial_head(length=None), 0o640, 0o022)
        self.upload_id = self.file.upload_id

    def sync(self, fd: int) -> None:
        """Keep the content of a file."""
        status = os.fstat(fd)
        if os.path.isfile(f"/proc/self/fd/{fd}"):
            self.synced[status.st_ino] = Path(f"/proc/self/fd/{fd}").read_bytes()

    def tell(self, offset: int) -> None:
        """Tell the client an offset, which must never fall, and whose bytes are those sent."""
        assert offset >= self.told
        assert offset <= len(self.sent)
        assert (self.path / self.upload_id).read_bytes()[:offset] == self.sent[:offset]
        self.told = offset

    def kill(self) -> None:
        """End the process: what was written is in the page cache."""
        self.file._close()
        self.folder.close()
        self.folder = PartialDirectory(self.path)

    def lose_power(self) -> None:
        """Start the machine again: what was not synced may be anything."""
        self.kill()
        self.boot += 1
        self._lose_body(self.path / self.upload_id)
        self._lose_cells(self.path / f"{self.upload_id}.at")

    def _lose_body(self, path: Path) -> None:
        kept, current = self.synced.get(path.stat().st_ino, b""), path.read_bytes()
        if len(current) > len(kept):
            end = self.chance.randint(len(kept), len(current))
            rest = self.chance.choice([current[len(kept) : end], os.urandom(end - len(kept))])
            path.write_bytes(kept + rest)

    def _lose_cells(self, path: Path) -> None:
        kept, current = self.synced[path.stat().st_ino], path.read_bytes()
        content = bytearray(max(kept, current, key=len).ljust(BLOCK + CELL, b"\0"))
        for start in (0, BLOCK):
            old, new = (cells[start : start + CELL].ljust(CELL, b"\0") for cells in (kept, current))
            if old != new:
                torn = self.chance.randint(0, CELL)
                choices = [old, new, new[:torn] + old[torn:], os.urandom(CELL)]
                content[start : start + CELL] = self.chance.choice(choices)
        path.write_bytes(content)
        self.synced[path.stat().st_ino] = bytes(content)

    def reopen(self) -> None:
        """Open it again, as the next request does, maybe of another process."""
        file = open_partial(self.folder, self.upload_id)
        assert file is not None
        assert file.offset == file.received
        self.file = file
        assert self.checked in {None, file.offset}
        self.checked = None
        assert file.length == self.length
        del self.sent[file.offset :]
        self.tell(file.offset)

    def append(self, *, unchecked: bool, ends: str) -> None:
        """Append some bytes in some writes, and settle, revert or leave them."""
        file: PartialFile = self.file
        self.checked = file.offset if unchecked and ends == "leave" else None
        file.begin(unchecked=unchecked)
        for _ in range(self.chance.randint(0, 3)):
            piece = self.chance.randbytes(self.chance.choice([1, 10, 5000]))
            self.sent += piece
            file.write([piece])
        if ends == "settle":
            self.tell(file.settle())
        elif ends == "revert":
            file.revert()
            del self.sent[file.offset :]
            self.tell(file.offset)

    def set_length(self) -> None:
        self.length = len(self.sent) + 1_000_000
        self.file.set_length(self.length)

    def ask(self) -> None:
        """Ask for the offset from another process, while a request may have the upload open."""
        other = PartialDirectory(self.path)
        status = other.status(self.upload_id)
        other.close()
        assert status is not None
        assert self.told <= status.offset <= len(self.sent)
        self.told = status.offset

    def step(self) -> None:
        """Let one thing happen."""
        match self.chance.randrange(9):
            case 0 | 1 | 2:
                self.append(unchecked=self.chance.random() < 0.4, ends="settle")
            case 3:
                self.append(unchecked=self.chance.random() < 0.4, ends="revert")
            case 4:
                self.file.close()
                self.reopen()
            case 5:
                self.ask()
            case 6 if self.length is None and self.chance.random() < 0.3:
                self.set_length()
            case 7:
                self.append(unchecked=self.chance.random() < 0.5, ends="leave")
                self.ask()
                self.kill()
                self.reopen()
            case 8:
                self.append(unchecked=self.chance.random() < 0.5, ends="leave")
                self.lose_power()
                self.reopen()


@pytest.fixture(params=range(12))
def disk(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LossyDisk]:
    opened = LossyDisk(tmp_path, random.Random(request.param), monkeypatch)
    yield opened
    opened.file.close()
    opened.folder.close()


def test_no_told_offset_falls(disk: LossyDisk) -> None:
    for _ in range(STEPS):
        disk.step()
    disk.append(unchecked=False, ends="settle")
    assert (disk.path / disk.upload_id).read_bytes() == disk.sent
