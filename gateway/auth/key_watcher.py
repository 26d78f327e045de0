"""Keeps the API keys of a process as the file has them."""

from __future__ import annotations

import logging
from typing import Final

from gateway.auth.api_keys import ApiKeys
from gateway.auth.key_store import KeyStore, KeyTable
from gateway.auth.table_watcher import TableWatcher
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.keys")

POLL_INTERVAL: Final = 1.0
"""Seconds between two looks at the file."""


class KeyWatcher(TableWatcher[KeyTable]):
    """Watches the file of `store` for `keys`. With `reports` it logs each change."""

    def __init__(self, store: KeyStore, keys: ApiKeys, *, reports: bool) -> None:
        super().__init__(store, "keys", POLL_INTERVAL, reports=reports)
        self.keys = keys
        self._store = store

    def _replace(self, table: KeyTable) -> None:
        self.keys.replace(table.secrets)

    def _note_uses(self) -> None:
        if uses := self.keys.take_uses():
            self._store.note_uses(uses)

    def _log_failure(self, message: str, *, with_traceback: bool) -> None:
        log.error("%s", message, exc_info=with_traceback, extra=event("keys.unavailable"))

    def _log_changes(self, before: KeyTable, after: KeyTable) -> None:
        secrets = {secret.digest for secret in before.secrets}
        rotated = {secret.key.name for secret in after.secrets if secret.digest not in secrets}
        for name, key in after.keys.items():
            old = before.keys.get(name)
            if old is None:
                log.info("key %s: created", name, extra=event("key.created", key=name))
            elif key.revoked is not None and old.revoked is None:
                log.info("key %s: revoked", name, extra=event("key.revoked", key=name))
            elif name in rotated:
                log.info("key %s: rotated", name, extra=event("key.rotated", key=name))
        for name in before.keys.keys() - after.keys.keys():
            log.info("key %s: removed", name, extra=event("key.removed", key=name))
