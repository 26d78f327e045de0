"""Builders for tests of the journal: records, journals in a folder, deliveries in a wanted state."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from gateway.domain.model import UPLOADED, Delivery, Identity
from gateway.events.journal import Journal
from gateway.events.outbox import EventRecord, UploadRecord
from gateway.events.protocols import Selection

T = TypeVar("T")
TIMEOUT = 30.0
SOME_FILE = Identity(2, 3, 4)


def result_of(future: Future[T]) -> T:
    """Wait for a result of the journal."""
    return future.result(TIMEOUT)


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Wait for a coroutine from synchronous code: on a loop of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result(TIMEOUT)


def upload_record(
    name: str = "u1",
    handlers: Sequence[str] = ("h",),
    *,
    path: str | None = None,
    identity: Identity = SOME_FILE,
    mime: str = "text/plain",
    body: dict[str, Any] | None = None,
) -> UploadRecord:
    """Return a record of the upload `name` with the event `e-<name>`."""
    event_body = {"path": "/before/any/rename", "bytes": identity.size, **(body or {})}
    return UploadRecord(
        upload_id=name,
        path=path or f"/upload/{name}",
        identity=identity,
        mime=mime,
        digests={"sha-256": "abc"},
        principal={"name": "alice"},
        remote="127.0.0.1",
        created=1000.0,
        events=(EventRecord(f"e-{name}", UPLOADED, event_body, handlers),),
    )


def publish_uploads(journal: Journal, *names: str, handlers: Sequence[str] = ("h",)) -> None:
    """Record uploads and release their events."""
    result_of(journal.outbox.record_uploads([upload_record(name, handlers) for name in names]))
    journal.outbox.release_events([f"e-{name}" for name in names])


def claim_deliveries(journal: Journal, handler: str = "h", limit: int = 1) -> list[Delivery]:
    """Claim what is due."""
    return run_sync(journal.queue.claim(handler, limit, 0.0))


def settle_run(
    journal: Journal, delivery: Delivery, outcome: str, error: str = "why", delay: float = 0.0
) -> None:
    """End a run, after half a second of work: done, retry or dead."""

    async def ack() -> None:
        await journal.queue.ack(delivery, 0.5)

    if outcome == "done":
        run_sync(ack())
    elif outcome == "retry":
        run_sync(journal.queue.retry(delivery, delay, error, 0.5))
    else:
        run_sync(journal.queue.dead_letter(delivery, error, 0.5))


def delivery_states(journal: Journal) -> dict[tuple[str, str], str]:
    """Return the listed state of every delivery, by event and handler."""
    page = run_sync(journal.ledger.page(Selection(), None, 100_000))
    return {(row.event_id, row.handler): row.state for row in page.rows}
