"""The journal's one connection: what waits together is written together, and nobody else gets in."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from gateway.domain.model import UPLOADED
from gateway.domain.sqlite_writer import Operation
from gateway.errors import ConfigError, EventEngineUnavailable
from gateway.events.database import MAX_BATCH, Database, StatementValues
from gateway.events.journal import Journal
from gateway.events.journal_schema import VERSION
from gateway.events.protocols import NewEvent
from tests.support import TESTS
from tests.support.records import (
    claim_deliveries,
    delivery_states,
    publish_uploads,
    result_of,
    settle_run,
    upload_record,
)

GOLDEN = TESTS / "golden"


def prepare(db: sqlite3.Connection) -> None:
    db.execute("CREATE TABLE IF NOT EXISTS t (x INTEGER PRIMARY KEY)")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "d.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    opened = Database(path, full=False)
    opened.open(prepare)
    yield opened
    opened.close()


class Gate:
    """Holds the journal's thread, so that what is queued meanwhile becomes one batch."""

    def __init__(self, database: Database) -> None:
        self._open = threading.Event()
        entered = threading.Event()

        def hold(_: sqlite3.Connection) -> None:
            entered.set()
            assert self._open.wait(30)

        self._held = database.submit(hold)
        assert entered.wait(30)

    def open(self) -> None:
        self._open.set()
        result_of(self._held)


def insert(database: Database, value: int) -> Future[None]:
    def operation(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO t VALUES (?)", (value,))

    return database.submit(operation)


def values(database: Database) -> list[int]:
    return result_of(
        database.submit(lambda db: [x for (x,) in db.execute("SELECT x FROM t ORDER BY x")])
    )


def commits(database: Database) -> list[str]:
    """Return the list into which every COMMIT from now on is put."""
    seen: list[str] = []

    def trace(statement: str) -> None:
        if statement == "COMMIT":
            seen.append(statement)

    result_of(database.submit(lambda db: db.set_trace_callback(trace)))
    return seen


def test_operations_that_wait_together_share_one_transaction(database: Database) -> None:
    seen = commits(database)
    gate = Gate(database)
    seen.clear()
    waiting = [insert(database, value) for value in range(100)]
    gate.open()
    for future in waiting:
        result_of(future)
    assert len(seen) == 2  # the gate's and theirs
    assert values(database) == list(range(100))


def test_a_batch_is_bounded(database: Database) -> None:
    seen = commits(database)
    gate = Gate(database)
    seen.clear()
    waiting = [insert(database, value) for value in range(MAX_BATCH + 1)]
    gate.open()
    for future in waiting:
        result_of(future)
    assert len(seen) == 3


def test_an_operation_that_fails_fails_alone(database: Database) -> None:
    gate = Gate(database)
    waiting = [insert(database, value) for value in (1, 2, 1, 3)]
    gate.open()
    faults = [type(future.exception(30)) for future in waiting]
    assert faults == [type(None), type(None), sqlite3.IntegrityError, type(None)]
    assert values(database) == [1, 2, 3]


def test_what_an_operation_did_before_it_failed_is_undone(database: Database) -> None:
    def half(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO t VALUES (7)")
        raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        result_of(database.submit(half))
    assert values(database) == []


def test_an_operation_nobody_waits_for_any_more_is_not_done(database: Database) -> None:
    gate = Gate(database)
    waiting = [insert(database, value) for value in (1, 2, 3)]
    assert waiting[1].cancel()
    gate.open()
    assert values(database) == [1, 3]


def test_what_is_queued_at_the_end_is_still_written(path: Path) -> None:
    database = Database(path, full=False)
    database.open(prepare)
    waiting = [insert(database, value) for value in range(10)]
    database.close()
    database.close()
    assert all(future.done() and future.exception() is None for future in waiting)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        result_of(insert(database, 99))
    again = Database(path)
    again.open(prepare)
    assert values(again) == list(range(10))
    again.close()


def test_what_a_future_has_answered_survives_the_death_of_the_process(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys\n"
        "from gateway.events.journal import Journal\n"
        "from tests.support.records import result_of, upload_record\n"
        "journal = Journal(pathlib.Path(sys.argv[1]))\n"
        "journal.open()\n"
        "result_of(journal.outbox.record_uploads([upload_record('u1')]))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    words = [sys.executable, "-c", program, str(tmp_path / "j.db")]
    assert subprocess.run(words, cwd=GOLDEN.parent.parent, check=False).returncode == -9
    journal = Journal(tmp_path / "j.db")
    journal.open()
    assert delivery_states(journal) == {("e-u1", "h"): "ready"}
    journal.close()


def test_while_it_is_open_nobody_else_can_open_it(database: Database, path: Path) -> None:
    result_of(insert(database, 1))
    second = Database(path)
    with pytest.raises(ConfigError, match=r"another process holds it") as caught:
        second.open(prepare)
    assert caught.value.file == str(path)
    second.close()
    assert values(database) == [1]
    outsider = sqlite3.connect(path, timeout=0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        outsider.execute("SELECT * FROM t")
    outsider.close()


@pytest.mark.parametrize(("full", "synchronous"), [(True, 2), (False, 1)])
def test_the_pragmas_are_in_force(path: Path, full: bool, synchronous: int) -> None:
    database = Database(path, full=full)
    database.open(prepare)

    def pragma(name: str) -> object:
        return result_of(database.submit(lambda db: db.execute(f"PRAGMA {name}").fetchone()[0]))

    assert pragma("synchronous") == synchronous
    assert pragma("journal_mode") == "wal"
    assert pragma("locking_mode") == "exclusive"
    assert pragma("journal_size_limit") == 64 << 20
    database.close()


def test_only_its_owner_may_read_it(database: Database, path: Path) -> None:
    result_of(insert(database, 1))
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"d.db": 0o600, "d.db-wal": 0o600}


# -- files that are no journal of ours


def refused(path: Path) -> str:
    """Try to open the file as a journal; return the message. It must be left as it was."""
    before = path.read_bytes()
    journal = Journal(path)
    with pytest.raises(ConfigError) as caught:
        journal.open()
    journal.close()
    assert caught.value.file == str(path)
    assert path.read_bytes() == before
    return str(caught.value)


def test_a_file_that_is_no_database_is_refused_with_advice(path: Path) -> None:
    path.write_bytes(b"precious notes, no database" * 100)
    assert "move the file away" in refused(path)


@pytest.mark.parametrize(
    "statement", ["PRAGMA user_version = 1", "PRAGMA application_id = 5", "SELECT 1"]
)
def test_a_database_of_another_program_is_refused_and_left_alone(path: Path, statement: str) -> None:
    foreign = sqlite3.connect(path)
    foreign.execute("CREATE TABLE theirs (x)")
    foreign.execute(statement)
    foreign.commit()
    foreign.close()
    assert "of another program: move it away" in refused(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_journal_of_a_newer_gateway_is_refused_with_advice(path: Path) -> None:
    journal = Journal(path)
    journal.open()
    journal.close()
    newer = sqlite3.connect(path)
    newer.execute(f"PRAGMA user_version = {VERSION + 1}")
    newer.close()
    assert "start the newer gateway" in refused(path)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "missing" / "j.db")
    with pytest.raises(ConfigError, match=r"j\.db: the journal cannot be opened"):
        journal.open()


def test_an_empty_file_becomes_a_journal(path: Path) -> None:
    path.touch(0o600)
    journal = Journal(path)
    journal.open()
    result_of(journal.outbox.record_uploads([upload_record("u1")]))
    journal.close()


def test_a_refused_file_is_let_go_of_at_once(path: Path) -> None:
    database = Database(path)

    def fail(_: sqlite3.Connection) -> None:
        raise ConfigError("not this one")

    with pytest.raises(ConfigError, match="not this one") as caught:
        database.open(fail)
    again = Database(path)
    again.open(prepare)
    again.close()
    assert caught.value.file == str(path)


# -- the journals of earlier releases


@pytest.fixture(params=range(1, VERSION))
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    copy = tmp_path / "journal-0.db"
    shutil.copy(GOLDEN / f"journal-v{request.param}.db", copy)
    os.chmod(copy, 0o600)
    journal = Journal(copy)
    journal.open()
    yield journal
    journal.close()


def test_the_journal_of_an_earlier_version_opens_and_is_understood(golden: Journal) -> None:
    known = delivery_states(golden)
    assert set(known.values()) == {"ready", "running", "delayed", "done", "dead"}
    story = result_of(golden.ledger.upload_history("01J0000000000000000000DEAD-0"))
    assert story is not None
    assert (story["path"], story["bytes"], story["mime"]) == ("/upload/dead.bin", 5, "image/png")
    (delivery,) = story["handlers"]
    assert (delivery["state"], delivery["attempt"], delivery["error"]) == ("dead", 2, "no\nway")
    assert [run["outcome"] for run in delivery["runs"]] == ["retry", "dead"]


def test_the_journal_of_an_earlier_version_goes_on_working(golden: Journal) -> None:
    assert result_of(golden.outbox.has_unclaimed()) == 1
    assert result_of(golden.queue.recover()) == (2, 1)
    first = claim_deliveries(golden, "store", 10)
    assert sorted(str(delivery.upload_id)[-6:-2] for delivery in first) == ["0RUN", "EADY", "HELD"]
    for delivery in first:
        settle_run(golden, delivery, "done")
    result_of(golden.outbox.record_uploads([upload_record("fresh")]))
    found = result_of(golden.outbox.recorded_uploads(["01J0000000000000000000DEAD-0"]))
    path, identity = found["01J0000000000000000000DEAD-0"]
    assert (path, identity.inode, identity.mtime_ns) == ("/upload/dead.bin", 8, 9)


@pytest.mark.parametrize("in_caller", [False, True], ids=["in its thread", "in the caller's thread"])
def test_a_transaction_whose_sync_failed_is_written_over_by_the_next_one(
    database: Database, path: Path, *, in_caller: bool
) -> None:
    log = Path(f"{path}-wal")

    def write(operation: Operation[int]) -> int:
        return database.run(operation) if in_caller else result_of(database.submit(operation))

    write(lambda db: db.execute("INSERT INTO t VALUES (1)").rowcount)

    def broken(_: sqlite3.Connection) -> int:
        fault = sqlite3.OperationalError("disk I/O error")
        fault.sqlite_errorname = "SQLITE_IOERR_FSYNC"
        raise fault

    with pytest.raises(sqlite3.OperationalError):
        write(broken)
    before = log.read_bytes()
    assert write(lambda db: db.execute("DELETE FROM t WHERE x = 7").rowcount) == 0
    assert log.read_bytes() != before  # whatever stood there behind the last good one is gone
    before = log.read_bytes()
    assert write(lambda db: db.execute("DELETE FROM t WHERE x = 7").rowcount) == 0
    assert log.read_bytes() == before


# -- a disk that is full, cannot be read, or loses the file


def test_a_start_writes_nothing_to_a_journal_that_needs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    for _ in range(2):
        journal = Journal(path)
        journal.open()
        result_of(journal.queue.recover())
        journal.close()
    before = path.read_bytes()
    journal = Journal(path)
    journal.open()
    result_of(journal.queue.recover())
    log = Path(f"{path}-wal")
    assert not log.exists() or log.stat().st_size == 0
    journal.close()
    assert path.read_bytes() == before


async def test_a_start_on_a_full_disk_succeeds_and_what_ran_is_run_again_once_there_is_space(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_uploads(journal, "a", "b")
    assert len(await journal.queue.claim("h", 1, 0.0)) == 1
    write = Database.write

    def fails(database: Database, statement: str, values: StatementValues) -> Future[None]:
        def operation(db: sqlite3.Connection) -> None:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorname = "SQLITE_FULL"
            raise error

        return database.submit(operation)

    monkeypatch.setattr(Database, "write", fails)
    assert result_of(journal.queue.recover()) == (1, 1)
    with pytest.raises(EventEngineUnavailable, match="disk is full"):
        await journal.queue.claim("h", 9, 0.0)
    monkeypatch.setattr(Database, "write", write)
    again = {delivery.upload_id: delivery.attempt for delivery in await journal.queue.claim("h", 9, 0.0)}
    assert again == {"a": 2, "b": 1}
    assert await journal.queue.claim("h", 9, 0.0) == []


def test_a_file_that_cannot_be_read_is_not_called_damaged_first(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = Journal(path)
    journal.open()
    journal.close()
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"x" * (len(content) - 100))
    with pytest.raises(ConfigError, match="first see whether the disk can be read"):
        open_journal(path)


def open_journal(path: Path) -> Journal:
    journal = Journal(path)
    journal.open()
    return journal


@pytest.mark.parametrize("suffix", ["", "-wal"])
@pytest.mark.parametrize("replaced", [False, True])
async def test_nothing_is_recorded_in_files_that_are_gone_and_what_waits_in_them_is_delivered(
    tmp_path: Path, suffix: str, replaced: bool
) -> None:
    journal = open_journal(tmp_path / "journal.db")
    publish_uploads(journal, "a")
    file, aside = tmp_path / f"journal.db{suffix}", tmp_path / "aside"
    file.rename(aside)
    if replaced:
        shutil.copy(aside, file)
    gone = r"journal\.db.* was removed or replaced"
    with pytest.raises(sqlite3.OperationalError, match=gone):
        publish_uploads(journal, "b")
    with pytest.raises(EventEngineUnavailable, match=gone):
        await journal.outbox.publish([NewEvent("e", UPLOADED, ("h",), {}, 1.0)])
    with pytest.raises(sqlite3.OperationalError, match=gone):
        result_of(journal.ledger.check_writable())
    (delivery,) = await journal.queue.claim("h", 1, 0.0)
    await journal.queue.ack(delivery, 0.1)
    aside.rename(file)
    result_of(journal.ledger.check_writable())
    publish_uploads(journal, "c")
    journal.close()
