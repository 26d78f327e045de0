"""Counts what the operations of a journal cost, in steps of SQLite's virtual machine."""

from __future__ import annotations

import sqlite3
from concurrent.futures import Future
from typing import TypeVar

import pytest

from gateway.domain.sqlite_writer import Operation
from gateway.events.database import Database

T = TypeVar("T")


class StepCounter:
    """Counts steps of SQLite's virtual machine, a hundred at a time, in each operation."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.worst = self.operations = 0
        submit = Database.submit

        def counted(database: Database, operation: Operation[T]) -> Future[T]:
            return submit(database, lambda db: self._run(db, operation))

        monkeypatch.setattr(Database, "submit", counted)

    def _run(self, db: sqlite3.Connection, operation: Operation[T]) -> T:
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        db.set_progress_handler(count, 100)
        try:
            return operation(db)
        finally:
            db.set_progress_handler(None, 0)
            self.worst, self.operations = max(self.worst, steps), self.operations + 1


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> StepCounter:
    return StepCounter(monkeypatch)
