"""The offset of a partial upload, in two cells of a file that are written in turn.

A cell is written into the block that does not hold the newest durable one, and only after what it counts
is durable. So a power loss, or a torn write, costs the cell that was being written and never an offset
that was told. Each cell is in a block of its own: no write of a device touches both. Blocking.
"""

from __future__ import annotations

import os
import struct
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

_FORMAT: Final = struct.Struct("<QQQII16s")
_CHECKSUM: Final = struct.Struct("<I")
_SIZE: Final = _FORMAT.size + _CHECKSUM.size
_BLOCK: Final = 4096
_UNKNOWN_LENGTH: Final = (1 << 64) - 1
MAX_APPENDS: Final = (1 << 32) - 1
_UNCHECKED: Final = 1
"""Flag: the bytes behind the offset are of a request that is to be verified before any of it counts."""

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Cell(NamedTuple):
    """What counts: `offset` durable bytes, of `length` ones (None: not known), that came in `appends`.

    `boot` is the boot in which bytes behind the offset were written: within it the page cache has them.
    """

    offset: int
    length: int | None
    sequence: int
    unchecked: bool
    boot: bytes
    appends: int = 0

    def encode(self) -> bytes:
        """Return the bytes of the cell, with their CRC-32."""
        length = _UNKNOWN_LENGTH if self.length is None else self.length
        flags = _UNCHECKED if self.unchecked else 0
        content = _FORMAT.pack(self.offset, length, self.sequence, flags, self.appends, self.boot)
        return content + _CHECKSUM.pack(zlib.crc32(content))


@lru_cache(maxsize=1)
def boot_id() -> bytes:
    """Return 16 bytes that name this run of the kernel; zeros where it does not tell.

    Zeros never count as the same boot: then only what is in a cell survives a kill.
    """
    try:
        return bytes.fromhex(_BOOT_ID.read_text().strip().replace("-", ""))[:16].ljust(16, b"\0")
    except (OSError, ValueError):
        return bytes(16)


def is_this_boot(cell: Cell) -> bool:
    """Tell whether a cell was written since the kernel started."""
    return cell.boot == boot_id() and any(cell.boot)


def decode(content: bytes) -> Cell | None:
    """Return a cell, None for what is none: torn, never written, or junk."""
    if len(content) != _SIZE:
        return None
    body, checksum = content[: _FORMAT.size], content[_FORMAT.size :]
    if _CHECKSUM.unpack(checksum)[0] != zlib.crc32(body):
        return None
    offset, length, sequence, flags, appends, boot = _FORMAT.unpack(body)
    declared = None if length == _UNKNOWN_LENGTH else length
    return Cell(offset, declared, sequence, bool(flags & _UNCHECKED), boot, appends)


def newest(fd: int) -> Cell | None:
    """Return the newest valid cell of a file, None where there is none. Raises `OSError`."""
    return max(_valid(fd).values(), key=lambda cell: cell.sequence, default=None)


def _valid(fd: int) -> dict[int, Cell]:
    cells = {slot: decode(os.pread(fd, _SIZE, slot * _BLOCK)) for slot in (0, 1)}
    return {slot: cell for slot, cell in cells.items() if cell is not None}


class Cells:
    """The cells of a partial upload that this process has locked; they are durable.

    `newest` is None where there is none yet.
    """

    def __init__(self, fd: int, *, durable: bool) -> None:
        self._fd = fd
        self._durable = durable
        valid = _valid(fd)
        ordered = sorted(valid, key=lambda slot: valid[slot].sequence)
        self.newest: Cell | None = valid[ordered[-1]] if ordered else None
        self._kept = ordered[-1] if ordered else 1

    def write(
        self, offset: int, length: int | None, *, unchecked: bool = False, sync: bool = True
    ) -> None:
        """Write the next cell and, with `sync`, make it durable. Raises `OSError`.

        One that is not synced is written over by the next one.
        """
        before = self.newest or Cell(0, None, 0, unchecked=False, boot=b"")
        appends = min(before.appends + (offset > before.offset), MAX_APPENDS)
        cell = Cell(offset, length, before.sequence + 1, unchecked, boot_id(), appends)
        slot = 1 - self._kept
        os.pwrite(self._fd, cell.encode(), slot * _BLOCK)
        if sync:
            if self._durable:
                os.fdatasync(self._fd)
            self._kept = slot
        self.newest = cell
