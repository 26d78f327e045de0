"""The uploads that are on their way now, and what became of the latest failed ones.

In memory only: what is committed is the journal's to tell. Lives on the server's loop. May
import `model` and `errors`.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from gateway.domain.model import Upload
from gateway.errors import Refusal

MAX_UPLOADS: Final = 10_000
"""Uploads at once; one more is refused (503)."""

REMEMBERED: Final = 1_000
"""Failed uploads whose end can still be asked for."""

LARGEST_BATCH: Final = 1 << 20
SMALLEST_BATCH: Final = 64 << 10
BUFFERED_BYTES: Final = 64 << 20
"""What all uploads together may hold in memory before it is written."""


@dataclass(slots=True)
class Progress:
    """One upload's place: `state` is admitting, receiving, committing or failed."""

    upload: Upload
    state: str
    received: int
    since: float
    error: str | None = None

    def story(self) -> dict[str, Any]:
        """Return what a status page tells."""
        return {
            "upload_id": self.upload.id,
            "state": self.state,
            "path": self.upload.path,
            "bytes": self.received,
            "content_length": self.upload.content_length,
            "created": self.upload.created,
            "error": self.error,
            "handlers": [],
        }


class Inflight:
    """All uploads between their first header and their answer.

    `gathered` counts the bytes of all bodies that wait in memory to be written.
    """

    def __init__(self) -> None:
        self.gathered = 0
        self._active: dict[str, Progress] = {}
        self._ended: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._active)

    @property
    def batch_bytes(self) -> int:
        """How much of a body to gather before it is written: less, when all hold much already."""
        return LARGEST_BATCH if self.gathered < BUFFERED_BYTES else SMALLEST_BATCH

    def begin(self, upload: Upload) -> Progress:
        """Count an upload in. Raises `Refusal("overloaded")`."""
        if len(self._active) >= MAX_UPLOADS:
            raise Refusal("overloaded", f"{MAX_UPLOADS} uploads are on their way already")
        progress = Progress(upload, "admitting", 0, time.time())
        self._active[upload.id] = progress
        return progress

    def end(self, progress: Progress, error: str | None = None) -> None:
        """Count an upload out; with `error` (an error code) its end is remembered for a while."""
        self._active.pop(progress.upload.id, None)
        if error is not None:
            progress.state, progress.error = "failed", error
            self._ended[progress.upload.id] = progress.story()  # without its headers: may be megabytes
            if len(self._ended) > REMEMBERED:
                self._ended.popitem(last=False)

    def story(self, upload_id: str) -> dict[str, Any] | None:
        """Return the story of an upload that is active or has failed lately."""
        progress = self._active.get(upload_id)
        return self._ended.get(upload_id) if progress is None else progress.story()
