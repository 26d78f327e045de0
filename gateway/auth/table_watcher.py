"""Keeps what a process has of a small shared file as the file has it, in a thread of its own.

A change is in force within the interval, without a restart: the loop never waits for the file. The same
thread records uses.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from typing import Final, Generic, Protocol, TypeVar

from gateway.errors import ConfigError

USES_INTERVAL: Final = 5.0
"""Seconds between two writes of uses."""

Table = TypeVar("Table")


class ReadsTable(Protocol[Table]):
    """The file: `read` returns `latest` itself where it is what the file has."""

    def read(self, latest: Table | None = None) -> Table:
        """Return what the file has. Blocking. Raises `ConfigError`."""
        ...


class TableWatcher(ABC, Generic[Table]):
    """Looks at the file of `store` every `interval` seconds. With `reports` it logs each change.

    `name` is what the file has: of the thread, and for messages.
    """

    def __init__(self, store: ReadsTable[Table], name: str, interval: float, *, reports: bool) -> None:
        self._reader = store
        self._name = name
        self._interval = interval
        self._reports = reports
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name=name, daemon=True)
        self._table: Table | None = None
        self._noted = time.monotonic()
        self._failed = False

    def start(self) -> None:
        """Start the thread; `refresh` comes before it and the first request."""
        self._thread.start()

    def close(self) -> None:
        """End the thread, and record the last uses. Blocking."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        self._poll(note_uses=True)

    def refresh(self, *, with_uses: bool = False) -> Table:
        """Take over what the file has now, and return it. Blocking. Raises `ConfigError`.

        `with_uses`: also where nothing but uses has changed.
        """
        with self._lock:
            before = self._table
            table = self._table = self._reader.read(None if with_uses else before)
            if table is not before:
                self._replace(table)
                if before is not None and self._reports:
                    self._log_changes(before, table)
            return table

    def _watch(self) -> None:
        while not self._stopped.wait(self._interval):
            self._poll(note_uses=time.monotonic() - self._noted >= USES_INTERVAL)

    def _poll(self, *, note_uses: bool) -> None:
        """Read what has changed. Where that fails, what was read last stays in force."""
        try:
            self.refresh()
            if note_uses:
                self._noted = time.monotonic()
                self._note_uses()
        except ConfigError as error:
            self._fail(str(error), is_defect=False)
        except Exception:  # a defect: without this thread nothing could be revoked any more
            self._fail(f"the {self._name} cannot be read", is_defect=True)
        else:
            self._failed = False

    def _fail(self, message: str, *, is_defect: bool) -> None:
        if not self._failed:
            self._log_failure(message, with_traceback=is_defect)
        self._failed = True

    @abstractmethod
    def _replace(self, table: Table) -> None:
        """Let `table` be in force."""

    @abstractmethod
    def _note_uses(self) -> None:
        """Record the uses since the last call. Blocking. Raises `ConfigError`."""

    @abstractmethod
    def _log_changes(self, before: Table, after: Table) -> None:
        """Log what has changed: the file has it already."""

    @abstractmethod
    def _log_failure(self, message: str, *, with_traceback: bool) -> None:
        """Log that the file cannot be used."""
