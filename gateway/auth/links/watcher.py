"""Keeps the links of a process as the file has them, in a thread of its own.

A change is in force within `POLL_INTERVAL`, without a restart: the loop never waits for the file. The
same thread records uses.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from gateway.auth.links.holders import LinkHolders
from gateway.auth.links.store import LinkStore, LinkTable
from gateway.errors import ConfigError
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.links")

POLL_INTERVAL: Final = 0.5
"""Seconds between two looks at the file: what is revoked is refused everywhere within a second."""

SPREAD_MARGIN: Final = 0.1
"""Seconds that another process may take to read a change."""

USES_INTERVAL: Final = 5.0
"""Seconds between two writes of uses."""


class LinkWatcher:
    """Watches the file of `store` for `holders`. With `reports` it logs each change.

    `is_alone`: no other process of this gateway watches it.
    """

    def __init__(self, store: LinkStore, holders: LinkHolders, *, reports: bool, is_alone: bool) -> None:
        self.holders = holders
        self.store = store
        self.spread = 0.0 if is_alone else POLL_INTERVAL + SPREAD_MARGIN
        """Seconds until the other processes have a change."""
        self._reports = reports
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="links", daemon=True)
        self._table: LinkTable | None = None
        self._noted = time.monotonic()
        self._failed = False

    def load(self) -> None:
        """Read the links before the first request. Blocking. Raises `ConfigError`."""
        self.refresh()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread, and record the last uses. Blocking."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        self._poll(note_uses=True)

    def refresh(self, *, with_uses: bool = False) -> LinkTable:
        """Take over what the file has now, and return it. Blocking. Raises `ConfigError`.

        `with_uses`: also where nothing but uses has changed.
        """
        with self._lock:
            before = self._table
            table = self._table = self.store.read(None if with_uses else before)
            if table is not before:
                self.holders.replace(table)
                if before is not None and self._reports:
                    _log_changes(before, table)
            return table

    def _watch(self) -> None:
        while not self._stopped.wait(POLL_INTERVAL):
            self._poll(note_uses=time.monotonic() - self._noted >= USES_INTERVAL)

    def _poll(self, *, note_uses: bool) -> None:
        """Read what has changed. Where that fails, the links that are there stay in force."""
        try:
            self.refresh()
            if note_uses:
                self._noted = time.monotonic()
                if uses := self.holders.take_uses():
                    self.store.note_uses(uses)
        except ConfigError as error:
            if not self._failed:
                log.error("%s", error, extra=event("links.unavailable"))
            self._failed = True
        except Exception:  # a defect: without this thread no link could be revoked any more
            if not self._failed:
                log.exception("the links cannot be read", extra=event("links.unavailable"))
            self._failed = True
        else:
            self._failed = False


def _log_changes(before: LinkTable, after: LinkTable) -> None:
    """Log which links were created and revoked since: the file has them already."""
    for link_id, link in after.links.items():
        old = before.links.get(link_id)
        if old is None:
            log.info(
                "link %s: created",
                link_id,
                extra=event(
                    "link.created",
                    link=link_id,
                    kind=link.kind,
                    folder=link.folder,
                    creator=link.creator,
                ),
            )
        elif link.revoked is not None and old.revoked is None:
            log.info("link %s: revoked", link_id, extra=event("link.revoked", link=link_id))
    for link_id in before.links.keys() - after.links.keys():
        log.info("link %s: removed", link_id, extra=event("link.removed", link=link_id))
