"""Plugin s3-forward: a file in equal parts, each with its digests, as S3 takes it.

Nothing is read or hashed on an event loop, and no part is held in memory, however large the file.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

MIB: Final = 1 << 20
MIN_PART_BYTES: Final = 5 * MIB
MAX_PART_BYTES: Final = 5 << 30
MAX_PARTS: Final = 10_000
"""What S3 takes: parts of 5 MiB to 5 GiB, at most 10,000 of them (Amazon S3 multipart limits)."""

CHUNK: Final = MIB
"""Bytes of a part that are in memory at once."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes `offset` to `offset + size` of the file, number `number` (from 1)."""

    number: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Digests:
    """The two digests of some bytes, raw."""

    md5: bytes
    sha256: bytes


def part_size_for(size: int, wanted: int) -> int:
    """Return `wanted`, or the smallest whole number of MiB with which `size` bytes are 10,000 parts."""
    needed = -(-size // MAX_PARTS)
    return wanted if wanted >= needed else -(-needed // MIB) * MIB


def base64(raw: bytes) -> str:
    """Return bytes as base64 text, as S3 headers have them."""
    return b64encode(raw).decode()


class Source:
    """An open file of `size` bytes, to be sent in parts of `part_size`; the last one may be shorter."""

    def __init__(self, fd: int, size: int, part_size: int) -> None:
        self.size = size
        self.parts = [
            Part(number, offset, min(part_size, size - offset))
            for number, offset in enumerate(range(0, size, part_size) if size else (0,), start=1)
        ]
        self._fd = fd
        self._digests: dict[int, Digests] = {}

    @property
    def in_one(self) -> bool:
        """Whether the file is one part, sent by a plain PUT."""
        return len(self.parts) == 1

    def body(self, part: Part) -> Body:
        """Return a part as a request body."""
        return Body(self._fd, part)

    async def digests(self, part: Part) -> Digests:
        """Return the digests of a part; computed once, in a thread. Raises `OSError`."""
        if part.number not in self._digests:
            self._digests[part.number] = await asyncio.to_thread(_hash, self._fd, part)
        return self._digests[part.number]

    async def has_etag(self, etag: str) -> bool:
        """Tell whether an object with this ETag has the bytes of the file.

        It is the MD5 of the bytes, or for a multipart upload that of the parts' MD5s and their
        number (Amazon S3); some servers give the MD5 of the bytes for these too.
        """
        etag = etag.strip('"')
        if "-" in etag:
            return etag == await self._parts_etag()
        return etag == (await asyncio.to_thread(_hash, self._fd, Part(1, 0, self.size))).md5.hex()

    async def _parts_etag(self) -> str:
        found = [(await self.digests(part)).md5 for part in self.parts]
        whole = hashlib.md5(b"".join(found), usedforsecurity=False)
        return f"{whole.hexdigest()}-{len(found)}"

    async def sha256(self) -> str:
        """Return `x-amz-checksum-sha256`: the SHA-256, or that of the parts' SHA-256s, in base64."""
        found = [(await self.digests(part)).sha256 for part in self.parts]
        return base64(found[0] if self.in_one else hashlib.sha256(b"".join(found)).digest())


class Body:
    """A part as the body of a request. It can be sent again: `seek(0)` starts over."""

    def __init__(self, fd: int, part: Part) -> None:
        self._fd = fd
        self._part = part
        self._sent = 0

    def tell(self) -> int:
        """Return how many bytes have been read."""
        return self._sent

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to another place of the part."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._sent, os.SEEK_END: self._part.size}[whence]
        self._sent = start + offset
        return self._sent

    async def read(self, amount: int = -1) -> bytes:
        """Read up to `amount` bytes, never more than `CHUNK`. Raises `OSError`."""
        rest = min(self._part.size - self._sent, CHUNK)
        wanted = rest if amount < 0 else min(amount, rest)
        chunk = await asyncio.to_thread(_read, self._fd, wanted, self._part.offset + self._sent)
        self._sent += len(chunk)
        return chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield what has not been read yet."""
        while chunk := await self.read():
            yield chunk


def _read(fd: int, amount: int, offset: int) -> bytes:
    chunk = os.pread(fd, amount, offset)
    if amount and not chunk:
        raise OSError(f"the file ends at byte {offset}: it was truncated")
    return chunk


def _hash(fd: int, part: Part) -> Digests:
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    done = 0
    while done < part.size:
        chunk = _read(fd, min(CHUNK, part.size - done), part.offset + done)
        md5.update(chunk)
        sha256.update(chunk)
        done += len(chunk)
    return Digests(md5.digest(), sha256.digest())
