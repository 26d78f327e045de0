"""Identities of partial uploads: symlinks `r-<hash>` to their ids in `.gateway/partials/`.

They stay for a day after completion, so that a client whose answer was lost can ask. Blocking.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from typing import Final

from gateway.domain.partial import COMPLETED_TTL
from gateway.domain.partial_heads import is_upload_id
from gateway.storage.local.partial_directory import HEAD, PartialDirectory

_PREFIX: Final = "r-"
_ASIDE: Final = ".link"


class PartialIdentities:
    """The identities in the folder of partial uploads, shared by all processes."""

    def __init__(self, folder: PartialDirectory) -> None:
        self._folder = folder

    def resolve(self, identity: str) -> str | None:
        """Return the id of the upload that an identity stands for, None where there is none."""
        return self._target(_link(identity))

    def give(self, identity: str, upload_id: str) -> str | None:
        """Let an identity stand for an upload; return the id for which it stood before."""
        fd, link, aside = self._folder.fd, _link(identity), upload_id + _ASIDE
        with self._locked():
            before = self._target(link)
            self._folder.remove(aside)
            os.symlink(upload_id, aside, dir_fd=fd)
            os.rename(aside, link, src_dir_fd=fd, dst_dir_fd=fd)
        return before

    def end(self, identity: str, upload_id: str, *, completed: bool) -> None:
        """Forget an identity that still stands for an upload; where it is `completed`, after a day."""
        link = _link(identity)
        with self._locked():
            if self._target(link) != upload_id:
                return
            if completed:
                os.utime(link, dir_fd=self._folder.fd, follow_symlinks=False)
            else:
                self._folder.remove(link)

    def remove_ended(self, now: float) -> int:
        """Forget identities of uploads that ended more than a day before `now`; return how many."""
        removed = 0
        for name in self._folder.names():
            if name.startswith(_PREFIX) and self._is_ended(name, now):
                with self._locked():
                    if self._is_ended(name, now):  # another upload may have it by now
                        self._folder.remove(name)
                        removed += 1
        return removed

    def _is_ended(self, link: str, now: float) -> bool:
        status, upload_id = self._folder.stat(link), self._target(link)
        if status is None or upload_id is None or self._folder.exists(upload_id + HEAD):
            return False
        return status.st_mtime + COMPLETED_TTL < now

    def _target(self, link: str) -> str | None:
        try:
            upload_id = os.readlink(link, dir_fd=self._folder.fd)
        except OSError:  # there is none, or it is no link
            return None
        return upload_id if is_upload_id(upload_id) else None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Exclude others while a symlink is read and then changed."""
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._folder.fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _link(identity: str) -> str:
    return _PREFIX + hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()
