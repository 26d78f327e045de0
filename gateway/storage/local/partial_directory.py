"""The folder `.gateway/partials/`: partial uploads of all processes, each in three files.

    <id>.json   the head, written once, before anything is told; without it nothing else counts
    <id>        the body; while it is committed it is in `incoming/<slot>/` instead
    <id>.at     the cells of the offset; who has the partial upload open holds an flock on it
    identities/ symlinks from identities to the ids, see `partial_identities`

The flock ends with the process that holds it. The cells are created first and removed last, so that
whatever lacks its head, and is not locked, is a rest. Names that are none of these are left alone.
Blocking.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.domain.partial import PartialHead, PartialStatus
from gateway.domain.partial_heads import head_from_json, head_to_json
from gateway.domain.upload_fields import is_upload_id
from gateway.errors import OUT_OF_DESCRIPTORS
from gateway.storage.local import partial_cells
from gateway.storage.local.entries import entry_names
from gateway.storage.local.partial_identities import PartialIdentities
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.storage")

HEAD: Final = ".json"
ASIDE: Final = ".json.new"
CELLS: Final = ".at"
_SUFFIXES: Final = frozenset({"", HEAD, ASIDE, CELLS})

MAX_HEAD_BYTES: Final = 1 << 20
"""Bytes of a head that are read: headers, metadata and a grant are far below."""

MAX_SYNCED: Final = 4096
"""Partial uploads of which this process remembers that their newest cell is durable."""


class PartialLockedError(Exception):
    """Another request has the partial upload open."""


class PartialCommittingError(PartialLockedError):
    """A commit has failed, and its rows are not deleted yet: until then the body is not moved back."""


class PartialDirectory:
    """The folder. `durable` is False where a power loss may take what is in it."""

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder.absolute()
        self.fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.durable = durable
        self._incoming = folder.parent / "incoming"
        self._synced: dict[str, int] = {}
        self.identities = PartialIdentities(folder / "identities", self.has_head, durable=durable)
        self.sync()  # the name of that folder

    def close(self) -> None:
        """Close the folder."""
        self.identities.close()
        os.close(self.fd)

    def sync(self) -> None:
        """Make the folder's entries durable. Raises `OSError`."""
        if self.durable:
            os.fsync(self.fd)

    # -- names

    def exists(self, name: str) -> bool:
        """Tell whether there is such an entry."""
        return self.stat(name) is not None

    def has_head(self, upload_id: str) -> bool:
        """Tell whether there is such a partial upload."""
        return self.exists(upload_id + HEAD)

    def stat(self, name: str) -> os.stat_result | None:
        """Return the lstat of an entry, None where there is none."""
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def open(self, name: str, flags: int, mode: int = 0o600) -> int:
        """Return a descriptor of a file. Raises `OSError`."""
        return os.open(name, flags | os.O_CLOEXEC | os.O_NOFOLLOW, mode, dir_fd=self.fd)

    def remove(self, name: str) -> None:
        """Delete an entry, if it exists."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.fd)

    def names(self) -> Iterator[str]:
        """Iterate over all entries, in no order."""
        return entry_names(self.fd)

    def upload_ids(self) -> Iterator[str]:
        """Iterate over the ids of the partial uploads."""
        for name in self.names():
            if name.endswith(HEAD) and is_upload_id(name.removesuffix(HEAD)):
                yield name.removesuffix(HEAD)

    # -- heads, and what can be told without a lock

    def read_head(self, upload_id: str) -> PartialHead | None:
        """Return a head; None where there is none, or none that this gateway can read.

        Raises `OSError` where no descriptor is left.
        """
        try:
            fd = self.open(upload_id + HEAD, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in OUT_OF_DESCRIPTORS:
                raise  # it may be there
            return None
        with open(fd, "rb") as file:
            content = file.read(MAX_HEAD_BYTES)
        try:
            return head_from_json(content)
        except ValueError as error:
            log.warning(
                "the head of partial upload %s cannot be read: %s",
                upload_id,
                error,
                extra=event("partial.unreadable", upload_id=upload_id),
            )
            return None

    def write_head(self, head: PartialHead) -> None:
        """Write a head aside, durably but for its name. Raises `OSError`."""
        fd = self.open(head.upload.id + ASIDE, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        with open(fd, "wb") as file:
            file.write(head_to_json(head))
            file.flush()
            if self.durable:
                os.fsync(fd)

    def latest(self, upload_id: str) -> float | None:
        """Return the Unix time of the latest byte, or of the head; None where there is no head."""
        head, body = self.stat(upload_id + HEAD), self.stat(upload_id)
        return None if head is None else (body or head).st_mtime

    def status(self, upload_id: str, *, durable: bool = True) -> PartialStatus | None:
        """Describe a partial upload; None where there is none, also while its commit removes it.

        Unless `durable`, the offset may not be on stable storage yet. Raises `OSError`.
        """
        if not is_upload_id(upload_id) or (head := self.read_head(upload_id)) is None:
            return None
        try:
            fd = self.open(upload_id + CELLS, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            cell, written = partial_cells.newest(fd), os.fstat(fd).st_mtime
            if durable and cell is not None:
                self._sync_cells(upload_id, fd, cell.sequence)
        finally:
            os.close(fd)
        body = self.stat(upload_id)
        if body is None and not self.is_being_committed(upload_id) and not self.exists(upload_id):
            return None
        offset = 0 if cell is None else cell.offset
        if body is not None:  # a power loss with `durability none`
            offset, written = min(offset, body.st_size), body.st_mtime
        length = head.upload.content_length if cell is None else cell.length
        appends = 0 if cell is None else cell.appends
        return PartialStatus(head, offset, length, written, appends)

    def is_being_committed(self, upload_id: str) -> bool:
        """Tell whether the body is in the folder of some slot."""
        return any(os.path.lexists(slot / upload_id) for slot in self._incoming.glob("[0-9]*"))

    # -- locks

    def lock(self, upload_id: str) -> int | None:
        """Lock a partial upload; return the descriptor of its cells, None where there is none.

        Raises `PartialLockedError`, `OSError`.
        """
        if not is_upload_id(upload_id):
            return None
        try:
            fd = self.open(upload_id + CELLS, os.O_RDWR)
        except FileNotFoundError:
            return None
        return fd if self._lock(fd) else None

    def lock_new(self, upload_id: str) -> int:
        """Create and lock the cells of a new partial upload; return their descriptor."""
        while True:
            fd = self.open(upload_id + CELLS, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            # `remove_rests` of another process may have them now, and then they are gone.
            if self._lock(fd, wait=True):
                return fd

    @staticmethod
    def _lock(fd: int, *, wait: bool = False) -> bool:
        """Lock a file; return whether it still has its name. Where not, it is closed."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            os.close(fd)
            raise (PartialLockedError if isinstance(error, BlockingIOError) else error) from None
        if os.fstat(fd).st_nlink:
            return True
        os.close(fd)
        return False

    def open_cells(self, upload_id: str, fd: int) -> partial_cells.Cells:
        """Return the cells of a partial upload that is locked. Raises `OSError`."""
        cells = partial_cells.Cells(fd, durable=self.durable)
        if cells.newest is not None:
            self._sync_cells(upload_id, fd, cells.newest.sequence)
        return cells

    def _sync_cells(self, upload_id: str, fd: int, sequence: int) -> None:
        """Make the newest cell durable: who wrote it may have died before, or is about to."""
        if self.durable and self._synced.get(upload_id) != sequence:
            os.fdatasync(fd)
            self.remember_synced(upload_id, sequence)

    def remember_synced(self, upload_id: str, sequence: int) -> None:
        """Note that a cell is durable: the next request of this process need not sync it again."""
        if len(self._synced) >= MAX_SYNCED:
            self._synced.clear()
        self._synced[upload_id] = sequence

    # -- the end of a partial upload

    def take_back(self, incoming_fd: int, upload_id: str) -> bool:
        """Move the body of an unpublished partial upload back here, durably; False where it is none.

        Raises `OSError`.
        """
        if not self.has_head(upload_id):
            return False
        with contextlib.suppress(FileNotFoundError):
            os.rename(upload_id, upload_id, src_dir_fd=incoming_fd, dst_dir_fd=self.fd)
        if self.durable:
            self.sync()
            os.fsync(incoming_fd)
        return True

    def remove_files(self, upload_id: str, *, cells: bool = True) -> None:
        """Delete the files of a partial upload that is locked; its cells last."""
        for suffix in (HEAD, ASIDE, "", CELLS) if cells else (HEAD, ASIDE, ""):
            self.remove(upload_id + suffix)
        self._synced.pop(upload_id, None)

    def remove_rests(self) -> int:
        """Delete what crashes left of uploads that ended, or never began; return of how many.

        Heads whose body is nowhere belong to committed uploads. What is locked is left alone, and what
        cannot be read or removed: it is tried again.
        """
        removed = 0
        try:
            for name in self.names():
                upload_id, dot, suffix = name.partition(".")
                if is_upload_id(upload_id) and dot + suffix in _SUFFIXES:
                    with contextlib.suppress(PartialLockedError, OSError):
                        removed += self._remove_rest(upload_id, is_aside=dot + suffix == ASIDE)
        except OSError as error:
            log.error("partial uploads cannot be listed: %s", error, extra=event("partials.unreadable"))
        return removed

    def _remove_rest(self, upload_id: str, *, is_aside: bool) -> bool:
        """Delete the files of an upload if they are a rest, else at most a head that is aside."""
        if not is_aside and not self._is_rest(upload_id):
            return False
        fd = self.lock(upload_id)
        try:
            if self._is_rest(upload_id):
                self.remove_files(upload_id, cells=fd is not None)
                return True
            self.remove(upload_id + ASIDE)
            return False
        finally:
            if fd is not None:
                os.close(fd)

    def _is_rest(self, upload_id: str) -> bool:
        if not self.has_head(upload_id) or not self.exists(upload_id + CELLS):
            return True
        # A start may bring the body back meanwhile: it is here, there, or here again.
        places = (self.exists, self.is_being_committed, self.exists)
        return not any(place(upload_id) for place in places)
