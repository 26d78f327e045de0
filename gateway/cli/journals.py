"""The uploads of a directory whose server does not run, read from the journals of its slots."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from gateway.endpoints.admin.removals import version_of
from gateway.endpoints.admin.upload_pages import KEPT_HEADERS, HandlerFacts, journal_page
from gateway.endpoints.admin.upload_sources import (
    HELD,
    HeldUploads,
    StoredUploads,
    UploadSelection,
    UploadSource,
    merge_pages,
)
from gateway.errors import ConfigError
from gateway.events.journal import Journal
from gateway.settings import Settings
from gateway.storage.local.state_dir import StateDirectory, existing_slots


async def read_uploads(
    settings: Settings, selection: UploadSelection, before: str, limit: int
) -> tuple[list[dict[str, Any]], str | None]:
    """Return a page of committed and held uploads, as `/-/uploads` does, and the cursor of the next one.

    The journals are open, under their locks, for this page only: a starting server waits milliseconds.
    Raises `ConfigError` where there is none, `LockHeldError` where a server has started meanwhile.
    """
    with _open_journals(settings) as journals:
        sources = [source for journal in journals for source in _sources(journal)]
        if selection.state in HELD:
            sources = [source for source in sources if source.has_held]
        pages = [await source.page(selection, before, limit) for source in sources]
        rows, after = merge_pages(pages, limit)
        await _mark_removed(journals, rows)
    if selection.state is not None:
        rows = [row for row in rows if row["state"] == selection.state]
    return rows, after


async def find_upload(settings: Settings, upload_id: str) -> dict[str, Any] | None:
    """Return what the journals know of one upload, as `/-/uploads/<id>` does, None for an unknown one.

    What NATS knows of its handlers is left out. Raises as `read_uploads`.
    """
    with _open_journals(settings) as journals:
        for journal in journals:
            row = await asyncio.wrap_future(journal.ledger.upload_history(upload_id))
            if row is not None:
                page = journal_page(row, HandlerFacts())
                page.pop(KEPT_HEADERS, None)
                await _mark_removed(journals, [page])
                return page
    return None


def _sources(journal: Journal) -> list[UploadSource]:
    return [StoredUploads(journal.uploads), HeldUploads(journal.held_log)]


async def _mark_removed(journals: Sequence[Journal], rows: Sequence[dict[str, Any]]) -> None:
    """Set the state of those stored uploads to `removed` whose very version was removed."""
    stored = [row for row in rows if row["state"] == "stored" and row.get("etag")]
    versions = [version_of(row) for row in stored]
    for journal in journals:
        removed = await asyncio.wrap_future(journal.deletions.find(versions))
        for row, is_removed in zip(stored, removed, strict=True):
            row["state"] = "removed" if is_removed else row["state"]


@contextmanager
def _open_journals(settings: Settings) -> Iterator[list[Journal]]:
    slots = [StateDirectory(settings.state, slot) for slot in existing_slots(settings.state)]
    if not slots:
        raise ConfigError(
            "there is no journal: no gateway has served this directory yet; add --directory DIR",
            str(settings.directory),
        )
    with ExitStack() as stack:
        yield [_open(slot, stack) for slot in slots if slot.journal.exists()]


def _open(slot: StateDirectory, stack: ExitStack) -> Journal:
    slot.prepare()
    slot.lock.acquire()
    stack.callback(slot.lock.release)
    journal = Journal(slot.journal)
    stack.callback(journal.close)
    journal.open()
    return journal
