"""Keeps the API keys of a process as the file has them, in a thread of its own.

A change is in force within `POLL_INTERVAL`, without a restart: the loop never waits for the file. The
same thread records when keys were used last.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from gateway.auth.api_keys import ApiKeys
from gateway.auth.key_store import KeyStore, KeyTable
from gateway.errors import ConfigError
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.keys")

POLL_INTERVAL: Final = 1.0
"""Seconds between two looks at the file."""

USES_INTERVAL: Final = 5.0
"""Seconds between two writes of when keys were used."""


class KeyWatcher:
    """Watches the file of `store` for `keys`. With `reports` it logs each change."""

    def __init__(self, store: KeyStore, keys: ApiKeys, *, reports: bool) -> None:
        self.keys = keys
        self._store = store
        self._reports = reports
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="keys", daemon=True)
        self._table: KeyTable | None = None
        self._noted = time.monotonic()
        self._failed = False

    def load(self) -> None:
        """Read the keys before the first request. Blocking. Raises `ConfigError`."""
        self._take(self._store.read())

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread, and record the last uses. Blocking."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        self._poll(note_uses=True)

    def _watch(self) -> None:
        while not self._stopped.wait(POLL_INTERVAL):
            self._poll(note_uses=time.monotonic() - self._noted >= USES_INTERVAL)

    def _poll(self, *, note_uses: bool) -> None:
        """Read what has changed. Where that fails, the keys that are known stay in force."""
        try:
            if self._table is not None:
                self._take(self._store.read(self._table))
            if note_uses:
                self._noted = time.monotonic()
                if uses := self.keys.take_uses():
                    self._store.note_uses(uses)
        except ConfigError as error:
            if not self._failed:
                log.error("%s", error, extra=event("keys.unavailable"))
            self._failed = True
        except Exception:  # a defect: without this thread no key could be revoked any more
            if not self._failed:
                log.exception("the keys cannot be read", extra=event("keys.unavailable"))
            self._failed = True
        else:
            self._failed = False

    def _take(self, table: KeyTable) -> None:
        before, self._table = self._table, table
        if table is before:
            return
        self.keys.replace(table.secrets)
        if before is not None and self._reports:
            _log_changes(before, table)


def _log_changes(before: KeyTable, after: KeyTable) -> None:
    """Log which keys were created, rotated and revoked since: the file has them already."""
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
