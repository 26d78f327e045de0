"""Partial uploads that count: from their creation to their end, whichever process that comes to."""

from __future__ import annotations

import pytest

from gateway.errors import Refusal
from tests.support.committer import CommitterHarness
from tests.support.counted_committer import BOTH, KEY, Counted, head


@pytest.fixture
async def counted(harness: CommitterHarness) -> Counted:
    return Counted(harness)


async def test_a_partial_upload_counts_until_it_is_removed(counted: Counted) -> None:
    opened = await counted.store.create(head(counted.upload("/a")))
    await opened.begin(None)
    await opened.write(b"x" * 600)
    with pytest.raises(Refusal):
        await counted.put("/b", b"x" * 401)
    with pytest.raises(Refusal, match="this upload has 1001 B"):
        await opened.set_length(1001)
    await opened.set_length(900)
    assert counted.usage() == {KEY: (900, 1)}
    assert await opened.remove()
    assert (counted.usage(), counted.reserved()) == ({}, 0)


async def test_who_commits_an_upload_settles_it(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted.restart(BOTH, slot=1)
    created = await counted.store.create(head(counted.upload("/a", 3)))
    await created.close()
    counted.restart(BOTH, slot=0)
    opened = await counted.store.open(created.head.upload.id)
    await opened.begin(3)
    await opened.write(b"123")
    await opened.finish()
    await opened.settle()
    with monkeypatch.context() as patched:  # killed before it is settled
        patched.setattr(type(counted.quotas), "settle", killed)
        with pytest.raises(Killed):
            await opened.commit({})
    counted.restart(BOTH, slot=1)
    assert await counted.recovery.settle_all() == 0
    assert counted.reserved() == 1
    counted.restart(BOTH, slot=0)
    assert await counted.recovery.settle_all() == 1
    assert (counted.usage(), counted.reserved()) == ({KEY: (3, 1)}, 0)


class Killed(BaseException):
    """The process is no more."""


async def killed(*_: object) -> None:
    raise Killed


async def test_parts_of_a_file_count_once_they_are_joined(counted: Counted) -> None:
    parts = []
    for name in "ab":
        part = head(counted.upload(f"/{name}", 400), part_of_concat=True)
        opened = await counted.store.create(part)
        await opened.begin(400)
        await opened.write(b"x" * 400)
        await opened.finish()
        await opened.settle()
        parts.append(opened)
    assert counted.usage() == {}
    whole = await counted.store.create(head(counted.upload("/whole", 800)))
    assert counted.usage() == {KEY: (800, 1)}
    await whole.append_parts(parts)
    for part_opened in parts:
        await part_opened.remove()
    stored = await whole.commit({})
    assert (stored.bytes, counted.usage(), counted.reserved()) == (800, {KEY: (800, 1)}, 0)
