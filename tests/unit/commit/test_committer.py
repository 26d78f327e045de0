"""The committer with real parts: the order of its steps, and every way in which one can fail."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import stat
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from gateway.commit.records import CommitRequest
from gateway.domain.grant import Grant
from gateway.domain.model import Stored
from gateway.errors import Refusal, UnknownOutcome
from gateway.events.journal import Journal
from gateway.events.outbox import MAX_RECORDED_HERE
from gateway.events.protocols import NewEvent
from gateway.storage.local.incoming import IncomingDirectory
from tests.support.committer import TIMEOUT, CommitterHarness, OnFailpoint
from tests.support.records import claim_deliveries

STEPS = [
    "after file sync",
    "before journal commit",
    "after journal commit",
    "after rename",
    "before directory sync",
    "after directory sync",
    "before answer",
]


def failing(error: int, when: Callable[..., bool], real: Callable[..., Any]) -> Callable[..., Any]:
    """Return `real`, but failing with `error` for the calls that `when` names."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        if when(*arguments, **keywords):
            raise OSError(error, os.strerror(error))
        return real(*arguments, **keywords)

    return call


def place_of(fd: int) -> Path:
    return Path(os.readlink(f"/proc/self/fd/{fd}"))


def code(outcome: object) -> str:
    """Return an outcome in one word."""
    if isinstance(outcome, Refusal):
        return outcome.code
    return type(outcome).__name__.lower()


async def refusal(harness: CommitterHarness, path: str = "/x", **facts: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await harness.commit(path, **facts)
    return caught.value


def nothing_left(harness: CommitterHarness) -> bool:
    return harness.bodies() == [] and harness.stored() == {} and harness.deliveries() == []


# -- the order of the steps


async def test_the_steps_come_in_their_order(
    harness: CommitterHarness, on_failpoint: OnFailpoint
) -> None:
    reached: list[str] = []
    on_failpoint(reached.append)
    await harness.commit()
    assert reached == STEPS
    reached.clear()
    await harness.commit("/y", on_conflict="reject")
    assert reached == [*STEPS[:3], "after link", *STEPS[3:]]


async def test_at_every_step_only_what_is_safe_has_happened(
    harness: CommitterHarness, on_failpoint: OnFailpoint
) -> None:
    seen: dict[str, tuple[int, bool, int]] = {}

    def look(name: str) -> None:
        claimable = len(claim_deliveries(harness.journal))
        seen[name] = (len(harness.deliveries()), "x" in harness.stored(), claimable)

    on_failpoint(look)
    await harness.commit()
    assert [seen[name] for name in STEPS] == [
        (0, False, 0),
        (0, False, 0),
        (1, False, 0),
        (1, True, 0),
        (1, True, 0),
        (1, True, 0),
        (1, True, 0),
    ]
    assert await harness.claimable() == ["/x"]


async def test_new_folders_then_the_body_then_its_name_then_its_folder_are_synced(
    harness: CommitterHarness, on_failpoint: OnFailpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    on_failpoint(told.append)
    real = os.fsync

    def fsync(fd: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(fd).st_mode)
        place = place_of(fd)
        told.append(f"sync {place.name}" if is_folder else "sync the body")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    await harness.commit("/new/folder/x")
    syncs = [
        (index, what)
        for index, what in enumerate(told)
        if what.startswith("sync") and index < told.index("after directory sync")
    ]
    order = ["sync new", "sync data", "sync the body", "sync 0"]
    assert [what for _, what in syncs][:4] == order
    assert syncs[3][0] < told.index("before journal commit")
    assert [what for index, what in syncs if index > told.index("after rename")] == ["sync folder"]


async def test_a_folder_that_is_made_anew_within_a_batch_is_synced_with_those_above_it(
    harness: CommitterHarness, on_failpoint: OnFailpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    await harness.commit("/new/folder/x")
    (harness.root / "new/folder/x").unlink()
    (harness.root / "new/folder").rmdir()
    told: list[str] = []
    on_failpoint(told.append)
    real = os.fsync

    def fsync(fd: int) -> None:
        told.append(f"sync {place_of(fd).name}")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    await harness.commit("/new/folder/x")
    renamed, answered = told.index("after rename"), told.index("after directory sync")
    assert {"sync folder", "sync new"} <= set(told[renamed:answered])


async def test_an_upload_that_is_cancelled_while_its_folders_are_made_leaves_no_body(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, making, goes_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    mkdir = os.mkdir

    def slow(name: Any, *arguments: Any, **named: Any) -> None:
        loop.call_soon_threadsafe(making.set)
        assert goes_on.wait(TIMEOUT)
        mkdir(name, *arguments, **named)

    monkeypatch.setattr(os, "mkdir", slow)
    request = harness.request("/new/x")
    request.body.sync()
    commit = asyncio.create_task(harness.committer.commit(request))
    await making.wait()
    commit.cancel()
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await commit
    assert (harness.bodies(), harness.stored(), harness.deliveries()) == ([], {}, [])


async def test_a_batch_is_one_transaction_and_keeps_the_order_of_arrival(
    harness: CommitterHarness, on_failpoint: OnFailpoint
) -> None:
    reached: list[str] = []
    on_failpoint(reached.append)
    requests = [harness.request("/same", f"{number}".encode()) for number in range(20)]
    outcomes = await harness.batch(*requests)
    assert reached.count("before journal commit") == 1
    assert [outcome.replaced for outcome in outcomes if isinstance(outcome, Stored)] == [False] + [
        True
    ] * 19
    assert harness.stored() == {"same": b"19"}
    assert await harness.claimable() == ["/same"] * 20


async def test_the_event_of_an_upload_names_what_was_stored(harness: CommitterHarness) -> None:
    stored = await harness.commit("/a/x.txt", b"12345", mime="text/plain")
    assert (stored.path, stored.bytes, stored.mime, stored.replaced) == (
        "/a/x.txt",
        5,
        "text/plain",
        False,
    )
    assert await harness.claimable() == ["/a/x.txt"]
    assert (harness.root / "a/x.txt").stat().st_mode & 0o777 == 0o640


async def test_without_handlers_there_is_nothing_to_release(harness: CommitterHarness) -> None:
    harness.handlers = []
    await harness.commit()
    assert harness.deliveries() == []
    assert await harness.claimable() == []


# -- one bad request among good ones


async def test_a_bad_request_does_not_keep_its_neighbours_from_being_stored(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    (harness.root / "file").write_bytes(b"")
    (harness.root / "taken").write_bytes(b"")
    sick = harness.request("/sick")
    monkeypatch.setattr(
        os, "fsync", failing(5, lambda fd: place_of(fd).name == sick.upload.id, os.fsync)
    )
    outcomes = await harness.batch(
        harness.request("/one"),
        harness.request("/file/below"),
        harness.request("/taken", on_conflict="reject"),
        sick,
        harness.request("/taken", must_be_new=True),
        harness.request("/../escape"),
        harness.request("/text", mime="no \udcff unicode"),
        harness.request("/two"),
    )
    assert [code(outcome) for outcome in outcomes] == [
        "stored",
        "conflict",
        "conflict",
        "internal",
        "already_exists",
        "bad_path",
        "internal",
        "stored",
    ]
    assert harness.bodies() == []
    assert set(harness.stored()) == {"file", "taken", "one", "two"}
    assert await harness.claimable() == ["/one", "/two"]


async def test_two_of_a_batch_that_want_one_new_name_do_not_both_get_it(
    harness: CommitterHarness,
) -> None:
    outcomes = await harness.batch(
        harness.request("/x", b"1", on_conflict="reject"),
        harness.request("/x", b"2", on_conflict="reject"),
        harness.request("/x", b"3", on_conflict="rename"),
        harness.request("/x", b"4", must_be_new=True),
        harness.request("/x", b"5", on_conflict="rename"),
    )
    assert [code(outcome) for outcome in outcomes] == [
        "stored",
        "conflict",
        "stored",
        "already_exists",
        "stored",
    ]
    assert harness.stored() == {"x": b"1", "x-1": b"3", "x-2": b"5"}
    assert await harness.claimable() == ["/x", "/x-1", "/x-2"]


# -- the journal fails


def fill_journal(harness: CommitterHarness, *, full: bool) -> None:
    """Let the journal grow no further, as on a full disk, or let it grow again."""

    def operation(db: sqlite3.Connection) -> None:
        pages = db.execute("PRAGMA page_count").fetchone()[0] if full else 1 << 30
        db.execute(f"PRAGMA max_page_count = {pages}")

    harness.journal._database.submit(operation).result(TIMEOUT)


@pytest.mark.parametrize("count", [2, MAX_RECORDED_HERE + 1], ids=["small batch", "large batch"])
async def test_a_full_journal_refuses_every_upload_and_leaves_nothing(
    harness: CommitterHarness, count: int
) -> None:
    fill_journal(harness, full=True)
    big: dict[str, Any] = {"mime": "m" * 5000}
    outcomes = await harness.batch(*[harness.request(f"/{n}", **big) for n in range(count)])
    assert [code(outcome) for outcome in outcomes] == ["journal_unavailable"] * count
    assert nothing_left(harness)
    fill_journal(harness, full=False)
    await harness.commit("/c", **big)
    assert await harness.claimable() == ["/c"]


async def test_small_and_large_batches_and_other_writers_of_the_journal_lose_nothing(
    harness: CommitterHarness, on_failpoint: OnFailpoint
) -> None:
    threads: set[str] = set()

    def look(db: sqlite3.Connection) -> None:
        db.set_trace_callback(lambda _: threads.add(threading.current_thread().name))

    harness.journal._database.submit(look).result(TIMEOUT)
    uploads = [harness.commit(f"/{number}") for number in range(MAX_RECORDED_HERE + 1)]
    others = [NewEvent(f"e{n}", "Schedule", ("i",), {}, 1.0, path="/e") for n in range(100)]
    writing = asyncio.gather(*[harness.journal.outbox.publish([event]) for event in others])
    await asyncio.gather(*uploads)
    for number in range(20):
        await harness.commit(f"/small{number}")
    await writing
    await harness.commit("/last")  # nobody else writes now
    assert threads == {"committer", "journal"}
    assert len(harness.stored()) == MAX_RECORDED_HERE + 22
    assert await harness.claimable() == sorted(f"/{name}" for name in harness.stored())
    claimed = await harness.journal.queue.claim("i", 1000, 0.0)
    assert len(claimed) == len(others)


class Broken:
    """Lets the first `times` calls of a method of the journal fail."""

    def __init__(self, real: Callable[..., Future[Any]], times: int) -> None:
        self._real = real
        self.left = times

    def __call__(self, *arguments: Any) -> Future[Any]:
        if not self.left:
            return self._real(*arguments)
        self.left -= 1
        future: Future[Any] = Future()
        future.set_exception(sqlite3.OperationalError("disk I/O error"))
        return future


async def test_a_row_that_cannot_be_deleted_keeps_an_empty_body_for_recovery(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = harness.journal.outbox
    monkeypatch.setattr(outbox, "forget_uploads", Broken(outbox.forget_uploads, 1))
    rename = failing(errno.ENOSPC, lambda *_, **__: True, os.rename)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        assert (await refusal(harness)).code == "no_space"
    (mark,) = harness.bodies()
    assert harness.incoming.stat(mark).st_size == 0
    assert len(harness.deliveries()) == 1

    await harness.commit("/next")
    assert harness.bodies() == []
    assert harness.deliveries() == [("/next", "ready")]
    assert await harness.claimable() == ["/next"]


async def test_a_url_is_valid_again_even_where_the_row_cannot_be_deleted(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = harness.journal.outbox
    monkeypatch.setattr(outbox, "forget_uploads", Broken(outbox.forget_uploads, 1))
    grant = Grant("PUT", "/x", 1 << 40, once="nonce")
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", failing(errno.ENOSPC, lambda *_, **__: True, os.rename))
        assert (await refusal(harness, "/x", grant=grant)).code == "no_space"
    harness.once.check_unused("nonce")
    assert (await harness.commit("/x", grant=grant)).path == "/x"


# -- the disk fails


async def test_a_disk_without_space_for_the_name_or_the_folder_is_507(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("rename", "mkdir"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, failing(errno.ENOSPC, lambda *_, **__: True, getattr(os, name)))
            assert (await refusal(harness, f"/for {name}/x")).code == "no_space"
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", failing(errno.EDQUOT, lambda *_, **__: True, os.link))
        assert (await refusal(harness, "/new/x", on_conflict="reject")).code == "no_space"
    assert nothing_left(harness)
    assert (await harness.commit("/new/x")).path == "/new/x"


async def test_a_body_that_is_too_large_for_the_file_system_is_refused(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", failing(errno.EFBIG, lambda *_: True, os.write))
        assert (await refusal(harness)).code == "too_large"
    assert nothing_left(harness)


async def test_a_body_with_bytes_that_were_not_received_is_never_published(
    harness: CommitterHarness,
) -> None:
    request = harness.request("/x")
    request.body.flush()
    with (harness.incoming_folder / request.upload.id).open("ab") as file:
        file.write(b"of another")
    with pytest.raises(Refusal) as refused:
        await harness.committer.commit(request)
    assert refused.value.code == "internal"
    assert nothing_left(harness)


async def test_private_names_that_cannot_be_synced_refuse_the_batch_and_leave_nothing(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            os, "fsync", failing(5, lambda fd: place_of(fd) == harness.incoming_folder, os.fsync)
        )
        outcomes = await harness.batch(harness.request("/a"), harness.request("/b"))
    assert [code(outcome) for outcome in outcomes] == ["internal"] * 2
    assert nothing_left(harness)


async def test_a_folder_that_cannot_be_synced_means_no_answer_and_the_event_still(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    (harness.root / "good").mkdir()
    (harness.root / "sick").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(5, lambda fd: place_of(fd).name == "sick", os.fsync))
        outcomes = await harness.batch(harness.request("/sick/x"), harness.request("/good/x"))
    assert [code(outcome) for outcome in outcomes] == ["unknownoutcome", "stored"]
    assert set(harness.stored()) == {"sick/x", "good/x"}
    assert await harness.claimable() == ["/good/x", "/sick/x"]


async def test_a_large_body_that_cannot_be_synced_is_refused_and_removed(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = harness.request("/large")
    request.body.write([b"x" * (1 << 20)])
    with monkeypatch.context() as patch:
        patch.setattr(
            os, "fsync", failing(5, lambda fd: place_of(fd).name == request.upload.id, os.fsync)
        )
        with pytest.raises(Refusal) as caught:
            await harness.committer.commit(request)
    assert caught.value.code == "internal"
    assert nothing_left(harness)


async def test_a_large_body_whose_commit_is_cancelled_during_its_sync_is_removed(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, entered, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    real = os.fsync

    def fsync(fd: int) -> None:
        loop.call_soon_threadsafe(entered.set)
        assert go_on.wait(TIMEOUT)
        real(fd)

    request = harness.request("/large")
    request.body.write([b"x" * (1 << 20)])
    monkeypatch.setattr(os, "fsync", fsync)
    commit = asyncio.create_task(harness.committer.commit(request))
    await entered.wait()
    commit.cancel()
    await asyncio.sleep(0)  # the cancellation reaches it while the thread has the body
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await commit
    assert nothing_left(harness)


# -- somebody else is quicker


class Intruder:
    """Puts a file of its own under the names of uploads between the look and the link."""

    def __init__(self, harness: CommitterHarness, *names: str) -> None:
        self._office = harness
        self._names = list(names)

    def __call__(self, point: str) -> None:
        if point == "after journal commit":
            for name in self._names:
                (self._office.root / name).write_bytes(b"theirs")


@pytest.mark.parametrize(
    ("facts", "expected"),
    [({"on_conflict": "reject"}, "conflict"), ({"must_be_new": True}, "already_exists")],
)
async def test_a_name_created_after_the_check_is_not_replaced(
    harness: CommitterHarness, on_failpoint: OnFailpoint, facts: dict[str, Any], expected: str
) -> None:
    on_failpoint(Intruder(harness, "x"))
    assert (await refusal(harness, **facts)).code == expected
    assert harness.stored() == {"x": b"theirs"}
    assert harness.bodies() == []
    assert harness.deliveries() == []


async def test_with_rename_a_name_created_after_the_check_is_avoided(
    harness: CommitterHarness, on_failpoint: OnFailpoint
) -> None:
    on_failpoint(Intruder(harness, "x", "x-1"))
    stored = await harness.commit(on_conflict="rename")
    assert stored.path == "/x-2"
    assert harness.stored() == {"x": b"theirs", "x-1": b"theirs", "x-2": b"body"}
    assert await harness.claimable() == ["/x-2"]


async def test_replace_overwrites_a_file_created_after_the_check(
    harness: CommitterHarness, on_failpoint: OnFailpoint
) -> None:
    on_failpoint(Intruder(harness, "x"))
    await harness.commit()
    assert harness.stored() == {"x": b"body"}


async def test_a_folder_moved_away_meanwhile_takes_the_file_with_it(
    harness: CommitterHarness, on_failpoint: OnFailpoint, tmp_path: Path
) -> None:
    def move(point: str) -> None:
        if point == "after journal commit":
            (harness.root / "folder").rename(harness.root / "elsewhere")
            (harness.root / "folder").symlink_to(tmp_path)

    on_failpoint(move)
    await harness.commit("/folder/x")
    assert harness.stored() == {"elsewhere/x": b"body"}
    assert not (tmp_path / "x").exists()


# -- our own mistakes


@pytest.mark.parametrize("point", STEPS[:-1])
async def test_a_committer_that_breaks_down_gives_no_answer_and_goes_on_with_the_next(
    harness: CommitterHarness, on_failpoint: OnFailpoint, point: str
) -> None:
    broken: list[str] = []

    def breaks(name: str) -> None:
        if name == point and not broken:
            broken.append(name)
            raise RuntimeError("a mistake of ours")

    on_failpoint(breaks)
    if point == "after file sync":
        with pytest.raises(UnknownOutcome):
            await harness.commit("/x")
    else:
        outcomes = await harness.batch(harness.request("/x"), harness.request("/y"))
        known = point == "after directory sync"  # all is done by then: that is an honest answer
        assert {code(outcome) for outcome in outcomes} == {"stored" if known else "unknownoutcome"}
    assert broken == [point]
    assert (await harness.commit("/next")).path == "/next"
    # Whatever was published has its events; whatever was not, none that could be claimed.
    assert await harness.claimable() == sorted(f"/{name}" for name in harness.stored())


async def test_every_descriptor_is_closed(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await harness.batch(harness.request("/warm/up"), harness.request("/x"))
    before = len(os.listdir("/proc/self/fd"))
    await harness.batch(*(harness.request(f"/warm/{number}") for number in range(20)))
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", failing(5, lambda *_, **__: True, os.rename))
        await harness.batch(*(harness.request(f"/warm/{number}") for number in range(20)))
    (harness.root / "warm/file").touch()
    await harness.batch(*(harness.request(f"/warm/file/{number}") for number in range(20)))
    assert len(os.listdir("/proc/self/fd")) <= before


# -- the rest of its interface


async def test_functions_run_between_batches_and_their_faults_come_back(
    harness: CommitterHarness,
) -> None:
    assert (
        await harness.committer.between_batches(lambda: threading.current_thread().name) == "committer"
    )

    def fail() -> None:
        raise FileNotFoundError("it is gone")

    with pytest.raises(FileNotFoundError, match="it is gone"):
        await harness.committer.between_batches(fail)
    assert (await harness.commit()).path == "/x"


async def test_an_upload_whose_caller_is_cancelled_is_committed_all_the_same(
    harness: CommitterHarness,
) -> None:
    go_on = threading.Event()
    holding = asyncio.create_task(harness.committer.between_batches(lambda: go_on.wait(TIMEOUT)))
    request: CommitRequest = harness.request("/x")
    commit = asyncio.create_task(harness.committer.commit(request))
    await asyncio.sleep(0)
    commit.cancel()
    go_on.set()
    await holding
    await harness.committer.between_batches(lambda: None)
    assert await harness.claimable() == ["/x"]
    assert commit.cancelled()


async def test_an_end_while_both_threads_write_keeps_all_that_was_answered(tmp_path: Path) -> None:
    harness = CommitterHarness(tmp_path)
    events = [NewEvent(f"e{n}", "Schedule", ("h",), {}, 1.0, path=f"/e{n}") for n in range(50)]
    commits = [asyncio.create_task(harness.commit(f"/{number}")) for number in range(5)]
    writes = [asyncio.create_task(harness.journal.outbox.publish([event])) for event in events]
    await asyncio.sleep(0)
    await asyncio.to_thread(harness.close)
    await asyncio.gather(*commits, *writes)
    journal = Journal(tmp_path / "journal.db")
    journal.open()
    claimed = await journal.queue.claim("h", 1000, 0.0)
    assert sorted(delivery.body["path"] for delivery in claimed) == sorted(
        [f"/{number}" for number in range(5)] + [f"/e{number}" for number in range(50)]
    )
    journal.close()


async def test_what_is_queued_at_the_end_is_committed(tmp_path: Path) -> None:
    harness = CommitterHarness(tmp_path)
    commits = [asyncio.create_task(harness.commit(f"/{number}")) for number in range(5)]
    await asyncio.sleep(0)
    await asyncio.to_thread(harness.close)
    assert [stored.path for stored in await asyncio.gather(*commits)] == [f"/{n}" for n in range(5)]
    assert list(IncomingDirectory(tmp_path / "incoming" / "0").upload_ids()) == []
