"""Digests of the standard library, computed piece by piece."""

from __future__ import annotations

import hashlib
import zlib

import pytest

from gateway.domain.digests import SIZES, algorithms_of, digest_field, named_digests, new_digest

PIECES = (b"precious ", memoryview(b"bytes"), b"")
BODY = b"precious bytes"


@pytest.mark.parametrize("name", SIZES)
def test_a_digest_of_pieces_is_that_of_the_whole(name: str) -> None:
    digest = new_digest(name)
    for piece in PIECES:
        digest.update(piece)
    checksums = {"crc32": zlib.crc32(BODY), "adler32": zlib.adler32(BODY)}
    checksums |= {"crc32c": 0x11E03C0F, "crc64nvme": 0xAA6211BA1ACD366F}  # computed bit by bit
    expected = (
        checksums[name].to_bytes(SIZES[name], "big")
        if name in checksums
        else hashlib.new(name, BODY, usedforsecurity=False).digest()
    )
    assert digest.digest() == expected
    assert len(expected) == SIZES[name]
    assert len(new_digest(name).digest()) == SIZES[name]


def test_an_upload_computes_what_its_client_declared_and_what_the_setting_says() -> None:
    assert algorithms_of(["md5", "md5"], "sha256") == ["md5", "sha256"]
    assert algorithms_of(["sha256"], "sha256") == ["sha256"]
    assert algorithms_of([], None) == []


def test_digests_without_a_name_in_rfc_9530_are_not_told() -> None:
    named = named_digests({"md5": b"\0" * 16, "crc32": b"\0" * 4, "sha1": b"\0" * 20})
    assert digest_field(named) == "md5=:AAAAAAAAAAAAAAAAAAAAAA==:, sha=:AAAAAAAAAAAAAAAAAAAAAAAAAAA=:"
