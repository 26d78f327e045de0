"""The bodies that are sent, as files, and the comparison of what was stored with them."""

from __future__ import annotations

from pathlib import Path

BLOCK = 1 << 20

WARM_UP_BYTES = 32 * BLOCK
"""Bytes of the body that warms a server up."""


def make_source(path: Path, size: int) -> Path:
    """Write `size` bytes, a multiple of 1 MiB, of which no two blocks are the same."""
    noise = random_block()
    with path.open("wb") as file:
        for number in range(size // BLOCK):
            file.write(number.to_bytes(8, "big") + noise[8:])
    return path


def part_of(source: Path) -> Path:
    """Return a short file beside `source`, or `source` where it is short itself."""
    if source.stat().st_size <= WARM_UP_BYTES:
        return source
    part = source.with_name("warm-up")
    return part if part.exists() else make_source(part, WARM_UP_BYTES)


def random_block() -> bytes:
    """Return 1 MiB of noise."""
    with open("/dev/urandom", "rb") as file:
        return file.read(BLOCK)


def same(first: Path, second: Path) -> bool:
    """Return whether two files have the same content."""
    with first.open("rb") as left, second.open("rb") as right:
        while block := left.read(BLOCK):
            if block != right.read(BLOCK):
                return False
        return not right.read(1)
