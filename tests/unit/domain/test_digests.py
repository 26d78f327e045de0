"""Digests of the standard library, computed piece by piece."""

from __future__ import annotations

import hashlib
import zlib

import pytest

from gateway.domain.digests import SIZES, new_digest

PIECES = (b"precious ", memoryview(b"bytes"), b"")
BODY = b"precious bytes"


@pytest.mark.parametrize("name", SIZES)
def test_a_digest_of_pieces_is_that_of_the_whole(name: str) -> None:
    digest = new_digest(name)
    for piece in PIECES:
        digest.update(piece)
    checksums = {"crc32": zlib.crc32(BODY), "adler32": zlib.adler32(BODY)}
    expected = (
        checksums[name].to_bytes(4, "big")
        if name in checksums
        else hashlib.new(name, BODY, usedforsecurity=False).digest()
    )
    assert digest.digest() == expected
    assert len(expected) == SIZES[name]
    assert len(new_digest(name).digest()) == SIZES[name]
