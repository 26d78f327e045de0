"""A partial upload on the local disk that one request has open: its body, its cells, its lock.

After a kill the body has all bytes that were written, for the page cache lives on: they count. After a
reboot only those count that the newest valid cell counts: they were synced before it was written. So it
is after a kill in a request that is to be verified first. What is behind them is cut off. Blocking.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from errno import EBADF, EINVAL, ENOSYS, EOPNOTSUPP, EXDEV
from pathlib import Path
from typing import Final

from gateway.domain import failpoints
from gateway.domain.digests import RunningDigest, new_digest
from gateway.domain.partial import PartialHead
from gateway.errors import Refusal
from gateway.storage.local.incoming import (
    NO_SPACE_ERRNOS,
    WRITEBACK_BYTES,
    IncomingDirectory,
    IncomingFile,
    write_all,
)
from gateway.storage.local.partial_cells import is_this_boot
from gateway.storage.local.partial_directory import PartialDirectory
from gateway.storage.local.xattrs import write_xattr
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.storage")

READ_BYTES: Final = 1 << 20
_NO_COPY: Final = frozenset({EINVAL, ENOSYS, EOPNOTSUPP, EXDEV})


class PartialFile:
    """A partial upload that is open and locked.

    `offset` bytes are settled, `received` are in the body. Threads take turns with it; once it is closed
    `OSError` EBADF is raised. `running` are digests of all bytes, as far as they could be kept.
    """

    def __init__(self, folder: PartialDirectory, head: PartialHead, body_fd: int, cells_fd: int) -> None:
        self.head = head
        self.received = 0
        self.running: dict[str, RunningDigest] = {}
        self._folder = folder
        self._fd, self._cells_fd = body_fd, cells_fd
        self._cells = folder.open_cells(head.upload.id, cells_fd)
        newest = self._cells.newest
        self.offset = 0 if newest is None else newest.offset
        self.length = head.upload.content_length if newest is None else newest.length
        self._unchecked = False
        self._hashes: dict[str, RunningDigest] = {}
        self._written_back = self.offset
        self._lock = threading.RLock()

    @property
    def upload_id(self) -> str:
        """The id of the upload."""
        return self.head.upload.id

    @property
    def is_open(self) -> bool:
        """Tell whether it is neither closed nor removed."""
        return self._fd >= 0

    def recover(self) -> None:
        """Settle what a crash left behind the offset, or cut it off. Raises `OSError`."""
        size, newest = os.fstat(self._fd).st_size, self._cells.newest
        if size < self.offset:
            log.error(
                "%d bytes of partial upload %s are lost, of %d",
                self.offset - size,
                self.upload_id,
                self.offset,
                extra=event("partial.lost", upload_id=self.upload_id),
            )
            self._write_cell(size)
        self.received = self.offset
        if newest is None or not is_this_boot(newest):
            self._truncate()  # before the cell that lets further bytes count
            self._write_cell(self.offset)
        elif size > self.offset and not newest.unchecked:
            self.received = size if self.length is None else min(size, self.length)
        self._truncate()
        self.settle()

    def expect_digests(self, algorithms: Sequence[str]) -> None:
        """Compute these digests of the bytes that come from now on."""
        self._hashes = {name: new_digest(name) for name in algorithms}

    def digest(self, algorithm: str) -> bytes:
        """Return the digest of the bytes since `expect_digests`."""
        return self._hashes[algorithm].digest()

    @property
    def path(self) -> Path:
        """Where its bytes are, as an absolute path."""
        return self._folder.folder / self.upload_id

    def begin(self, *, unchecked: bool) -> None:
        """Begin to append. With `unchecked` a kill drops what is not settled. Raises `OSError`."""
        with self._lock:
            self._check_open()
            newest = self._cells.newest
            if newest is None or newest.unchecked != unchecked:
                self._cells.write(self.offset, self.length, unchecked=unchecked, sync=False)
            self._unchecked = unchecked

    def write(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Append `pieces`. Their memory may be used again afterwards.

        Raises `Refusal("no_space")`, `OSError`; then nothing of them is appended.
        """
        with self._lock:
            self._check_open()
            try:
                written = write_all(self._fd, pieces)
            except OSError as error:
                self._truncate()
                if error.errno in NO_SPACE_ERRNOS:
                    raise Refusal(
                        "no_space", "the disk is full: what has come before is kept"
                    ) from error
                raise
            self.received += written
            for digest in (*self._hashes.values(), *self.running.values()):
                for piece in pieces:
                    digest.update(piece)
            self._write_back()
        failpoints.hit("mid append")

    def settle(self) -> int:
        """Make all bytes durable and count them; return the offset. Raises `OSError`."""
        with self._lock:
            self._check_open()
            if self.received == self.offset and not self._unchecked:
                return self.offset
            if self._folder.durable:
                try:
                    os.fdatasync(self._fd)
                except OSError:
                    self.revert()  # the kernel may take them for written: they must not count later
                    raise
            failpoints.hit("before partial cell")
            self._write_cell(self.received)
            self._unchecked = False
            failpoints.hit("after partial cell")
            return self.offset

    def revert(self) -> None:
        """Cut off what is not settled. Raises `OSError`."""
        with self._lock:
            self._check_open()
            if self.received != self.offset:
                self.running = {}
            self.received = self.offset
            self._truncate()

    def set_length(self, length: int) -> None:
        """Note, durably, the length of the whole file. Raises `OSError`."""
        with self._lock:
            self._check_open()
            before, self.length = self.length, length
            try:
                self._write_cell(self.offset)
                if self._unchecked:
                    self._cells.write(self.offset, length, unchecked=True, sync=False)
            except OSError:
                self.length = before
                raise

    def copy(self, source: PartialFile, start: int, count: int) -> int:
        """Append up to `count` bytes of another one from `start` on; return how many. Raises `OSError`.

        The bytes are shared where the file system can (copy_file_range(2)).
        """
        with self._lock:
            self._check_open()
            try:
                copied = os.copy_file_range(source._fd, self._fd, count, start, self.received)
            except OSError as error:
                if error.errno not in _NO_COPY:
                    self._truncate()
                    raise
                content = os.pread(source._fd, min(count, READ_BYTES), start)
                copied = os.pwrite(self._fd, content, self.received)
            if not copied:
                raise OSError(EINVAL, f"partial upload {source.upload_id} is shorter than it was")
            self.running = {}
            self.received += copied
            os.lseek(self._fd, self.received, os.SEEK_SET)
            self._write_back()
            return copied

    def hash(self, digests: Mapping[str, RunningDigest], start: int, count: int) -> int:
        """Feed digests with up to `count` bytes of the body from `start` on; return how many."""
        content = memoryview(os.pread(self._fd, min(count, self.received - start), start))
        for digest in digests.values():
            digest.update(content)
        return len(content)

    def last_byte(self) -> bytes:
        """Return the last byte of the body, none of an empty one."""
        return os.pread(self._fd, 1, max(0, self.received - 1))

    def move_to(self, incoming: IncomingDirectory, xattr: bytes | None) -> IncomingFile:
        """Move the whole body, durably, to where it is committed. It stays open here too.

        `IncomingDirectory.withdraw` moves it back. Raises `OSError`.
        """
        with self._lock:
            self.settle()
            write_xattr(self._fd, xattr)
            if self._folder.durable:
                os.fsync(self._fd)
            failpoints.hit("before partial move")
            self._move(incoming)
            failpoints.hit("after partial move")
            file = incoming.attach(self.upload_id, os.dup(self._fd), self.received)
            try:
                if self._folder.durable:
                    incoming.sync()
                    self._folder.sync()
            except OSError:
                file.discard()
                raise
            return file

    def _move(self, incoming: IncomingDirectory) -> None:
        name = self.upload_id
        try:
            os.rename(name, name, src_dir_fd=self._folder.fd, dst_dir_fd=incoming.fd)
        except FileNotFoundError:  # an earlier commit was refused, and it could not be moved back
            if not os.path.samestat(incoming.stat(name), os.fstat(self._fd)):
                raise

    def remove(self, *, completed: bool = False) -> None:
        """Delete it and let go of it; `completed` keeps its identity for a day. Raises `OSError`."""
        with self._lock:
            if self._fd < 0:
                return
            try:
                if self.head.identity is not None:
                    identities = self._folder.identities
                    identities.end(self.head.identity, self.upload_id, completed=completed)
                self._folder.remove_files(self.upload_id)
                self._folder.sync()
            finally:
                self._close()

    def close(self) -> None:
        """Let go of it. What is not settled stays, unless it is unchecked. May be called again."""
        with self._lock:
            if self._fd < 0:
                return
            try:
                if self._unchecked:
                    self.revert()
            finally:
                self._close()

    def _write_cell(self, offset: int) -> None:
        self._cells.write(offset, self.length)
        self.offset = offset
        newest = self._cells.newest
        if newest is not None and self._folder.durable:
            self._folder.remember_synced(self.upload_id, newest.sequence)

    def _truncate(self) -> None:
        """Let the body end where the received bytes do."""
        if os.fstat(self._fd).st_size > self.received:
            os.ftruncate(self._fd, self.received)
        os.lseek(self._fd, self.received, os.SEEK_SET)

    def _write_back(self) -> None:
        """Start to write what is new to the disk: the sync at the end is short then."""
        if self._folder.durable and self.received - self._written_back >= WRITEBACK_BYTES:
            fresh = self.received - self._written_back
            os.posix_fadvise(self._fd, self._written_back, fresh, os.POSIX_FADV_DONTNEED)
            self._written_back = self.received

    def _check_open(self) -> None:
        if self._fd < 0:
            raise OSError(EBADF, "this partial upload is closed: nothing can be written to it")

    def _close(self) -> None:
        fds, self._fd, self._cells_fd = (self._fd, self._cells_fd), -1, -1
        for fd in fds:
            os.close(fd)  # the lock ends with its last descriptor
