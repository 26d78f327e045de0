"""Digests of partial uploads that go on from one request to the next one, in memory of one process.

Where another process has appended meanwhile, or one has ended, the whole file is read again at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.domain.digests import RunningDigest, new_digest

MAX_KEPT: Final = 1024
"""Partial uploads whose digests are kept: some 500 bytes for each."""


class RunningDigests:
    """Digests by upload id, each with the number of bytes that it is of."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[int, dict[str, RunningDigest]]] = {}

    def take(self, upload_id: str, size: int, algorithms: Sequence[str]) -> dict[str, RunningDigest]:
        """Return the digests of the first `size` bytes; an empty dict where they are not known."""
        if not algorithms:
            return {}
        if size == 0:
            return {algorithm: new_digest(algorithm) for algorithm in algorithms}
        kept_size, kept = self._kept.pop(upload_id, (0, {}))
        return kept if kept_size == size else {}

    def keep(self, upload_id: str, size: int, digests: dict[str, RunningDigest]) -> None:
        """Keep digests of the first `size` bytes for the next request."""
        if not digests:
            return
        if len(self._kept) >= MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[upload_id] = (size, digests)
