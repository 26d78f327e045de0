"""How many partial uploads there may be: in all, and of one client. Counted over all processes.

Each creation lists the folder, and reads the heads that this process has not seen: a list of 10,000
names takes some 5 ms of a thread. Two processes that create at once may go over a cap by one. Blocking.
"""

from __future__ import annotations

import threading
from collections import Counter

from gateway.domain.partial import MAX_PARTIALS, MAX_PARTIALS_PER_CLIENT
from gateway.errors import Refusal
from gateway.storage.local.partial_directory import PartialDirectory


class PartialCaps:
    """Counts the partial uploads of a folder. Thread-safe."""

    def __init__(self, folder: PartialDirectory) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._clients: dict[str, str] = {}
        self._counts: Counter[str] = Counter()

    def check(self, client: str) -> None:
        """Raise `Refusal` where a client may not create another one now."""
        with self._lock:
            self._update()
            if len(self._clients) >= MAX_PARTIALS:
                raise Refusal(
                    "overloaded", f"{MAX_PARTIALS} unfinished uploads are kept: try again later"
                )
            if self._counts[client] >= MAX_PARTIALS_PER_CLIENT:
                raise Refusal(
                    "too_many_requests",
                    f"this client has {MAX_PARTIALS_PER_CLIENT} unfinished uploads: finish some",
                )

    def _update(self) -> None:
        present = set(self._folder.upload_ids())
        for upload_id in self._clients.keys() - present:
            client = self._clients.pop(upload_id)
            self._counts[client] -= 1
            if not self._counts[client]:
                del self._counts[client]
        for upload_id in present - self._clients.keys():
            head = self._folder.read_head(upload_id)
            client = "" if head is None else head.client
            self._clients[upload_id] = client
            self._counts[client] += 1
