"""The uploads of a directory whose server does not run, read from the journals of its slots."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Any

from gateway.endpoints.admin.removals import version_of
from gateway.endpoints.admin.uploads import StoredUploads, UploadSelection, merge_pages
from gateway.errors import ConfigError
from gateway.events.journal import Journal
from gateway.settings import Settings
from gateway.storage.local.state_dir import StateDirectory, existing_slots


async def read_uploads(
    settings: Settings, selection: UploadSelection, before: str, limit: int
) -> tuple[list[dict[str, Any]], str | None]:
    """Return a page of committed uploads, as `/-/uploads` does, and the cursor of the next one.

    The journals are open, under their locks, for this page only: a starting server waits milliseconds.
    Raises `ConfigError` where there is none, `LockHeldError` where a server has started meanwhile.
    """
    slots = [StateDirectory(settings.state, slot) for slot in existing_slots(settings.state)]
    if not slots:
        raise ConfigError(
            "there is no journal: no gateway has served this directory yet; add --directory DIR",
            str(settings.directory),
        )
    with ExitStack() as stack:
        journals = [_open(slot, stack) for slot in slots if slot.journal.exists()]
        pages = [
            await StoredUploads(journal.uploads).page(selection, before, limit) for journal in journals
        ]
        rows, after = merge_pages(pages, limit)
        stored = [row for row in rows if row["state"] == "stored" and row.get("etag")]
        versions = [version_of(row) for row in stored]
        for journal in journals:
            removed = await asyncio.wrap_future(journal.deletions.find(versions))
            for row, is_removed in zip(stored, removed, strict=True):
                row["state"] = "removed" if is_removed else row["state"]
    if selection.state is not None:
        rows = [row for row in rows if row["state"] == selection.state]
    return rows, after


def _open(slot: StateDirectory, stack: ExitStack) -> Journal:
    slot.prepare()
    slot.lock.acquire()
    stack.callback(slot.lock.release)
    journal = Journal(slot.journal)
    stack.callback(journal.close)
    journal.open()
    return journal
