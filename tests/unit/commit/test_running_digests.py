"""Digests that go on from one request to the next one are used for exactly the bytes they are of."""

from __future__ import annotations

import hashlib

import pytest

from gateway.commit import running_digests
from gateway.commit.running_digests import RunningDigests


def test_digests_go_on_where_they_were_left() -> None:
    digests = RunningDigests()
    taken = digests.take("u", 0, ["sha256"])
    taken["sha256"].update(b"abc")
    digests.keep("u", 3, taken)
    assert digests.take("u", 3, ["sha256"])["sha256"].digest() == hashlib.sha256(b"abc").digest()
    assert digests.take("u", 3, ["sha256"]) == {}  # they are in use


@pytest.mark.parametrize("size", [2, 4])
def test_digests_of_other_bytes_are_forgotten(size: int) -> None:
    digests = RunningDigests()
    digests.keep("u", 3, digests.take("u", 0, ["sha256"]))
    assert digests.take("u", size, ["sha256"]) == {}


def test_nothing_is_computed_that_is_not_asked_for() -> None:
    digests = RunningDigests()
    assert digests.take("u", 0, []) == {}
    digests.keep("u", 3, {})
    assert digests.take("u", 3, ["sha256"]) == {}


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_digests, "MAX_KEPT", 2)
    digests = RunningDigests()
    for upload_id in "abc":
        digests.keep(upload_id, 1, digests.take(upload_id, 0, ["md5"]))
    assert [bool(digests.take(upload_id, 1, ["md5"])) for upload_id in "abc"] == [False, True, True]
