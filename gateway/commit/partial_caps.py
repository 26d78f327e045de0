"""How many partial uploads there may be: in all, and of one client. Counted over all processes.

A creation lists the folder, and reads the heads that this process has not seen. A list of 10,000 takes
25 to 80 ms of a thread, so long lists are made less often: between them each process counts its own.
Several processes that create at once may go over a cap by a few. Blocking.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Final

from gateway.domain.partial import MAX_PARTIALS, MAX_PARTIALS_PER_CLIENT
from gateway.errors import Refusal
from gateway.storage.local.partial_directory import PartialDirectory

SHORT_LIST: Final = 0.005
"""Seconds up to which the folder is listed for each creation."""

PAUSE: Final = 10
"""A longer list is not made again before this many times its own duration: a tenth of a thread."""


class PartialCaps:
    """Counts the partial uploads of a folder. Thread-safe."""

    def __init__(self, folder: PartialDirectory) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._clients: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._next_list = 0.0

    def check(self, client: str) -> None:
        """Raise `Refusal` where a client may not create another one now."""
        with self._lock:
            if (started := time.monotonic()) >= self._next_list:
                self._list()
                ended = time.monotonic()
                if ended - started > SHORT_LIST:
                    self._next_list = ended + PAUSE * (ended - started)
            if len(self._clients) >= MAX_PARTIALS:
                raise Refusal(
                    "overloaded", f"{MAX_PARTIALS} unfinished uploads are kept: try again later"
                )
            if self._counts[client] >= MAX_PARTIALS_PER_CLIENT:
                raise Refusal(
                    "too_many_requests",
                    f"this client has {MAX_PARTIALS_PER_CLIENT} unfinished uploads: finish some",
                )

    def add(self, upload_id: str, client: str) -> None:
        """Count an upload that this process has created."""
        with self._lock:
            self._add(upload_id, client)

    def _list(self) -> None:
        present = set(self._folder.upload_ids())
        for upload_id in self._clients.keys() - present:
            client = self._clients.pop(upload_id)
            self._counts[client] -= 1
            if not self._counts[client]:
                del self._counts[client]
        for upload_id in present - self._clients.keys():
            head = self._folder.read_head(upload_id)
            self._add(upload_id, "" if head is None else head.client)

    def _add(self, upload_id: str, client: str) -> None:
        if upload_id not in self._clients:
            self._clients[upload_id] = client
            self._counts[client] += 1
