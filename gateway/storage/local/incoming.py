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

from gateway.domain.digests import algorithms_of, new_digest
from gateway.domain.model import Identity
from gateway.errors import Refusal
from gateway.storage.local.xattrs import write_digest, write_xattr

NO_SPACE_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_IOV_MAX: Final = 1024

WRITEBACK_BYTES: Final = 8 << 20
"""Writeback of a long body starts whenever so much of it is new."""

MAX_IN_MEMORY_BYTES: Final = 64 << 10
"""A body up to this size reaches the committer in memory."""


class IncomingDirectory:
    """The folder of one slot. `device` is the file system that uploads must end on.

    `umask` is the process's: it takes bits from the mode with which a body is created.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.device = os.fstat(self.fd).st_dev
        self.umask = os.umask(0o077)
        os.umask(self.umask)

    def create(
        self, upload_id: str, mode: int, algorithms: Sequence[str] = (), kept: str | None = None
    ) -> IncomingFile:
        """Return a new empty body; it has no file before its first bytes are written."""
        return IncomingFile(self, upload_id, mode, algorithms, kept)

    def upload_ids(self) -> Iterator[str]:
        """Iterate over the ids of the uploads whose bodies are here."""
        with os.scandir(self.fd) as entries:
            for entry in entries:
                yield entry.name

    def stat(self, upload_id: str) -> os.stat_result:
        """Return the lstat of a body. Raises `FileNotFoundError`."""
        return os.stat(upload_id, dir_fd=self.fd, follow_symlinks=False)

    def remove(self, upload_id: str) -> None:
        """Delete a body, if it exists."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(upload_id, dir_fd=self.fd)

    def sync(self) -> None:
        """Make the folder's entries durable."""
        os.fsync(self.fd)

    def close(self) -> None:
        """Close the folder."""
        os.close(self.fd)


class IncomingFile:
    """One body being received, `received` bytes so far. `xattr` is written before the first byte.

    `algorithms` are digests that are asked for before the commit, `kept` is the one that stays with it.

    Threads take turns with it, and none writes to it once it is closed: the number of its descriptor
    may be another file's then. `OSError` EBADF is raised instead.
    """

    def __init__(
        self,
        incoming: IncomingDirectory,
        upload_id: str,
        mode: int,
        algorithms: Sequence[str],
        kept: str | None,
    ) -> None:
        self.upload_id = upload_id
        self.received = 0
        self.xattr: bytes | None = None
        self._incoming = incoming
        self._mode = mode
        self._lock = threading.RLock()
        self._fd = -1
        self._closed = False
        self._exists = False
        self._buffered = b""
        self._synced = False
        self._writes_back = False
        self._written_back = 0
        self.hashing = bool(algorithms)
        """Whether digests are asked for before the commit: then the bytes are not left to it."""
        self._hashes = {name: new_digest(name) for name in algorithms_of(algorithms, kept)}
        self._kept = kept
        self._kept_value: bytes | None = None
        self._digest_stored = False

    @property
    def size(self) -> int:
        """Bytes written and buffered."""
        return self.received + len(self._buffered)

    def buffer(self, content: bytes) -> None:
        """Hold all bytes in memory until the body is finalized. Does not touch the disk."""
        self._buffered = content

    def write(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Append `pieces` to the file and feed the digests. Their memory may be used again afterwards.

        Raises `Refusal("no_space")` when the disk is full, `OSError` for any other error.
        """
        with self._lock:
            for piece in pieces if self._hashes else ():
                for digest in self._hashes.values():
                    digest.update(piece)
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
            self.received += _write_all(self._fd, pieces)
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
            self._store_digest()
            if not self._synced:
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
                self._store_digest()
            self._check_open()
            status = os.fstat(self._fd)
            self._close()
        if status.st_size != self.received:
            raise OSError(
                errno.EIO, f"{self.received} bytes were received, and the file has {status.st_size}"
            )
        return Identity.of(status)

    def digest(self, algorithm: str) -> bytes:
        """Return the digest of all bytes written so far, by its name in `domain.digests`."""
        return self._hashes[algorithm].digest()

    def kept_digest(self) -> dict[str, bytes]:
        """Return the digest of a finalized body that stays with it, by its algorithm."""
        kept, value = self._kept, self._kept_value
        return {} if kept is None or value is None else {kept: value}

    def keep_digest(self, algorithm: str, value: bytes) -> None:
        """Store this digest with the file, which was computed elsewhere."""
        self._kept, self._kept_value = algorithm, value

    def _store_digest(self) -> None:
        if self._kept is None or self._digest_stored:
            return
        if self._kept_value is None:
            self._kept_value = self.digest(self._kept)
        write_digest(self._fd, self._kept, self._kept_value)
        self._digest_stored = True

    def discard(self) -> None:
        """Close and delete the file, if it exists."""
        with self._lock:
            self._buffered = b""
            self._close()
            if self._exists:
                self._incoming.remove(self.upload_id)

    def truncate(self) -> None:
        """Free the space but keep the empty file, which tells recovery that nothing was published."""
        with self._lock, contextlib.suppress(OSError):
            self._close()
            os.close(os.open(self.upload_id, os.O_WRONLY | os.O_TRUNC, dir_fd=self._incoming.fd))

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self.upload_id, flags, self._mode, dir_fd=self._incoming.fd)
        self._exists = True
        if self._mode & self._incoming.umask:
            os.fchmod(self._fd, self._mode)
        if self.xattr is not None:
            write_xattr(self._fd, self.xattr)

    def _check_open(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, "this body is closed: nothing can be written to it")

    def _close(self) -> None:
        self._closed = True
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _write_all(fd: int, pieces: Sequence[bytes | memoryview]) -> int:
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
