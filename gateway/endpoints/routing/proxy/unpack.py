"""Unpacks bodies for scripts that read them: those of requests, and those of upstreams' responses.

Bounded: a body of a few bytes can unpack to gigabytes.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable
from typing import Any, Final, Protocol

MAX_CODINGS: Final = 3
"""Codings on top of each other; each is unpacked on its own."""

MAX_MEMBERS: Final = 1024
"""Members of one gzip body: each needs a decompressor of its own, even if it has no content."""

PIECE_BYTES: Final = 64 << 10
"""Bytes that a decompressor gets at a time: it copies what is left of them at each end of a member."""


class UnpackError(ValueError):
    """A body cannot be unpacked: `str()` completes "the body is ..."."""


class UnsupportedCodingError(UnpackError):
    """Its coding is unknown, or the library for it is not installed."""


class TooLargeError(UnpackError):
    """It is larger than the limit once it is unpacked."""


class _Decompressor(Protocol):
    """A decompressor, as `zlib` and the module of Zstandard have it."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...


def codings(content_encoding: str) -> list[str]:
    """Return the codings of a `Content-Encoding` in the order in which they were applied."""
    names = (name.strip().lower() for name in content_encoding.split(","))
    return [name for name in names if name not in {"", "identity"}]


def unpack(body: bytes, content_encoding: str, limit: int) -> bytes:
    """Return `body` without its codings (RFC 9110 section 8.4.1).

    Raises `UnpackError`, one of its subclasses unless the body is damaged.
    """
    names = codings(content_encoding)
    if len(names) > MAX_CODINGS:
        raise UnsupportedCodingError(f"packed more than {MAX_CODINGS} times")
    for name in reversed(names):
        if body:  # a response to HEAD names a coding without having a body
            body = _unpack_one(body, name, limit)
    return body


def _unpack_one(body: bytes, coding: str, limit: int) -> bytes:
    make = _decompressors(coding, body)
    stream, members, unpacked = make(), 1, bytearray()
    for start in range(0, len(body), PIECE_BYTES):
        piece = body[start : start + PIECE_BYTES]
        while piece:
            if stream.eof:
                piece = piece.lstrip(b"\0")  # padding between members
                members += bool(piece)
                stream = make() if piece else stream
            try:
                unpacked += stream.decompress(piece, limit + 1 - len(unpacked)) if piece else b""
            except Exception as error:  # each library has exceptions of its own
                raise _damaged(coding) from error
            if len(unpacked) > limit:
                raise TooLargeError(f"larger than {limit} bytes when unpacked")
            if members > MAX_MEMBERS:
                raise _damaged(coding)
            piece = stream.unused_data if stream.eof and piece else b""
    if not stream.eof:
        raise _damaged(coding)
    return bytes(unpacked)


def _damaged(coding: str) -> UnpackError:
    return UnpackError(f"packed as {coding} and damaged")


def _decompressors(coding: str, body: bytes) -> Callable[[], _Decompressor]:
    """Return what makes a decompressor. Raises `UnsupportedCodingError`."""
    match coding:
        case "gzip" | "x-gzip":
            return lambda: zlib.decompressobj(16 + zlib.MAX_WBITS)
        case "deflate":
            # RFC 9110 section 8.4.1.2: some send it without the zlib header that it should have.
            has_header = len(body) > 1 and body[0] & 15 == 8 and not (body[0] << 8 | body[1]) % 31
            bits = zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS
            return lambda: zlib.decompressobj(bits)
        case "br" if (module := _module("brotli")) is not None:
            return lambda: _Brotli(module.Decompressor())
        case "zstd" if (module := _module("compression.zstd", "backports.zstd")) is not None:
            return module.ZstdDecompressor  # type: ignore[no-any-return]  # a library that may be missing
    raise UnsupportedCodingError(f"packed as {coding!r:.40}, which cannot be unpacked here")


class _Brotli:
    """A decompressor of the package `brotli` (1.2 or later: older ones cannot be bounded)."""

    unused_data: Final = b""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return bytes(self._stream.process(data, output_buffer_limit=max_length))

    @property
    def eof(self) -> bool:
        return bool(self._stream.is_finished())


def _module(*names: str) -> Any:
    """Return the first of these modules that is installed, or None."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None
