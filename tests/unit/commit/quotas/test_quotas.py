"""Quotas around a real committer and its journal: after crashes, by scans, by new settings."""

from __future__ import annotations

import asyncio
import os

import pytest

from gateway.domain.model import Stored, Upload
from gateway.errors import RecordsUnavailable, Refusal, UnknownOutcome
from tests.support.committer import CommitterHarness
from tests.support.counted_committer import BOTH, KEY, Counted, head
from tests.support.quotas import CountersInMemory


@pytest.fixture
async def counted(harness: CommitterHarness) -> Counted:
    return Counted(harness)


async def test_a_stored_upload_tells_what_is_left_and_a_refused_one_leaves_nothing(
    counted: Counted,
) -> None:
    stored = await counted.put("/few/a", b"x" * 600)
    size, day = {"limit": 1000, "left": 400}, {"limit": 5000, "left": 4400}
    assert [left.as_dict() for left in stored.quotas] == [
        {"quota": KEY, "bytes": size, "bytes_per_day": day},
        {"quota": "prefix /few/", "files": {"limit": 3, "left": 2}},
    ]
    with pytest.raises(Refusal, match="600 B of 1000 B used, this upload has 401 B"):
        await counted.put("/b", b"x" * 401)
    assert counted.usage() == {KEY: (600, 1), "prefix /few/": (600, 1)}
    assert counted.harness.stored() == {"few/a": b"x" * 600}


async def test_a_body_of_unknown_length_reserves_what_comes(counted: Counted) -> None:
    pending = await counted.writer.begin(counted.upload("/a"))
    await pending.write(b"x" * 700)
    with pytest.raises(Refusal, match="700 B of 1000 B used, this upload has 301 B"):
        await counted.writer.begin(counted.upload("/b", 301))
    assert counted.usage()[KEY] == (700, 1)
    await pending.write(b"x" * 100)
    with pytest.raises(Refusal):
        await pending.write(b"x" * 201)
    await pending.discard()
    assert counted.usage() == {}


async def test_an_upload_whose_path_a_handler_changes_counts_where_it_goes(counted: Counted) -> None:
    upload = counted.upload("/a", 5)
    pending = await counted.writer.begin(upload)
    await pending.write(b"12345")
    await pending.finish()
    upload.path = "/few/b"
    await pending.commit({}, from_client=True)
    assert counted.usage() == {KEY: (5, 1), "prefix /few/": (5, 1)}
    for name in "xy":
        await counted.put(f"/few/{name}", b"")
    full = counted.upload("/c", 5)
    pending = await counted.writer.begin(full)
    await pending.write(b"12345")
    await pending.finish()
    full.path = "/few/c"
    with pytest.raises(Refusal, match="3 of 3 files used"):
        await pending.commit({}, from_client=True)
    assert counted.harness.bodies() == []
    assert counted.usage()[KEY] == (5, 3)


async def test_after_a_crash_the_journal_says_what_is_stored(counted: Counted) -> None:
    stored = counted.upload("/few/stored", 5)
    await counted.quotas.reserve(stored, 5)
    await counted.harness.writer().store(stored, b"12345", from_client=True)
    await counted.quotas.reserve(counted.upload("/few/never", 7), 7)
    waiting = await counted.store.create(head(counted.upload("/few/waiting", 9)))
    await waiting.close()
    assert counted.usage()[KEY] == (21, 3)
    counted.restart(BOTH)
    assert await counted.recovery.settle_all() == 2
    assert counted.usage() == {KEY: (14, 2), "prefix /few/": (14, 2)}
    assert await counted.recovery.settle_all() == 0
    opened = await counted.store.open(waiting.head.upload.id)
    await opened.begin(9)
    await opened.write(b"123456789")
    await opened.finish()
    await opened.settle()
    await opened.commit({})
    assert (counted.usage()[KEY], counted.reserved()) == ((14, 2), 0)


async def test_the_first_slot_settles_what_slots_that_are_gone_have_left(counted: Counted) -> None:
    counted.restart(BOTH, slot=2)
    await counted.quotas.reserve(counted.upload("/a", 7), 7)
    counted.restart(BOTH)
    assert await counted.recovery.settle_all() == 0
    await counted.recovery.take_over(2)
    assert await counted.recovery.settle_all() == 1
    assert (counted.usage(), counted.reserved()) == ({}, 0)


async def test_an_upload_that_no_quota_covers_is_not_counted(counted: Counted) -> None:
    counted.restart(BOTH[1:])
    assert (await counted.put("/a", b"1")).quotas == ()
    pending = await counted.writer.begin(counted.upload("/b"))
    await pending.write(b"22")
    await pending.finish()
    await pending.commit({}, from_client=True)
    assert (counted.usage(), counted.reserved(), counted.quotas.active) == ({}, 0, set())


async def test_a_doubtful_commit_stays_reserved_until_it_is_settled(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def store(upload: Upload, content: bytes, *, from_client: bool) -> Stored:
        await type(inner).store(inner, upload, content, from_client=from_client)
        raise UnknownOutcome("the folder could not be synced")

    inner = counted.writer.inner
    monkeypatch.setattr(inner, "store", store)
    with pytest.raises(UnknownOutcome):
        await counted.put("/a", b"123")
    assert counted.reserved() == 1
    assert await counted.recovery.settle_all() == 1
    assert (counted.usage(), counted.reserved()) == ({KEY: (3, 1)}, 0)


async def test_an_end_that_cannot_be_written_is_written_later(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RecordsUnavailable("the disk is full")

    upload = counted.upload("/a", 3)
    await counted.quotas.reserve(upload, 3)
    with monkeypatch.context() as patched:
        patched.setattr(CountersInMemory, "run", fail)
        stored = await counted.writer.inner.store(upload, b"123", from_client=True)
        assert (await counted.quotas.settle(upload, stored)).quotas == ()
        await counted.quotas.free("another")
        with pytest.raises(Refusal, match="try again later") as raised:
            await counted.put("/b", b"1")
        assert raised.value.code == "records_unavailable"
    await counted.quotas.write_unsettled()
    assert (counted.usage(), counted.reserved(), counted.quotas.unsettled) == ({KEY: (3, 1)}, 0, {})


async def test_a_cancelled_client_still_gets_its_upload_counted(counted: Counted) -> None:
    storing = asyncio.create_task(counted.put("/a", b"123"))
    await asyncio.sleep(0)
    while not counted.reserved():
        await asyncio.sleep(0)
    storing.cancel()
    await asyncio.wait([storing])
    await counted.writer.close()
    assert (counted.usage(), counted.reserved()) == ({KEY: (3, 1)}, 0)


async def test_a_scan_finds_what_was_done_by_hand(counted: Counted) -> None:
    await counted.put("/few/removed", b"1")
    await counted.put("/few/changed", b"22")
    root = counted.harness.root
    (root / "few/removed").unlink()
    (root / "few/changed").write_bytes(b"333")
    (root / "few/new").write_bytes(b"4444")
    (root / os.fsdecode(b"few/no-utf8-\xff")).write_bytes(b"5")
    (root / "elsewhere").write_bytes(b"6")
    assert await counted.scan.run(files=True) == 3
    assert counted.usage() == {"prefix /few/": (7, 2)}
    assert not await counted.scan.run(files=True)


async def test_what_was_stored_before_a_quota_counts_once_it_is_there(counted: Counted) -> None:
    counted.restart([])
    await counted.put("/few/a", b"1")
    await counted.put("/few/a", b"22")
    await counted.put("/b", b"333")
    assert counted.usage() == {}
    counted.restart(BOTH)
    await counted.scan.run(files=True)
    assert counted.usage() == {KEY: (5, 2), "prefix /few/": (2, 1)}
    counted.restart(BOTH[:1])
    await counted.scan.run(files=True)
    counted.restart([])
    await counted.scan.run(files=True)
    assert counted.usage() == {}


async def test_a_moved_file_counts_for_whom_it_counted_at_its_new_path(counted: Counted) -> None:
    await counted.put("/few/a", b"22")
    await counted.put("/b", b"333")
    root = counted.harness.root
    os.replace(root / "few/a", root / "b")
    await counted.quotas.files.moved("/few/a", "/b")
    assert counted.usage() == {KEY: (2, 1)}


async def test_removed_files_are_given_back_at_once(counted: Counted) -> None:
    counted.storage.removed = counted.quotas.files.removed
    await counted.put("/few/a", b"22")
    await counted.storage.delete("/few/a")
    assert counted.usage() == {}


async def test_reports_tell_what_is_used_and_where_little_is_left(counted: Counted) -> None:
    await counted.put("/few/a", b"x" * 900)
    report = await counted.quotas.report(1)
    assert report == {
        "quotas": [
            {
                "quota": KEY,
                "bytes": {"used": 900, "limit": 1000},
                "files": {"used": 1, "limit": None},
                "bytes_per_day": {"used": 900, "limit": 5000},
            }
        ],
        "more": True,
    }
    (near,) = await counted.quotas.near_limits()
    assert near == {"rule": KEY, "what": "bytes", "used": 900, "limit": 1000}


async def test_64_uploads_at_once_never_store_a_byte_too_much(counted: Counted) -> None:
    outcomes = await asyncio.gather(
        *(counted.put(f"/few/{n % 5}", b"x" * (10 * n)) for n in range(64)), return_exceptions=True
    )
    assert all(isinstance(outcome, Stored | Refusal) for outcome in outcomes)
    stored = counted.harness.stored()
    size = sum(map(len, stored.values()))
    assert size <= 1000
    assert len(stored) <= 3
    assert counted.usage() == {KEY: (size, len(stored)), "prefix /few/": (size, len(stored))}
