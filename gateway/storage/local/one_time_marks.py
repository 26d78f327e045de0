"""Which one-time URLs have been used up, in `.gateway/once/`, shared by all processes.

One rule: a mark is made by a call that fails where there is one (a symbolic link that leads
nowhere: its name is the URL's, its text the upload's), before the upload is published, and it is
taken back durably before the body of an upload that was not published goes. So a mark whose body
still lies in `incoming/` counts for nothing after a crash. All methods block; any thread may call
them.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

from gateway.errors import Refusal

CONSUME_TTL: Final = 24 * 3600
"""Seconds after its expiry until which an upload that had begun before may still use its URL up."""

MARK_TTL: Final = CONSUME_TTL + 3600
"""Seconds after the expiry from which the mark is needed no more: nothing could ask for it."""


class OneTimeMarks:
    """The marks. `durable` is False where power loss may take them. `clock` returns Unix seconds."""

    def __init__(
        self, folder: Path, *, durable: bool = True, clock: Callable[[], float] = time.time
    ) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._durable = durable
        self._clock = clock

    def close(self) -> None:
        """Close the folder."""
        os.close(self._fd)

    def check_unused(self, nonce: str) -> None:
        """Raise Refusal `used_up` where some upload has used the URL `nonce` up."""
        if self._user(nonce) is not None:
            raise _used_up()

    def consume(self, nonce: str, upload_id: str, expires: int) -> None:
        """Let the URL `nonce` be used up by this upload, and by no other in any process.

        Taking it again for the same upload changes nothing. Made durable by `sync`. Raises Refusal
        `used_up`, `expired` for an upload that took longer than a day, `OSError`.
        """
        if self._clock() > expires + CONSUME_TTL:
            raise Refusal(
                "expired", "this signed URL expired more than a day before the upload was done"
            )
        try:
            os.symlink(f"{expires} {upload_id}", nonce, dir_fd=self._fd)
        except FileExistsError:
            if self._user(nonce) != upload_id:
                raise _used_up() from None

    def release(self, nonce: str, upload_id: str) -> None:
        """Let the URL be used again, if it was this upload that used it. Made durable by `sync`."""
        if self._user(nonce) == upload_id:
            self._remove(nonce)

    def release_all(self, upload_ids: Collection[str]) -> None:
        """Give back, durably, what these uploads have used: they were never published."""
        ids = set(upload_ids)
        found = [nonce for nonce, _, upload_id in self._marks() if upload_id in ids]
        for nonce in found:
            self._remove(nonce)
        if found:
            self.sync()

    def remove_expired(self) -> int:
        """Remove the marks of URLs that expired long ago; return how many."""
        before = self._clock() - MARK_TTL
        old = [nonce for nonce, expires, _ in self._marks() if expires < before]
        for nonce in old:
            self._remove(nonce)
        return len(old)

    def sync(self) -> None:
        """Make what was taken and given back durable. Raises `OSError`."""
        if self._durable:
            os.fsync(self._fd)

    def _user(self, nonce: str) -> str | None:
        """Return the upload that has used a URL up."""
        try:
            return os.readlink(nonce, dir_fd=self._fd).partition(" ")[2]
        except FileNotFoundError:
            return None

    def _remove(self, nonce: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(nonce, dir_fd=self._fd)

    def _marks(self) -> Iterator[tuple[str, int, str]]:
        """Iterate over the marks: the URL's name, its expiry, the upload's id."""
        for nonce in os.listdir(self._fd):
            with contextlib.suppress(OSError, ValueError):
                expires, _, upload_id = os.readlink(nonce, dir_fd=self._fd).partition(" ")
                yield nonce, int(expires), upload_id


def _used_up() -> Refusal:
    return Refusal("used_up", "this URL was good for one upload, and has been used: ask for a new one")
