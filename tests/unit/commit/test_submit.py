"""Commits with a callback: who is called, where and when."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from gateway.commit.batch import BatchCommitter
from gateway.commit.committer import MAX_TURNS, Committer
from gateway.commit.local_writer import LocalWriter
from gateway.commit.records import BatchResult, CommitRequest
from gateway.domain.model import Stored, Upload, new_id
from gateway.errors import Refusal, UnknownOutcome
from tests.support.committer import TIMEOUT, CommitterHarness

Outcome = Stored | Exception


class Answers:
    """Collects the outcomes of `count` commits, in the order of the calls."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._complete = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.outcomes: list[tuple[str, Outcome]] = []

    def of(self, name: str) -> Callable[[Outcome], None]:
        """Return the callback of one commit."""

        def done(outcome: Outcome) -> None:
            assert asyncio.get_running_loop() is self._loop
            self.outcomes.append((name, outcome))
            if len(self.outcomes) == self._count:
                self._complete.set()

        return done

    async def all(self) -> dict[str, Outcome]:
        async with asyncio.timeout(TIMEOUT):
            await self._complete.wait()
        assert len(self.outcomes) == self._count
        return dict(self.outcomes)


def large(harness: CommitterHarness, path: str) -> CommitRequest:
    """Return the request of a body that is synced before its batch."""
    request = harness.request(path)
    request.body.buffer(b"")
    request.body.write([b"x" * (1 << 20)])
    return request


async def test_each_outcome_goes_to_its_own_callback_after_submit_has_returned(
    harness: CommitterHarness,
) -> None:
    await harness.commit("/file", b"")
    answers = Answers(3)
    for path in ("/one", "/file/below", "/new/two"):
        harness.committer.submit(harness.request(path), answers.of(path))
    assert answers.outcomes == []
    outcomes = await answers.all()
    assert {path: type(outcome) for path, outcome in outcomes.items()} == {
        "/one": Stored,
        "/file/below": Refusal,
        "/new/two": Stored,
    }
    assert set(harness.stored()) == {"file", "one", "new/two"}
    assert harness.bodies() == []


async def test_the_outcomes_of_a_batch_come_back_in_one_wake_up_of_the_loop(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    answers, wake_ups = Answers(20), list[object]()
    wake = loop.call_soon_threadsafe

    def counted(callback: Callable[..., object], *arguments: Any, **named: Any) -> asyncio.Handle:
        wake_ups.append(callback)
        return wake(callback, *arguments, **named)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    harness.handlers = []
    for number in range(20):
        harness.committer.submit(harness.request(f"/{number}"), answers.of(str(number)))
    await answers.all()
    assert [name for name, _ in answers.outcomes] == [str(number) for number in range(20)]
    assert len(wake_ups) == 1


@pytest.fixture
def batch_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that are committed."""
    sizes: list[int] = []
    commit = BatchCommitter.commit

    def counted(batch: BatchCommitter, requests: Sequence[CommitRequest], result: BatchResult) -> None:
        sizes.append(len(requests))
        commit(batch, requests, result)

    monkeypatch.setattr(BatchCommitter, "commit", counted)
    return sizes


async def submit_in_turns(harness: CommitterHarness, turns: int, each: int) -> None:
    """Submit `each` uploads in consecutive turns of the loop, and await all of them."""
    loop, answers = asyncio.get_running_loop(), Answers(turns * each)

    def submit(turn: int) -> None:
        for name in (f"{turn}-{number}" for number in range(each)):
            harness.committer.submit(harness.request(f"/{name}"), answers.of(name))
        if turn + 1 < turns:
            loop.call_soon(submit, turn + 1)

    submit(0)
    await answers.all()


async def test_uploads_that_come_in_consecutive_turns_of_the_loop_share_a_batch(
    harness: CommitterHarness, batch_sizes: list[int]
) -> None:
    await submit_in_turns(harness, 4, 3)
    assert batch_sizes == [12]


async def test_uploads_that_never_pause_wait_for_a_few_turns_only(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    send = Committer._send

    def counted(committer: Committer) -> None:
        sent.append(len(committer._waiting))
        send(committer)

    monkeypatch.setattr(Committer, "_send", counted)
    await submit_in_turns(harness, 50, 2)
    assert max(sent) <= 2 * (MAX_TURNS + 2)
    assert sum(sent) == 100


async def test_a_large_body_and_one_in_a_new_folder_are_prepared_before_their_batch(
    harness: CommitterHarness,
) -> None:
    answers = Answers(2)
    harness.committer.submit(large(harness, "/new/large"), answers.of("large"))
    harness.committer.submit(harness.request("/new/folder/x"), answers.of("small"))
    outcomes = await answers.all()
    assert all(isinstance(outcome, Stored) for outcome in outcomes.values())
    assert set(harness.stored()) == {"new/large", "new/folder/x"}


async def test_a_preparation_that_fails_is_told_and_leaves_no_body(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = Answers(1)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "mkdir", full)
    harness.committer.submit(large(harness, "/new/x"), answers.of("x"))
    refusal = (await answers.all())["x"]
    assert isinstance(refusal, Refusal)
    assert refusal.code == "no_space"
    assert (harness.bodies(), harness.stored(), harness.deliveries()) == ([], {}, [])


async def test_a_callback_that_fails_takes_no_answer_from_another_upload(
    harness: CommitterHarness, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Outcome) -> None:
        raise ValueError("the connection is in no state to be answered")

    answers = Answers(1)
    harness.committer.submit(harness.request("/x"), fail)
    harness.committer.submit(harness.request("/y"), answers.of("y"))
    with caplog.at_level(logging.ERROR, "gateway.commit"):
        assert isinstance((await answers.all())["y"], Stored)
    assert [record.getMessage() for record in caplog.records] == ["an answer to an upload failed"]


async def test_an_upload_that_the_end_of_the_loop_finds_unprepared_has_no_certain_outcome(
    harness: CommitterHarness,
) -> None:
    answers = Answers(1)
    others = asyncio.all_tasks()
    harness.committer.submit(harness.request("/new/x"), answers.of("x"))
    await asyncio.sleep(0)
    for task in asyncio.all_tasks() - others:
        task.cancel()
    assert isinstance((await answers.all())["x"], UnknownOutcome)
    assert (harness.stored(), harness.deliveries(), harness.bodies()) == ({}, [], [])


async def test_a_writer_commits_a_body_in_memory_with_a_callback(harness: CommitterHarness) -> None:
    writer, answers = LocalWriter(harness.local_disk, harness.committer, 0o640), Answers(1)
    writer.submit(Upload(new_id(0), "/a/x", created=1.0), b"small", answers.of("x"))
    stored = (await answers.all())["x"]
    assert isinstance(stored, Stored)
    assert (stored.path, stored.bytes, harness.stored()) == ("/a/x", 5, {"a/x": b"small"})
    assert await harness.claimable() == ["/a/x"]


async def test_deliveries_that_cannot_be_released_hold_up_no_upload(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: object) -> None:
        raise ValueError("not released")

    with monkeypatch.context() as patch:
        patch.setattr(harness.journal.outbox, "release_events", fails)
        await harness.commit("/a")
        await harness.committer.between_batches(lambda: None)
    await harness.commit("/b")
    assert set(harness.stored()) == {"a", "b"}
    assert "may wait for the next start" in caplog.text
