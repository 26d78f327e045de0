"""One writer thread: shared transactions, each error where it belongs, a connection tried again."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
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
