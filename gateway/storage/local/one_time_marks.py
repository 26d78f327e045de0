"""Which one-time URLs are used up, in `.gateway/once/`, shared by all processes.

A used one-time URL is recorded as a symlink from its nonce to the upload id, because `symlink(2)` fails
atomically if the name exists. It is created before the upload is published, and removed durably before
the body of an unpublished upload is deleted. So a mark whose body is still in `incoming/` counts for
nothing after a crash. All methods block; any thread may call them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

from gateway.errors import Refusal
from gateway.storage.local.entries import entry_names

CONSUME_TTL: Final = 24 * 3600
"""Seconds after the expiry of a URL in which an upload that began before may still consume it."""

MARK_TTL: Final = CONSUME_TTL + 3600
"""Seconds after the expiry of a URL for which its mark is kept: later no upload can need it."""


CONFIRM_INTERVAL: Final = 24 * 3600.0
"""Seconds, by a clock that nobody sets, between the two times at which a mark is seen to be old."""

MAX_EXPIRED: Final = 100_000
"""Old marks that are remembered from one time to the other; the rest follows later."""


class OneTimeMarks:
    """The marks. `durable` is False where a power loss may take them.

    `clock` returns Unix seconds, `steady` seconds that are never set.
    """

    def __init__(
        self,
        folder: Path,
        *,
        durable: bool = True,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._durable = durable
        self._clock = clock
        self._steady = steady
        self._expired: frozenset[str] = frozenset()
        self._confirmable = steady()

    def close(self) -> None:
        """Close the folder."""
        os.close(self._fd)

    def check_unused(self, nonce: str) -> None:
        """Raise `Refusal("used_up")` where an upload has consumed the URL `nonce`."""
        if self._consumer(nonce) is not None:
            raise _used_up()

    def consume(self, nonce: str, upload_id: str, expires: int) -> None:
        """Record the URL `nonce` as used by this upload, so that no other in any process can use it.

        A second call for the same upload changes nothing. `sync` makes it durable. Raises `Refusal`:
        `used_up`, `expired` for an upload that took longer than a day; `OSError`.
        """
        if self._clock() > expires + CONSUME_TTL:
            raise Refusal(
                "expired", "this signed URL expired more than a day before the upload was done"
            )
        try:
            os.symlink(f"{expires} {upload_id}", nonce, dir_fd=self._fd)
        except FileExistsError:
            if self._consumer(nonce) != upload_id:
                raise _used_up() from None

    def release(self, nonce: str, upload_id: str) -> None:
        """Let the URL be used again, if this upload consumed it. `sync` makes that durable."""
        if self._consumer(nonce) == upload_id:
            self._remove(nonce)

    def release_all(self, upload_ids: Collection[str]) -> None:
        """Release, durably, what these uploads consumed: they were never published."""
        ids = set(upload_ids)
        nonces = [nonce for nonce, _, upload_id in self._marks() if upload_id in ids]
        for nonce in nonces:
            self._remove(nonce)
        if ids:  # also where an earlier release has removed the marks, and could not sync that
            self.sync()

    def remove_expired(self) -> int:
        """Remove the marks of URLs that expired long ago; return how many.

        Only those that were old a day ago too: a machine may start with its clock ahead, and a URL whose
        mark is gone can be used again.
        """
        if (steady := self._steady()) < self._confirmable:
            return 0
        before = self._clock() - MARK_TTL
        expired = (nonce for nonce, expires, _ in self._marks() if expires < before)
        old = frozenset(itertools.islice(expired, MAX_EXPIRED))
        confirmed = old & self._expired
        for nonce in confirmed:
            self._remove(nonce)
        self._expired, self._confirmable = old - confirmed, steady + CONFIRM_INTERVAL
        return len(confirmed)

    def sync(self) -> None:
        """Make consumed and released marks durable. Raises `OSError`."""
        if self._durable:
            os.fsync(self._fd)

    def _consumer(self, nonce: str) -> str | None:
        """Return the upload that consumed a URL."""
        try:
            return os.readlink(nonce, dir_fd=self._fd).partition(" ")[2]
        except FileNotFoundError:
            return None

    def _remove(self, nonce: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(nonce, dir_fd=self._fd)

    def _marks(self) -> Iterator[tuple[str, int, str]]:
        """Iterate over the marks: nonce, expiry of the URL, upload id."""
        for nonce in entry_names(self._fd):
            with contextlib.suppress(OSError, ValueError):
                expires, _, upload_id = os.readlink(nonce, dir_fd=self._fd).partition(" ")
                yield nonce, int(expires), upload_id


def _used_up() -> Refusal:
    return Refusal("used_up", "this URL was good for one upload, and has been used: ask for a new one")
