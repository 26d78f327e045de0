"""One writer thread: shared transactions, each error where it belongs, a connection tried again."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.domain import sqlite_writer
from gateway.domain.sqlite_writer import SqliteWriter, WriterConnection

TIMEOUT = 30.0
MAX_BATCH = 3


class CountingConnection(WriterConnection):
    """A connection that counts its commits."""

    def __init__(self, path: Path) -> None:
        super().__init__(sqlite3.connect(path, isolation_level=None, check_same_thread=False))
        self.db.execute("CREATE TABLE IF NOT EXISTS t (x UNIQUE)")
        self.commits = 0

    def commit(self) -> None:
        super().commit()
        self.commits += 1


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine splits no transaction."""
    monkeypatch.setattr(sqlite_writer, "MAX_TRANSACTION_TIME", TIMEOUT)


@pytest.fixture
def connections() -> list[CountingConnection]:
    return []


@pytest.fixture
def writer(tmp_path: Path, connections: list[CountingConnection]) -> Iterator[SqliteWriter]:
    def connect() -> CountingConnection:
        connections.append(CountingConnection(tmp_path / "t.db"))
        return connections[-1]

    writer = SqliteWriter(connect, name="test", max_batch=MAX_BATCH)
    yield writer
    writer.close()


def insert(value: int) -> Callable[[sqlite3.Connection], int]:
    return lambda db: db.execute("INSERT INTO t VALUES (?)", (value,)).rowcount


def submit_together(writer: SqliteWriter, *values: int) -> list[Future[int]]:
    """Submit while the thread is busy, so that all wait."""
    entered, go_on = threading.Event(), threading.Event()

    def block(_: sqlite3.Connection) -> None:
        entered.set()
        go_on.wait(TIMEOUT)

    blocked = writer.submit(block)
    entered.wait(TIMEOUT)
    futures = [writer.submit(insert(value)) for value in values]
    go_on.set()
    blocked.result(TIMEOUT)
    return futures


def test_what_waits_shares_transactions_up_to_the_limit(
    writer: SqliteWriter, connections: list[CountingConnection]
) -> None:
    for future in submit_together(writer, *range(MAX_BATCH + 1)):
        assert future.result(TIMEOUT) == 1
    assert connections[0].commits == 3  # the one that blocked, three together, the last one


def test_the_result_of_an_operation_does_not_wait_for_long_ones_behind_it(
    writer: SqliteWriter, connections: list[CountingConnection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "MAX_TRANSACTION_TIME", 0.0)  # each takes longer than that
    for future in submit_together(writer, *range(MAX_BATCH)):
        assert future.result(TIMEOUT) == 1
    writer.close()
    assert connections[0].commits == 1 + MAX_BATCH


def test_an_operation_that_fails_spoils_no_other(writer: SqliteWriter) -> None:
    first, second, third = submit_together(writer, 1, 1, 2)
    assert first.result(TIMEOUT) == third.result(TIMEOUT) == 1
    with pytest.raises(sqlite3.IntegrityError):
        second.result(TIMEOUT)


def test_a_connection_that_fails_is_tried_again_by_the_next_operation(tmp_path: Path) -> None:
    errors: list[Exception] = [OSError("no disk")]

    def connect() -> CountingConnection:
        if errors:
            raise errors.pop()
        return CountingConnection(tmp_path / "t.db")

    writer = SqliteWriter(connect, name="test", max_batch=MAX_BATCH)
    with pytest.raises(OSError, match="no disk"):
        writer.submit(insert(1)).result(TIMEOUT)
    assert writer.submit(insert(1)).result(TIMEOUT) == 1
    writer.close()


def test_a_close_after_a_failed_connection_does_not_connect_again() -> None:
    connected = []

    def connect() -> CountingConnection:
        connected.append(1)
        raise OSError("no disk")

    writer = SqliteWriter(connect, name="test", max_batch=MAX_BATCH)
    with pytest.raises(OSError, match="no disk"):
        writer.submit(insert(1)).result(TIMEOUT)
    writer.close()
    assert len(connected) == 1


def test_a_close_finishes_what_is_queued_and_refuses_the_rest(writer: SqliteWriter) -> None:
    futures = submit_together(writer, 1, 2)
    writer.close()
    assert [future.result(0) for future in futures] == [1, 1]
    with pytest.raises(sqlite3.ProgrammingError, match="test: closed"):
        writer.submit(insert(3)).result(TIMEOUT)


# -- operations in the thread of their caller


class Held:
    """An operation that holds the connection until `let_go`."""

    def __init__(self, writer: SqliteWriter) -> None:
        self._entered, self._go_on = threading.Event(), threading.Event()
        self._future = writer.submit(self._operation)
        assert self._entered.wait(TIMEOUT)

    def _operation(self, _: sqlite3.Connection) -> None:
        self._entered.set()
        assert self._go_on.wait(TIMEOUT)

    def let_go(self) -> None:
        self._go_on.set()
        self._future.result(TIMEOUT)


def thread_name(_: sqlite3.Connection) -> str:
    return threading.current_thread().name


def rows(writer: SqliteWriter) -> list[int]:
    return writer.submit(lambda db: [x for (x,) in db.execute("SELECT x FROM t")]).result(TIMEOUT)


def test_an_operation_runs_in_the_thread_of_its_caller_where_nobody_writes(writer: SqliteWriter) -> None:
    assert writer.run(thread_name) == "test"  # the thread that connects
    assert writer.run(thread_name) == threading.current_thread().name
    assert writer.run(insert(1)) == 1
    assert rows(writer) == [1]


def test_an_operation_waits_for_the_writer_where_it_is_busy(writer: SqliteWriter) -> None:
    held = Held(writer)
    with ThreadPoolExecutor(1) as callers:
        waiting = callers.submit(writer.run, thread_name)
        while not writer._jobs:
            pass  # the caller has found the connection in use, and queues its operation
        held.let_go()
        assert waiting.result(TIMEOUT) == "test"


def test_a_caller_takes_along_what_waits_in_the_order_of_the_calls(
    writer: SqliteWriter, connections: list[CountingConnection]
) -> None:
    writer.submit(thread_name).result(TIMEOUT)
    ran: list[str] = []

    def note(name: str) -> Callable[[sqlite3.Connection], str]:
        def operation(db: sqlite3.Connection) -> str:
            ran.append(name)
            return thread_name(db)

        return operation

    with writer._lock:  # the writer's own thread is not woken yet
        waiting: list[Future[str]] = [Future(), Future()]
        writer._jobs.extend((note(name), future) for name, future in zip("ab", waiting, strict=True))
    commits = connections[0].commits
    own = writer.run(note("own"))
    assert ran == ["a", "b", "own"]
    assert {own, *(future.result(TIMEOUT) for future in waiting)} == {threading.current_thread().name}
    assert connections[0].commits == commits + 1


def test_an_operation_that_fails_in_a_caller_spoils_none_that_it_takes_along(
    writer: SqliteWriter,
) -> None:
    writer.run(insert(1))
    waiting: Future[int] = Future()
    writer._jobs.append((insert(2), waiting))
    with pytest.raises(sqlite3.IntegrityError):
        writer.run(insert(1))
    assert waiting.result(TIMEOUT) == 1
    with pytest.raises(sqlite3.IntegrityError):  # alone too
        writer.run(insert(1))
    doomed: Future[int] = Future()
    writer._jobs.append((insert(2), doomed))
    assert writer.run(insert(3)) == 1
    with pytest.raises(sqlite3.IntegrityError):
        doomed.result(TIMEOUT)
    assert rows(writer) == [1, 2, 3]


def test_many_threads_at_once_lose_no_operation_and_keep_each_its_order(writer: SqliteWriter) -> None:
    count = 200
    seen: dict[int, list[int]] = {number: [] for number in range(4)}

    def operation(number: int, value: int) -> Callable[[sqlite3.Connection], int]:
        def work(db: sqlite3.Connection) -> int:
            seen[number].append(value)
            return insert(number * count + value)(db)

        return work

    def work(number: int) -> int:
        futures = []
        for value in range(count):
            if (value + number) % 3:
                futures.append(writer.submit(operation(number, value)))
            else:
                assert writer.run(operation(number, value)) == 1
        return sum(future.result(TIMEOUT) for future in futures)

    with ThreadPoolExecutor(len(seen)) as callers:
        list(callers.map(work, seen))
    assert sorted(rows(writer)) == list(range(count * len(seen)))
    assert all(values == list(range(count)) for values in seen.values())


def test_a_close_waits_for_a_caller_and_refuses_the_next(
    writer: SqliteWriter, connections: list[CountingConnection]
) -> None:
    writer.submit(thread_name).result(TIMEOUT)
    entered, go_on = threading.Event(), threading.Event()

    def hold(db: sqlite3.Connection) -> int:
        entered.set()
        assert go_on.wait(TIMEOUT)
        return insert(1)(db)

    with ThreadPoolExecutor(2) as callers:
        running = callers.submit(writer.run, hold)
        assert entered.wait(TIMEOUT)
        queued = writer.submit(insert(2))
        closing = callers.submit(writer.close)
        while not writer._closed:
            pass
        with pytest.raises(sqlite3.ProgrammingError, match="test: closed"):
            writer.run(insert(3))
        go_on.set()
        assert running.result(TIMEOUT) == queued.result(TIMEOUT) == 1
        closing.result(TIMEOUT)
    with pytest.raises(sqlite3.ProgrammingError, match="test: closed"):
        writer.run(insert(3))
    with pytest.raises(sqlite3.ProgrammingError):  # the connection is closed
        connections[0].db.execute("SELECT 1")


def test_a_caller_gets_the_error_of_a_connection_that_fails() -> None:
    def connect() -> CountingConnection:
        raise OSError("no disk")

    writer = SqliteWriter(connect, name="test", max_batch=MAX_BATCH)
    for _ in range(2):
        with pytest.raises(OSError, match="no disk"):
            writer.run(insert(1))
    writer.close()
