"""Bodies that are being received, each a file of its own in `.gateway/incoming/<slot>/`.

A body is private until the commit renames it. A small one stays in memory until it is finalized, so
that a 4 KiB upload needs one job of one thread. What touches the disk blocks.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from gateway.domain.model import Identity
from gateway.errors import Refusal
from gateway.storage.local.body_digests import BodyDigests
from gateway.storage.local.entries import entry_names
from gateway.storage.local.held_directory import HeldDirectory
from gateway.storage.local.partial_directory import PartialDirectory
from gateway.storage.local.xattrs import write_xattr

NO_SPACE_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_IOV_MAX: Final = 1024

WRITEBACK_BYTES: Final = 8 << 20
"""Writeback of a long body starts whenever so much of it is new."""

MAX_IN_MEMORY_BYTES: Final = 64 << 10
"""A body up to this size reaches the committer in memory."""


class IncomingDirectory:
    """The folder of one slot. `device` is the file system that uploads must end on.

    `umask` is the process's: it takes bits from the mode with which a body is created. The bodies of
    `partials` and of `held` uploads come here to be committed.
    """

    def __init__(
        self, folder: Path, partials: PartialDirectory | None = None, held: HeldDirectory | None = None
    ) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder.absolute()
        self.fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.device = os.fstat(self.fd).st_dev
        self.umask = os.umask(0o077)
        os.umask(self.umask)
        self.partials = partials
        self.held = held

    def create(
        self, upload_id: str, mode: int, algorithms: Sequence[str] = (), kept: str | None = None
    ) -> IncomingFile:
        """Return a new empty body; it has no file before its first bytes are written.

        `algorithms` and `kept` are those of its `BodyDigests`.
        """
        return IncomingFile(self, upload_id, mode, BodyDigests(algorithms, kept))

    def upload_ids(self) -> Iterator[str]:
        """Iterate over the ids of the uploads whose bodies are here."""
        return entry_names(self.fd)

    def attach(self, upload_id: str, fd: int, size: int) -> IncomingFile:
        """Return a body that is in this folder already, open as `fd`, with `size` bytes."""
        file = IncomingFile(self, upload_id, 0, BodyDigests((), None))
        file.attach(fd, size)
        return file

    def stat(self, upload_id: str) -> os.stat_result:
        """Return the lstat of a body. Raises `FileNotFoundError`."""
        return os.stat(upload_id, dir_fd=self.fd, follow_symlinks=False)

    def remove(self, upload_id: str) -> None:
        """Delete a body, if it exists."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(upload_id, dir_fd=self.fd)

    def withdraw(self, upload_id: str) -> bool:
        """Take away a body that was never published, if it is here; its rows are deleted already.

        That of a held or partial upload goes back to the others, whole and durably: then it returns
        True. Any other is deleted.
        """
        for place in (self.held, self.partials):
            if place is not None and place.take_back(self.fd, upload_id):
                return True
        self.remove(upload_id)
        return False

    def sync(self) -> None:
        """Make the folder's entries durable."""
        os.fsync(self.fd)

    def close(self) -> None:
        """Close the folder."""
        os.close(self.fd)


class IncomingFile:
    """One body being received, `received` bytes so far.

    `xattr` is written before the first byte, and again where it is another one at the end.
    Threads take turns with it, and none writes to it once it is closed: the number of its descriptor
    may be another file's then. `OSError` EBADF is raised instead.
    """

    def __init__(
        self, incoming: IncomingDirectory, upload_id: str, mode: int, digests: BodyDigests
    ) -> None:
        self.upload_id = upload_id
        self.received = 0
        self.xattr: bytes | None = None
        self._stored_xattr: bytes | None = None
        self._incoming = incoming
        self._mode = mode
        self._lock = threading.RLock()
        self._fd = -1
        self._closed = False
        self._exists = False
        self._is_kept = False
        self._buffered = b""
        self._synced = False
        self._writes_back = False
        self._written_back = 0
        self.digests = digests

    @property
    def size(self) -> int:
        """Bytes written and buffered."""
        return self.received + len(self._buffered)

    @property
    def path(self) -> Path:
        """Where the bytes are that are written, as an absolute path."""
        return self._incoming.folder / self.upload_id

    def buffer(self, content: bytes) -> None:
        """Hold all bytes in memory until the body is finalized. Does not touch the disk."""
        self._buffered = content

    def write(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Append `pieces` to the file and feed the digests. Their memory may be used again afterwards.

        Raises `Refusal("no_space")` when the disk is full, `OSError` for any other error.
        """
        with self._lock:
            self.digests.update(pieces)
            self._append(pieces)

    def start_writeback(self) -> None:
        """Write bytes back to the disk as they come from now on: the sync at the end is short then."""
        self._writes_back = True

    def _append(self, pieces: Sequence[bytes | memoryview]) -> None:
        self._check_open()
        try:
            if not self._exists:
                self._open()
            self._synced = False
            self.received += write_all(self._fd, pieces)
        except OSError as error:
            if error.errno in NO_SPACE_ERRNOS:
                raise Refusal("no_space", "the disk is full: nothing was stored") from error
            raise
        if self._writes_back and self.received - self._written_back >= WRITEBACK_BYTES:
            self._write_back()

    def _write_back(self) -> None:
        """Start to write dirty pages: POSIX_FADV_DONTNEED does that, does not wait, and cannot fail."""
        fresh = self.received - self._written_back
        os.posix_fadvise(self._fd, self._written_back, fresh, os.POSIX_FADV_DONTNEED)
        self._written_back = self.received

    def flush(self, *, writeback: bool = False) -> None:
        """Write what is buffered. Raises as `write` does.

        With `writeback` the disk works on all bodies of a batch before the first sync waits.
        """
        with self._lock:
            if self._buffered or not self._exists:
                buffered, self._buffered = self._buffered, b""
                self.write((buffered,))
                if writeback:
                    self._write_back()

    def sync(self) -> None:
        """Flush, then force the bytes to stable storage; a second call costs nothing."""
        with self._lock:
            self.flush()
            self._check_open()
            if self._store_attributes() or not self._synced:
                os.fsync(self._fd)
                self._synced = True

    def finalize(self, *, durable: bool) -> Identity:
        """Write and (if `durable`) sync all, close the file, and return which file it is.

        Raises `OSError` EIO where the file does not have exactly the bytes that were received.
        """
        with self._lock:
            if durable:
                self.sync()
            else:
                self.flush()
                self._check_open()
                self._store_attributes()
            self._check_open()
            status = os.fstat(self._fd)
            self._close()
        if status.st_size != self.received:
            raise OSError(
                errno.EIO, f"{self.received} bytes were received, and the file has {status.st_size}"
            )
        return Identity.of(status)

    def attach(self, fd: int, size: int) -> None:
        """Take an open file for the body: the bytes that have come are in it, on stable storage."""
        self._fd, self.received = fd, size
        self._exists = self._synced = True
        self._is_kept = True

    def discard(self) -> None:
        """Close the file, if it exists, and delete it; a held or partial upload goes back to them."""
        with self._lock:
            self._buffered = b""
            self._close()
            if self._exists:
                self._incoming.withdraw(self.upload_id)

    def truncate(self) -> None:
        """Free the space but keep the empty file, which tells recovery that nothing was published.

        That of a held or partial upload keeps its bytes: it goes on once the rows are deleted.
        """
        with self._lock, contextlib.suppress(OSError):
            self._close()
            if self._is_kept:
                return
            os.close(os.open(self.upload_id, os.O_WRONLY | os.O_TRUNC, dir_fd=self._incoming.fd))

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self.upload_id, flags, self._mode, dir_fd=self._incoming.fd)
        self._exists = True
        if self._mode & self._incoming.umask:
            os.fchmod(self._fd, self._mode)
        self._store_xattr()

    def _store_attributes(self) -> bool:
        """Store the digest and what is new of the attribute; tell whether anything is."""
        is_digest_new = self.digests.store(self._fd)
        return self._store_xattr() or is_digest_new

    def _store_xattr(self) -> bool:
        if self.xattr == self._stored_xattr:
            return False
        write_xattr(self._fd, self.xattr)
        self._stored_xattr = self.xattr
        return True

    def _check_open(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, "this body is closed: nothing can be written to it")

    def _close(self) -> None:
        self._closed = True
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def write_all(fd: int, pieces: Sequence[bytes | memoryview]) -> int:
    """Write every byte of `pieces`, however often the kernel takes only a part; return how many."""
    if len(pieces) == 1:
        return _write_one(fd, pieces[0])
    total = 0
    pending = [piece for piece in pieces if piece]
    while pending:
        written = os.writev(fd, pending[:_IOV_MAX])
        total += written
        done = 0
        while done < len(pending) and written >= len(pending[done]):
            written -= len(pending[done])
            done += 1
        del pending[:done]
        if written:
            pending[0] = memoryview(pending[0])[written:]
    return total


def _write_one(fd: int, piece: bytes | memoryview) -> int:
    done = os.write(fd, piece)
    while done < len(piece):
        done += os.write(fd, memoryview(piece)[done:])
    return done
