"""One-time URLs in the committer: used up with the upload or not at all, whatever goes wrong."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from gateway.commit.records import ProcessState
from gateway.domain.grant import Grant
from gateway.domain.model import Stored
from gateway.errors import Refusal, UnknownOutcome
from tests.support.committer import CommitterHarness, OnFailpoint


def granted(nonce: str, path: str = "/x") -> Grant:
    return Grant("PUT", path, 1 << 40, once=nonce)


def marks(harness: CommitterHarness) -> list[str]:
    return sorted(os.listdir(harness.root.parent / "once"))


def outcome(one: Stored | BaseException) -> str:
    return one.code if isinstance(one, Refusal) else type(one).__name__


async def test_a_stored_upload_uses_its_url_up(harness: CommitterHarness) -> None:
    await harness.commit("/x", b"first", grant=granted("n"))
    with pytest.raises(Refusal) as caught:
        await harness.commit("/x", b"second", grant=granted("n"))
    assert caught.value.code == "used_up"
    assert harness.stored() == {"x": b"first"}
    assert harness.bodies() == []
    assert harness.deliveries() == [("/x", "ready")]


async def test_of_two_in_one_batch_the_first_wins(harness: CommitterHarness) -> None:
    orders = [harness.request("/x", body, grant=granted("n")) for body in (b"1", b"2", b"3")]
    outcomes = await harness.batch(*orders, harness.request("/y"))
    assert [outcome(one) for one in outcomes] == ["Stored", "used_up", "used_up", "Stored"]
    assert harness.stored() == {"x": b"1", "y": b"body"}


async def test_an_upload_refused_for_its_name_leaves_its_url_valid(
    harness: CommitterHarness,
) -> None:
    await harness.commit("/x", b"there")
    terms: dict[str, Any] = {"grant": granted("n"), "on_conflict": "reject"}
    with pytest.raises(Refusal) as caught:
        await harness.commit("/x", b"new", **terms)
    assert caught.value.code == "conflict"
    assert marks(harness) == []
    await harness.commit("/y", b"new", **terms)
    assert marks(harness) == ["n"]


async def test_a_name_created_at_the_last_moment_releases_the_url(
    harness: CommitterHarness, on_failpoint: OnFailpoint
) -> None:
    def take_the_name(point: str) -> None:
        if point == "after journal commit":
            assert marks(harness) == ["n"]
            (harness.root / "x").write_bytes(b"somebody else's")

    on_failpoint(take_the_name)
    with pytest.raises(Refusal):
        await harness.commit("/x", b"new", grant=granted("n"), on_conflict="reject")
    assert marks(harness) == []
    assert harness.bodies() == []


async def test_a_journal_that_fails_gives_the_url_back(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        assert marks(harness) == ["n"]
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(harness.journal.outbox, "record_uploads_now", broken)
    with pytest.raises(Refusal):
        await harness.commit("/x", grant=granted("n"))
    assert marks(harness) == []
    assert harness.stored() == {}


async def test_a_mark_that_cannot_be_made_durable_is_an_upload_that_failed(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def sync() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise OSError(errno.EIO, "the disk is dying")

    monkeypatch.setattr(harness.once, "sync", sync, raising=False)
    outcomes = await harness.batch(harness.request("/x", grant=granted("n")), harness.request("/y"))
    assert [outcome(one) for one in outcomes] == ["internal", "Stored"]
    assert marks(harness) == []
    assert harness.stored() == {"y": b"body"}


async def test_a_mark_that_cannot_be_released_is_released_later(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    def dying(*_: object) -> None:
        raise OSError(errno.EIO, "the disk is dying")

    with monkeypatch.context() as patched:
        patched.setattr(harness.journal.outbox, "record_uploads_now", broken)
        patched.setattr(ProcessState, "release_urls", dying)
        with pytest.raises(Refusal):
            await harness.commit("/x", grant=granted("n"))
    assert marks(harness) == ["n"]
    assert len(harness.bodies()) == 1  # empty: it tells recovery that nothing was published
    await harness.commit("/y")
    assert marks(harness) == []
    assert harness.bodies() == []


async def test_an_upload_with_an_unknown_outcome_has_used_its_url(
    harness: CommitterHarness, on_failpoint: OnFailpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_sync(*_: object) -> None:
        raise OSError(errno.EIO, "the disk is dying")

    def break_the_disk(point: str) -> None:
        if point == "before directory sync":
            monkeypatch.setattr("gateway.storage.local.directory.OpenDirectory.sync", no_sync)

    on_failpoint(break_the_disk)
    with pytest.raises(UnknownOutcome):
        await harness.commit("/x", grant=granted("n"))
    assert marks(harness) == ["n"]
    assert harness.stored() == {"x": b"body"}
