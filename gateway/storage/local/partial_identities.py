"""Identities of partial uploads: symlinks to their ids, in a folder that all processes share.

They stay for a day after completion, so that a client whose answer was lost can ask. They have a folder
of their own: there may be more of them than partial uploads, whose folder is listed often. Blocking.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from gateway.domain.partial import COMPLETED_TTL, check_identity_order
from gateway.domain.upload_fields import is_upload_id
from gateway.storage.local.entries import scan

MAX_ENDED: Final = 100_000
"""Identities that ended, remembered from one sweep to the next one; the rest follows later."""

_ASIDE: Final = ".new"


class PartialIdentities:
    """The identities in a folder. `is_partial` tells whether an upload has not ended."""

    def __init__(self, folder: Path, is_partial: Callable[[str], bool], *, durable: bool) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._is_partial = is_partial
        self._durable = durable
        self._ended: frozenset[str] = frozenset()

    def close(self) -> None:
        """Close the folder."""
        os.close(self._fd)

    def resolve(self, identity: str) -> str | None:
        """Return the id of the upload that an identity stands for, None where there is none.

        Raises `OSError` where that cannot be read.
        """
        return self._target(_link(identity))

    def give(self, identity: str, upload_id: str) -> str | None:
        """Let an identity stand for an upload, durably; return the id for which it stood before.

        Raises `Refusal("locked")` where a newer request has it.
        """
        link, aside = _link(identity), upload_id + _ASIDE
        with self._locked():
            before = self._target(link)
            check_identity_order(before, upload_id)
            self._remove(aside)
            os.symlink(upload_id, aside, dir_fd=self._fd)
            os.rename(aside, link, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        if self._durable:
            os.fsync(self._fd)
        return before

    def end(self, identity: str, upload_id: str, *, completed: bool) -> None:
        """Forget an identity that still stands for an upload; where it is `completed`, after a day."""
        link = _link(identity)
        with self._locked():
            if self._target(link) != upload_id:
                return
            if completed:
                os.utime(link, dir_fd=self._fd, follow_symlinks=False)
            else:
                self._remove(link)

    def remove_ended(self, now: float) -> int:
        """Forget identities of uploads that ended more than a day before `now`; return how many.

        Only those that the call before found ended too: a machine may start with its clock ahead.
        """
        ended: set[str] = set()
        with scan(self._fd) as entries:
            for entry in entries:
                if len(ended) < MAX_ENDED and self._is_ended(entry.name, now):
                    ended.add(entry.name)
        confirmed = ended & self._ended
        for name in confirmed:
            with self._locked():
                if self._is_ended(name, now):  # another upload may have it by now
                    self._remove(name)
        self._ended = frozenset(ended - confirmed)
        return len(confirmed)

    def _is_ended(self, name: str, now: float) -> bool:
        with contextlib.suppress(OSError):  # what cannot be read stays, and holds up no other
            upload_id = self._target(name)
            if upload_id is None or self._is_partial(upload_id):
                return False
            status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
            return status.st_mtime + COMPLETED_TTL < now
        return False

    def _target(self, link: str) -> str | None:
        try:
            upload_id = os.readlink(link, dir_fd=self._fd)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.EINVAL}:  # there is none, or it is no link
                return None
            raise  # it may well be there: a caller must not begin anew, nor remove anything
        return upload_id if is_upload_id(upload_id) else None

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Exclude others while a symlink is read and then changed."""
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _link(identity: str) -> str:
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()
