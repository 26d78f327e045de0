"""Holding whole bodies: durable, in the journal, private, or refused with nothing left."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.grant import Grant
from gateway.domain.held import Held
from gateway.domain.model import Upload, new_id
from gateway.errors import Refusal, UnknownOutcome
from gateway.storage.local.held_directory import HeldDirectory
from tests.support.committer import CommitterHarness, OnFailpoint
from tests.support.held import HeldHarness
from tests.support.partials import partial_head
from tests.support.records import result_of

KIB = 1 << 10


def granted(nonce: str) -> Grant:
    return Grant("PUT", "/x", 1 << 40, once=nonce)


def nothing_is_left(harness: CommitterHarness, held: HeldHarness) -> bool:
    left = (harness.bodies(), held.bodies(), harness.stored(), harness.deliveries())
    return left == ([], [], {}, []) and harness.space.reserved == 0


@pytest.mark.parametrize("size", [0, 4, 100 * KIB, 3000 * KIB])
async def test_a_held_body_is_whole_private_and_waits_for_its_first_handler(
    harness: CommitterHarness, held: HeldHarness, size: int
) -> None:
    body = os.urandom(size)
    told = await held.hold("/new/x.txt", body, ("a", "b"))
    assert (told.path, told.bytes, told.mime) == ("/new/x.txt", size, "text/plain")
    assert list(told.digests) == ["sha-256"]
    row = held.row(told)
    assert row is not None
    assert (row.state, row.handlers, row.upload["path"]) == ("undecided", ("a", "b"), "/new/x.txt")
    assert held.store.private_file(row).path.read_bytes() == body  # type: ignore[union-attr]
    assert (harness.stored(), harness.bodies(), held.bodies()) == ({}, [], [told.upload_id])
    assert harness.space.reserved == 0
    (delivery,) = await held.claim("a")
    assert (delivery.upload_id, delivery.body["path"]) == (told.upload_id, "/new/x.txt")
    assert (delivery.body["bytes"], delivery.body["digests"]) == (size, told.digests)
    assert await held.claim("b") == []


async def test_the_journal_gets_no_secret(harness: CommitterHarness, held: HeldHarness) -> None:
    headers = {"X-Secret": "sesame", "Authorization": "Bearer sesame", "X-Tag": "1"}
    told = await held.hold(headers=headers, params={"X-Gateway-Signature": ["sesame"]})
    (delivery,) = await held.claim()
    row = held.row(told)
    assert "sesame" not in repr(row) + repr(delivery)
    assert delivery.body["headers"]["X-Tag"] == "1"


async def test_many_bodies_are_held_together(harness: CommitterHarness, held: HeldHarness) -> None:
    told = await asyncio.gather(*(held.hold(f"/x{number}") for number in range(300)))
    assert held.bodies() == sorted(one.upload_id for one in told)
    assert len(await held.claim(limit=400)) == 100
    assert (harness.bodies(), harness.stored(), harness.space.reserved) == ([], {}, 0)


async def test_a_target_that_may_not_be_replaced_is_refused_before_anything_is_held(
    harness: CommitterHarness, held: HeldHarness
) -> None:
    (harness.root / "y").write_bytes(b"old")
    upload = Upload(new_id(0), "/x", on_conflict="reject")
    pending = await held.writer.begin(upload, staged=True)
    await pending.write(b"12")
    await pending.finish()
    upload.path = "/y"
    with pytest.raises(Refusal) as refused:
        await pending.hold({}, ("a",))
    assert refused.value.code == "conflict"
    assert (harness.stored(), held.bodies(), harness.bodies()) == ({"y": b"old"}, [], [])


async def test_a_journal_that_cannot_be_written_leaves_nothing(
    harness: CommitterHarness, held: HeldHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Future[None]:
        future: Future[None] = Future()
        future.set_exception(sqlite3.OperationalError("disk I/O error"))
        return future

    monkeypatch.setattr(harness.journal.held_uploads, "record", fails)
    with pytest.raises(Refusal) as refused:
        await held.hold(grant=granted("n" * 16))
    assert refused.value.code == "journal_unavailable"
    assert nothing_is_left(harness, held)
    assert list((harness.root.parent / "once").iterdir()) == []


async def test_one_that_cannot_be_written_spoils_no_other(
    harness: CommitterHarness, held: HeldHarness
) -> None:
    outcomes = await asyncio.gather(
        held.hold("/a"), held.hold("/b", resources={"x": {1}}), held.hold("/c"), return_exceptions=True
    )
    assert [type(one).__name__ for one in outcomes] == ["Held", "Refusal", "Held"]
    assert len(held.bodies()) == 2
    assert harness.bodies() == []


async def test_a_body_that_cannot_be_moved_is_refused_and_its_row_deleted(
    harness: CommitterHarness, held: HeldHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take(*_: Any) -> None:
        raise OSError(errno.EIO, "the disk is dying")

    monkeypatch.setattr(HeldDirectory, "take", take)
    with pytest.raises(Refusal):
        await held.hold()
    assert nothing_is_left(harness, held)


async def test_an_operator_decides_about_nothing_that_is_not_in_its_folder_yet(
    harness: CommitterHarness, held: HeldHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its body would be published while it is moved, and its client told of a failure."""
    overruled: list[object] = []
    move = HeldDirectory.take

    def take(folder: HeldDirectory, incoming_fd: int, upload_id: str) -> None:
        overruled.append(result_of(harness.journal.held_uploads.release_held(upload_id, "root")))
        overruled.append(result_of(harness.journal.held_uploads.reject_held(upload_id, "", "root")))
        move(folder, incoming_fd, upload_id)

    monkeypatch.setattr(HeldDirectory, "take", take)
    told = await held.hold()
    assert (overruled, held.state(told), held.bodies()) == ([None, None], "undecided", [told.upload_id])
    await held.decisions.release(told.upload_id, "root")
    await held.settled()
    assert harness.stored() == {"x": b"body"}


async def test_a_folder_that_cannot_be_synced_gets_no_answer_and_the_upload_is_decided(
    harness: CommitterHarness, held: HeldHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sync(_: HeldDirectory) -> None:
        monkeypatch.undo()
        raise OSError(errno.EIO, "the disk is dying")

    monkeypatch.setattr(HeldDirectory, "sync", sync)
    with pytest.raises(UnknownOutcome):
        await held.hold()
    await held.decide()
    await held.settled()
    assert harness.stored() == {"x": b"body"}


async def test_a_one_time_url_is_used_up_before_the_response(
    harness: CommitterHarness, held: HeldHarness
) -> None:
    await held.hold(grant=granted("n" * 16))
    with pytest.raises(Refusal) as refused:
        await held.hold(grant=granted("n" * 16))
    assert refused.value.code == "used_up"
    assert len(held.bodies()) == 1
    assert harness.bodies() == []


async def test_a_partial_upload_becomes_a_held_one(harness: CommitterHarness, held: HeldHarness) -> None:
    opened = await harness.partial_store().create(partial_head(length=5, path="/x"))
    await opened.begin(5)
    await opened.write(b"12345")
    told = await opened.hold({}, ("a",))
    await opened.close()
    assert held.bodies() == [told.upload_id]
    assert [name for name in harness.partials.names() if name != "identities"] == []
    await held.decide()
    await held.settled()
    assert harness.stored() == {"x": b"12345"}


async def test_a_partial_upload_that_cannot_be_held_goes_on(
    harness: CommitterHarness, held: HeldHarness
) -> None:
    (harness.root / "taken").write_bytes(b"old")
    head = partial_head(length=5, path="/x", on_conflict="reject")
    opened = await harness.partial_store().create(head)
    await opened.begin(5)
    await opened.write(b"12345")
    head.upload.path = "/taken"
    with pytest.raises(Refusal):
        await opened.hold({}, ("a",))
    head.upload.path = "/free"
    told = await opened.hold({}, ("a",))
    assert (told.path, held.bodies()) == ("/free", [told.upload_id])


@pytest.mark.parametrize("point", ["before held row", "after held row"])
async def test_a_cancelled_client_leaves_all_or_nothing(
    harness: CommitterHarness, held: HeldHarness, on_failpoint: OnFailpoint, point: str
) -> None:
    loop = asyncio.get_running_loop()
    tasks: list[asyncio.Task[Held]] = []

    def cancel(name: str) -> None:
        if name == point:
            loop.call_soon_threadsafe(tasks[0].cancel)

    on_failpoint(cancel)
    tasks.append(asyncio.create_task(held.hold()))
    await asyncio.wait(tasks)
    assert len(held.bodies()) == 1
    await held.decide()
    await held.settled()
    assert harness.stored() == {"x": b"body"}


def test_the_folder_is_private(tmp_path: Path) -> None:
    HeldDirectory(tmp_path / "held").close()
    assert (tmp_path / "held").stat().st_mode & 0o777 == 0o700
