"""No operation on the journal's thread costs more with more rows: every commit waits behind it."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from gateway.events import ledger, queue
from gateway.events import ledger_queries as queries
from gateway.events.journal import Journal
from gateway.events.protocols import Selection, Verb, run_all
from tests.support.step_counter import StepCounter

T = TypeVar("T")
LATER = 4e9
FEW, MANY = 400, 4000
Work = Callable[[Journal], Awaitable[Any]]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces so small that the few rows need several of them too."""
    for module, name, size in (
        (queries, "MAX_WINDOW", 50),
        (ledger, "MAX_WINDOW", 50),
        (ledger, "MAX_CHUNK", 20),
        (ledger, "MAX_LISTED", 20),
        (ledger, "MAX_PRUNED", 20),
        (ledger, "MAX_PRUNE_WINDOW", 20),
        (queue, "MAX_ORPHANS", 20),
    ):
        monkeypatch.setattr(module, name, size)


def filled_journal(path: Path, count: int, state: str, due: float = 0.0) -> Journal:
    """Return a journal with `count` old deliveries in `state`, of the handlers `h` and `gone`."""
    journal = Journal(path)
    journal.open()

    def fill(db: sqlite3.Connection) -> None:
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        uploads = "SELECT 'u' || i, '/p', 1, 'a/b', '{}', 1, 1, 1, 1.0, 1.0 FROM n"
        columns = "id, path, bytes, mime, digests, device, inode, mtime_ns, created, committed"
        db.execute(f"INSERT INTO uploads ({columns}) {numbers} {uploads}", (count,))
        if state == "none":
            return
        events = "SELECT 'e' || i, 'APIGW.OnFileUploaded', 'u' || i, 1.0, '{}' FROM n"
        db.execute(
            f"INSERT INTO events (id, type, upload_id, created, body) {numbers} {events}", (count,)
        )
        rows = "SELECT 'e' || i, CASE i % 2 WHEN 0 THEN 'h' ELSE 'gone' END, ?, 1, ?, 1.0, 1.0 FROM n"
        names = "event_id, handler, state, attempt, due, created, updated"
        db.execute(f"INSERT INTO deliveries ({names}) {numbers} {rows}", (count, state, due))

    journal._database.submit(fill).result()
    return journal


async def prune(journal: Journal) -> None:
    await journal.ledger.prune(LATER, LATER)


async def dead_letter_orphans(journal: Journal) -> None:
    while await journal.queue.dead_letter_orphans(["h"]):
        pass


def change(verb: Verb, **fields: Any) -> Work:
    return lambda journal: run_all(journal.ledger, verb, Selection(**fields))


def list_all(**fields: Any) -> Work:
    async def pages(journal: Journal) -> None:
        after: str | None = "0"
        while after is not None:
            after = (await journal.ledger.page(Selection(**fields), after, 100)).next

    return pages


@pytest.mark.parametrize(
    ("state", "due", "work"),
    [
        ("done", 0.0, prune),
        ("relayed", 0.0, prune),
        ("dead", 0.0, prune),
        ("none", 0.0, prune),
        ("ready", 0.0, dead_letter_orphans),
        ("ready", LATER, dead_letter_orphans),
        ("dead", 0.0, change("retry", state="dead")),
        ("ready", LATER, change("retry", handler="h")),
        ("done", 0.0, change("replay", handler="h")),
        ("done", 0.0, change("drop", handler="h")),
        ("dead", 0.0, change("drop", handler="h")),
        ("done", 0.0, list_all()),
        ("done", 0.0, list_all(handler="unknown")),
        ("dead", 0.0, list_all(state="dead", handler="h")),
        ("ready", 0.0, list_all(state="delayed")),
        ("ready", 0.0, lambda journal: journal.ledger.depth()),
        ("ready", 0.0, lambda journal: journal.queue.claim("h", 10, 0.0)),
        ("ready", LATER, lambda journal: journal.queue.claim("h", 10, 0.0)),
        ("ready", LATER, lambda journal: journal.queue.claim_any(10, 0.0)),
        ("ready", LATER, lambda journal: journal.schedule_state.count_waiting("h", 10)),
        ("done", 0.0, lambda journal: journal.ledger.history("e7")),
    ],
)
async def test_more_rows_make_more_operations_and_none_of_them_longer(
    state: str, due: float, work: Work, counter: StepCounter, tmp_path: Path
) -> None:
    worst = {}
    for count in (FEW, MANY):
        journal = filled_journal(tmp_path / f"{count}.db", count, state, due)
        counter.worst = 0
        await work(journal)
        worst[count] = counter.worst
        journal.close()
    assert worst[MANY] <= 2 * worst[FEW] + 2, worst
