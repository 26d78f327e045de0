"""Digests whose state can be saved: a body may come in several requests, to several processes.

`hashlib` cannot save one (its objects cannot be pickled). OpenSSL's own functions can: their contexts
are plain memory without pointers (openssl/sha.h, openssl/md5.h), alike on all 64-bit little-endian
machines. They are called in the library that `hashlib` uses. A Python that has OpenSSL inside itself
may hide them: then only checksums can be saved. Pure.
"""

from __future__ import annotations

import ctypes
import functools
import struct
import sys
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

from gateway.domain.digests import CHECKSUMS, SIZES, RunningDigest, new_digest

_MAX_CONTEXT: Final = 256
"""Bytes, more than every context has."""


class _Functions(NamedTuple):
    """How OpenSSL names the functions of a digest; bytes of its context and of a block of its input.

    `pending` is where the context has the number of bytes that wait for a whole block, as an unsigned
    int; SHA-2 has the length of the result behind it.
    """

    name: str
    context: int
    block: int
    pending: int


_OPENSSL: Final[Mapping[str, _Functions]] = {
    "sha256": _Functions("SHA256", 112, 64, 104),
    "sha512": _Functions("SHA512", 216, 128, 208),
    "sha1": _Functions("SHA1", 96, 64, 92),
    "md5": _Functions("MD5", 92, 64, 88),
}


class SavedDigest(RunningDigest, Protocol):
    """A running digest that can be continued elsewhere."""

    def save(self) -> bytes:
        """Return the state, for `load_digest`."""


def load_digest(name: str, state: bytes = b"") -> SavedDigest:
    """Return the digest `name` of `digests.SIZES`, of no bytes yet, or as `state` was saved.

    Raises `ValueError` where `can_save` says no, or as `check_saved` does.
    """
    if not can_save(name):
        raise ValueError(f"the state of {name} cannot be saved here")
    if state:
        check_saved(name, state)
    return _SavedChecksum(name, state) if name in CHECKSUMS else _SavedHash(name, state)


def check_saved(name: str, state: bytes) -> None:
    """Raise `ValueError` for what is no state of the digest `name`.

    It may come from a bucket, into which others write: OpenSSL trusts its contexts, and would write
    outside of its memory for a wrong number of pending bytes.
    """
    if name in CHECKSUMS:
        if len(state) != SIZES[name]:
            raise ValueError("the saved state of a digest has another length")
        return
    functions = _OPENSSL[name]
    if len(state) != functions.context:
        raise ValueError("the saved state of a digest has another length")
    counts = state[functions.pending :]
    pending, *length = struct.unpack(f"<{len(counts) // 4}I", counts)
    if pending >= functions.block or any(size != SIZES[name] for size in length):
        raise ValueError("the saved state of a digest is damaged")


@functools.cache
def can_save(name: str) -> bool:
    """Tell whether the state of a digest can be saved here: it is tried, on a known result."""
    if name in CHECKSUMS:
        return True
    if name not in _OPENSSL or sys.byteorder != "little" or ctypes.sizeof(ctypes.c_long) != 8:
        return False
    expected, state = new_digest(name), b""
    try:
        for piece in (b"a" * 77, b"b" * 1000):
            expected.update(piece)
            saved = _SavedHash(name, state)
            saved.update(piece)
            state = saved.save()
        return _SavedHash(name, state).digest() == expected.digest()
    except (ImportError, OSError, AttributeError):
        return False


class _SavedChecksum:
    def __init__(self, name: str, state: bytes) -> None:
        self._size = SIZES[name]
        self._advance, first = CHECKSUMS[name]
        self._value = int.from_bytes(state, "big") if state else first

    def update(self, data: bytes | memoryview, /) -> None:
        self._value = self._advance(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")

    save = digest


class _SavedHash:
    """Other threads run while it takes bytes, as with `hashlib`."""

    def __init__(self, name: str, state: bytes) -> None:
        self._size = SIZES[name]
        self._functions = _OPENSSL[name]
        self._context = ctypes.create_string_buffer(state, _MAX_CONTEXT)
        if not state:
            self._call("Init", self._context)

    def update(self, data: bytes | memoryview, /) -> None:
        octets = data if isinstance(data, bytes) else bytes(data)
        self._call("Update", self._context, octets, ctypes.c_size_t(len(octets)))

    def digest(self) -> bytes:
        copied = ctypes.create_string_buffer(self._context.raw, _MAX_CONTEXT)
        result = ctypes.create_string_buffer(self._size)
        self._call("Final", result, copied)
        return result.raw

    def save(self) -> bytes:
        return self._context.raw[: self._functions.context]

    def _call(self, operation: str, *arguments: Any) -> None:
        getattr(_openssl(), f"{self._functions.name}_{operation}")(*arguments)


@functools.cache
def _openssl() -> ctypes.CDLL:
    """Return the library of `hashlib`. Raises `ImportError`, `OSError` where there is none."""
    import _hashlib

    return ctypes.CDLL(_hashlib.__file__)
