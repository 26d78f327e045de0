"""Keeps the links of a process as the file has them."""

from __future__ import annotations

import logging
from typing import Final

from gateway.auth.links.holders import LinkHolders
from gateway.auth.links.store import LinkStore, LinkTable
from gateway.auth.table_watcher import TableWatcher
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.links")

POLL_INTERVAL: Final = 0.5
"""Seconds between two looks at the file: what is revoked is refused everywhere within a second."""

SPREAD_MARGIN: Final = 0.1
"""Seconds that another process may take to read a change."""


class LinkWatcher(TableWatcher[LinkTable]):
    """Watches the file of `store` for `holders`. With `reports` it logs each change.

    `is_alone`: no other process of this gateway watches it.
    """

    def __init__(self, store: LinkStore, holders: LinkHolders, *, reports: bool, is_alone: bool) -> None:
        super().__init__(store, "links", POLL_INTERVAL, reports=reports)
        self.holders = holders
        self.store = store
        self.spread = 0.0 if is_alone else POLL_INTERVAL + SPREAD_MARGIN
        """Seconds until the other processes have a change."""

    def _replace(self, table: LinkTable) -> None:
        self.holders.replace(table)

    def _note_uses(self) -> None:
        if uses := self.holders.take_uses():
            self.store.note_uses(uses)

    def _log_failure(self, message: str, *, with_traceback: bool) -> None:
        log.error("%s", message, exc_info=with_traceback, extra=event("links.unavailable"))

    def _log_changes(self, before: LinkTable, after: LinkTable) -> None:
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
