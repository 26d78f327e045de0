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
from gateway.storage.local.incoming import IncomingDirectory
from tests.support.committer import SECONDS, Listen, Office
from tests.support.records import claimed

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


async def refusal(office: Office, path: str = "/x", **facts: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await office.commit(path, **facts)
    return caught.value


def nothing_left(office: Office) -> bool:
    return office.bodies() == [] and office.stored() == {} and office.deliveries() == []


# -- the order of the steps


async def test_the_steps_come_in_their_order(office: Office, listen: Listen) -> None:
    reached: list[str] = []
    listen(reached.append)
    await office.commit()
    assert reached == STEPS
    reached.clear()
    await office.commit("/y", on_conflict="reject")
    assert reached == [*STEPS[:3], "after link", *STEPS[3:]]


async def test_at_every_step_only_what_is_safe_has_happened(office: Office, listen: Listen) -> None:
    seen: dict[str, tuple[int, bool, int]] = {}

    def look(name: str) -> None:
        claimable = len(claimed(office.journal))
        seen[name] = (len(office.deliveries()), "x" in office.stored(), claimable)

    listen(look)
    await office.commit()
    assert [seen[name] for name in STEPS] == [
        (0, False, 0),
        (0, False, 0),
        (1, False, 0),
        (1, True, 0),
        (1, True, 0),
        (1, True, 0),
        (1, True, 0),
    ]
    assert await office.claimable() == ["/x"]


async def test_the_body_then_its_name_then_the_folders_are_synced(
    office: Office, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    listen(told.append)
    real = os.fsync

    def fsync(fd: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(fd).st_mode)
        place = place_of(fd)
        told.append(f"sync {place.name}" if is_folder else "sync the body")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    await office.commit("/new/folder/x")
    syncs = [
        (index, what)
        for index, what in enumerate(told)
        if what.startswith("sync") and index < told.index("after directory sync")
    ]
    assert [what for _, what in syncs][:2] == ["sync the body", "sync incoming"]
    assert syncs[1][0] < told.index("before journal commit")
    folders = {what for index, what in syncs if index > told.index("after rename")}
    assert folders == {"sync folder", "sync new", "sync data"}


async def test_a_batch_is_one_transaction_and_keeps_the_order_of_arrival(
    office: Office, listen: Listen
) -> None:
    reached: list[str] = []
    listen(reached.append)
    orders = [office.order("/same", f"{number}".encode()) for number in range(20)]
    outcomes = await office.batch(*orders)
    assert reached.count("before journal commit") == 1
    assert [outcome.replaced for outcome in outcomes if isinstance(outcome, Stored)] == [False] + [
        True
    ] * 19
    assert office.stored() == {"same": b"19"}
    assert await office.claimable() == ["/same"] * 20


async def test_what_is_told_of_an_upload_is_what_was_stored(office: Office) -> None:
    stored = await office.commit("/a/x.txt", b"12345", mime="text/plain")
    assert (stored.path, stored.bytes, stored.mime, stored.replaced) == (
        "/a/x.txt",
        5,
        "text/plain",
        False,
    )
    assert await office.claimable() == ["/a/x.txt"]
    assert (office.root / "a/x.txt").stat().st_mode & 0o777 == 0o640


async def test_without_handlers_there_is_nothing_to_release(office: Office) -> None:
    office.handlers = []
    await office.commit()
    assert office.deliveries() == []
    assert await office.claimable() == []


# -- one bad order among good ones


async def test_a_bad_order_does_not_keep_its_neighbours_from_being_stored(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    (office.root / "file").write_bytes(b"")
    (office.root / "taken").write_bytes(b"")
    sick = office.order("/sick")
    monkeypatch.setattr(
        os, "fsync", failing(5, lambda fd: place_of(fd).name == sick.upload.id, os.fsync)
    )
    outcomes = await office.batch(
        office.order("/one"),
        office.order("/file/below"),
        office.order("/taken", on_conflict="reject"),
        sick,
        office.order("/taken", must_be_new=True),
        office.order("/../escape"),
        office.order("/text", mime="no \udcff unicode"),
        office.order("/two"),
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
    assert office.bodies() == []
    assert set(office.stored()) == {"file", "taken", "one", "two"}
    assert await office.claimable() == ["/one", "/two"]


async def test_two_of_a_batch_that_want_one_new_name_do_not_both_get_it(office: Office) -> None:
    outcomes = await office.batch(
        office.order("/x", b"1", on_conflict="reject"),
        office.order("/x", b"2", on_conflict="reject"),
        office.order("/x", b"3", on_conflict="rename"),
        office.order("/x", b"4", must_be_new=True),
        office.order("/x", b"5", on_conflict="rename"),
    )
    assert [code(outcome) for outcome in outcomes] == [
        "stored",
        "conflict",
        "stored",
        "already_exists",
        "stored",
    ]
    assert office.stored() == {"x": b"1", "x-1": b"3", "x-2": b"5"}
    assert await office.claimable() == ["/x", "/x-1", "/x-2"]


# -- the journal fails


def fill_journal(office: Office, *, full: bool) -> None:
    """Let the journal grow no further, as on a full disk, or let it grow again."""

    def operation(db: sqlite3.Connection) -> None:
        pages = db.execute("PRAGMA page_count").fetchone()[0] if full else 1 << 30
        db.execute(f"PRAGMA max_page_count = {pages}")

    office.journal._database.submit(operation).result(SECONDS)


async def test_a_full_journal_refuses_every_upload_and_leaves_nothing(office: Office) -> None:
    fill_journal(office, full=True)
    big: dict[str, Any] = {"mime": "m" * 5000}
    outcomes = await office.batch(office.order("/a", **big), office.order("/b", **big))
    assert [code(outcome) for outcome in outcomes] == ["journal_unavailable"] * 2
    assert nothing_left(office)
    fill_journal(office, full=False)
    await office.commit("/c", **big)
    assert await office.claimable() == ["/c"]


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


async def test_a_row_that_cannot_be_taken_back_keeps_an_empty_body_as_its_mark(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = office.journal.outbox
    monkeypatch.setattr(outbox, "forget", Broken(outbox.forget, 1))
    rename = failing(errno.ENOSPC, lambda *_, **__: True, os.rename)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        assert (await refusal(office)).code == "no_space"
    (mark,) = office.bodies()
    assert office.incoming.stat(mark).st_size == 0
    assert len(office.deliveries()) == 1

    await office.commit("/next")
    assert office.bodies() == []
    assert office.deliveries() == [("/next", "ready")]
    assert await office.claimable() == ["/next"]


async def test_a_url_is_good_again_even_where_the_row_cannot_be_taken_back(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = office.journal.outbox
    monkeypatch.setattr(outbox, "forget", Broken(outbox.forget, 1))
    grant = Grant("PUT", "/x", 1 << 40, once="nonce")
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", failing(errno.ENOSPC, lambda *_, **__: True, os.rename))
        assert (await refusal(office, "/x", grant=grant)).code == "no_space"
    office.once.check_unused("nonce")
    assert (await office.commit("/x", grant=grant)).path == "/x"


# -- the disk fails


async def test_a_disk_without_room_for_the_name_or_the_folder_is_told_as_507(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("rename", "mkdir"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, failing(errno.ENOSPC, lambda *_, **__: True, getattr(os, name)))
            assert (await refusal(office, f"/for {name}/x")).code == "no_space"
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", failing(errno.EDQUOT, lambda *_, **__: True, os.link))
        assert (await refusal(office, "/new/x", on_conflict="reject")).code == "no_space"
    assert nothing_left(office)
    assert (await office.commit("/new/x")).path == "/new/x"


async def test_a_body_that_does_not_fit_the_file_system_is_told(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", failing(errno.EFBIG, lambda *_: True, os.write))
        assert (await refusal(office)).code == "too_large"
    assert nothing_left(office)


async def test_private_names_that_cannot_be_synced_refuse_the_batch_and_leave_nothing(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(5, lambda fd: place_of(fd).name == "incoming", os.fsync))
        outcomes = await office.batch(office.order("/a"), office.order("/b"))
    assert [code(outcome) for outcome in outcomes] == ["internal"] * 2
    assert nothing_left(office)


async def test_a_folder_that_cannot_be_synced_means_no_answer_and_the_event_still(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    (office.root / "good").mkdir()
    (office.root / "sick").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(5, lambda fd: place_of(fd).name == "sick", os.fsync))
        outcomes = await office.batch(office.order("/sick/x"), office.order("/good/x"))
    assert [code(outcome) for outcome in outcomes] == ["unknownoutcome", "stored"]
    assert set(office.stored()) == {"sick/x", "good/x"}
    assert await office.claimable() == ["/good/x", "/sick/x"]


async def test_a_large_body_that_cannot_be_synced_is_refused_and_removed(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = office.order("/large")
    order.body.write([b"x" * (1 << 20)])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(5, lambda fd: place_of(fd).name == order.upload.id, os.fsync))
        with pytest.raises(Refusal) as caught:
            await office.committer.commit(order)
    assert caught.value.code == "internal"
    assert nothing_left(office)


async def test_a_large_body_whose_sync_nobody_waits_for_any_more_is_removed(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, entered, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    real = os.fsync

    def fsync(fd: int) -> None:
        loop.call_soon_threadsafe(entered.set)
        assert go_on.wait(SECONDS)
        real(fd)

    order = office.order("/large")
    order.body.write([b"x" * (1 << 20)])
    monkeypatch.setattr(os, "fsync", fsync)
    commit = asyncio.create_task(office.committer.commit(order))
    await entered.wait()
    commit.cancel()
    with pytest.raises(asyncio.CancelledError):
        await commit
    go_on.set()
    await asyncio.to_thread(office.disk.shutdown)
    await asyncio.sleep(0)  # the loop hears of the thread's end
    assert nothing_left(office)


# -- somebody else is quicker


class Intruder:
    """Puts a file of its own under the names of uploads between the look and the link."""

    def __init__(self, office: Office, *names: str) -> None:
        self._office = office
        self._names = list(names)

    def __call__(self, point: str) -> None:
        if point == "after journal commit":
            for name in self._names:
                (self._office.root / name).write_bytes(b"theirs")


@pytest.mark.parametrize(
    ("facts", "expected"),
    [({"on_conflict": "reject"}, "conflict"), ({"must_be_new": True}, "already_exists")],
)
async def test_a_name_taken_after_the_look_is_not_replaced(
    office: Office, listen: Listen, facts: dict[str, Any], expected: str
) -> None:
    listen(Intruder(office, "x"))
    assert (await refusal(office, **facts)).code == expected
    assert office.stored() == {"x": b"theirs"}
    assert office.bodies() == []
    assert office.deliveries() == []


async def test_with_rename_a_name_taken_after_the_look_is_gone_round(
    office: Office, listen: Listen
) -> None:
    listen(Intruder(office, "x", "x-1"))
    stored = await office.commit(on_conflict="rename")
    assert stored.path == "/x-2"
    assert office.stored() == {"x": b"theirs", "x-1": b"theirs", "x-2": b"body"}
    assert await office.claimable() == ["/x-2"]


async def test_replacing_does_not_care_who_else_was_there(office: Office, listen: Listen) -> None:
    listen(Intruder(office, "x"))
    await office.commit()
    assert office.stored() == {"x": b"body"}


async def test_a_folder_moved_away_meanwhile_takes_the_file_with_it(
    office: Office, listen: Listen, tmp_path: Path
) -> None:
    def move(point: str) -> None:
        if point == "after journal commit":
            (office.root / "folder").rename(office.root / "elsewhere")
            (office.root / "folder").symlink_to(tmp_path)

    listen(move)
    await office.commit("/folder/x")
    assert office.stored() == {"elsewhere/x": b"body"}
    assert not (tmp_path / "x").exists()


# -- our own mistakes


@pytest.mark.parametrize("point", STEPS[:-1])
async def test_a_committer_that_breaks_down_gives_no_answer_and_goes_on_with_the_next(
    office: Office, listen: Listen, point: str
) -> None:
    broken: list[str] = []

    def breaks(name: str) -> None:
        if name == point and not broken:
            broken.append(name)
            raise RuntimeError("a mistake of ours")

    listen(breaks)
    if point == "after file sync":
        with pytest.raises(UnknownOutcome):
            await office.commit("/x")
    else:
        outcomes = await office.batch(office.order("/x"), office.order("/y"))
        known = point == "after directory sync"  # all is done by then: that is an honest answer
        assert {code(outcome) for outcome in outcomes} == {"stored" if known else "unknownoutcome"}
    assert broken == [point]
    assert (await office.commit("/next")).path == "/next"
    # Whatever was published has its events; whatever was not, none that could be claimed.
    assert await office.claimable() == sorted(f"/{name}" for name in office.stored())


async def test_every_descriptor_is_given_back(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    await office.batch(office.order("/warm/up"), office.order("/x"))
    before = len(os.listdir("/proc/self/fd"))
    await office.batch(*(office.order(f"/warm/{number}") for number in range(20)))
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", failing(5, lambda *_, **__: True, os.rename))
        await office.batch(*(office.order(f"/warm/{number}") for number in range(20)))
    (office.root / "warm/file").touch()
    await office.batch(*(office.order(f"/warm/file/{number}") for number in range(20)))
    assert len(os.listdir("/proc/self/fd")) <= before


# -- the rest of its interface


async def test_functions_run_between_batches_and_their_faults_come_back(office: Office) -> None:
    assert await office.committer.between_batches(lambda: threading.current_thread().name) == "committer"

    def fail() -> None:
        raise FileNotFoundError("it is gone")

    with pytest.raises(FileNotFoundError, match="it is gone"):
        await office.committer.between_batches(fail)
    assert (await office.commit()).path == "/x"


async def test_an_upload_nobody_waits_for_any_more_is_committed_all_the_same(office: Office) -> None:
    go_on = threading.Event()
    holding = asyncio.create_task(office.committer.between_batches(lambda: go_on.wait(SECONDS)))
    order: CommitRequest = office.order("/x")
    commit = asyncio.create_task(office.committer.commit(order))
    await asyncio.sleep(0)
    commit.cancel()
    go_on.set()
    await holding
    await office.committer.between_batches(lambda: None)
    assert await office.claimable() == ["/x"]
    assert commit.cancelled()


async def test_what_is_queued_at_the_end_is_committed(tmp_path: Path) -> None:
    office = Office(tmp_path)
    commits = [asyncio.create_task(office.commit(f"/{number}")) for number in range(5)]
    await asyncio.sleep(0)
    await asyncio.to_thread(office.close)
    assert [stored.path for stored in await asyncio.gather(*commits)] == [f"/{n}" for n in range(5)]
    assert list(IncomingDirectory(tmp_path / "incoming").upload_ids()) == []
