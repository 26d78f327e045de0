"""Digests that are saved and loaded between the pieces of a body."""

from __future__ import annotations

import os
import struct

import pytest

from gateway.domain.digests import SIZES, new_digest
from gateway.domain.saved_digests import can_save, load_digest

PIECES = (b"", b"a" * 63, b"b", os.urandom(100_000), b"c" * 129)


@pytest.mark.parametrize("name", sorted(SIZES))
def test_a_digest_that_is_saved_after_every_piece_is_that_of_the_whole(name: str) -> None:
    assert can_save(name)
    known, state = new_digest(name), b""
    for piece in PIECES:
        known.update(piece)
        digest = load_digest(name, state)
        digest.update(memoryview(piece))
        assert digest.digest() == digest.digest() == known.digest()  # telling it changes nothing
        state = digest.save()
        assert load_digest(name, state).digest() == known.digest()


@pytest.mark.parametrize("name", sorted(SIZES))
def test_a_state_of_another_length_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="another length"):
        load_digest(name, load_digest(name).save() + b"x")


@pytest.mark.parametrize("name", ["sha256", "sha512", "sha1", "md5"])
@pytest.mark.parametrize("pending", [128, 1 << 31, (1 << 32) - 1])
def test_a_state_that_would_write_outside_of_its_memory_is_refused(name: str, pending: int) -> None:
    digest = load_digest(name)
    digest.update(b"a" * 1000)
    state = digest.save()
    size = 8 if name.startswith(("sha256", "sha512")) else 4  # SHA-2 has the length of its result last
    damaged = state[:-size] + struct.pack("<I", pending) + state[len(state) - size + 4 :]
    with pytest.raises(ValueError, match="damaged"):
        load_digest(name, damaged)


def test_a_digest_that_is_not_known_cannot_be_saved() -> None:
    assert not can_save("sha3_256")
    with pytest.raises(ValueError, match="cannot be saved"):
        load_digest("sha3_256")
