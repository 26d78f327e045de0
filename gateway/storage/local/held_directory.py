"""The folder `.gateway/held/`: whole bodies that wait for a decision, of all processes.

A file is named by its upload id, and the row in a journal says what it is. While it is published its
body is in `incoming/<slot>/` instead. A body that no journal knows is left alone: the journal may have
been put aside. Blocking.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Collection, Iterator
from pathlib import Path

from gateway.storage.local.entries import entry_names


class HeldDirectory:
    """The folder. `durable` is False where a power loss may take what is in it. Thread-safe."""

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder.absolute()
        self.fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._durable = durable
        self._lock = threading.Lock()
        self._expected: set[str] = set()

    def close(self) -> None:
        """Close the folder."""
        os.close(self.fd)

    def sync(self) -> None:
        """Make the folder's entries durable. Raises `OSError`."""
        if self._durable:
            os.fsync(self.fd)

    def links(self, upload_id: str) -> int:
        """Return how many names a body has, with the one here; 0 where it is not here."""
        try:
            return os.stat(upload_id, dir_fd=self.fd, follow_symlinks=False).st_nlink
        except FileNotFoundError:
            return 0

    def upload_ids(self) -> Iterator[str]:
        """Iterate over the ids of the uploads whose bodies are here."""
        return entry_names(self.fd)

    def take(self, incoming_fd: int, upload_id: str) -> None:
        """Move a body here from the folder of a slot; `sync` makes that durable. Raises `OSError`."""
        os.rename(upload_id, upload_id, src_dir_fd=incoming_fd, dst_dir_fd=self.fd)

    def give(self, incoming_fd: int, upload_id: str) -> int:
        """Move a body into the folder of a slot, where it is published; return its descriptor.

        One that an earlier publishing has left there stays there. Raises `OSError`.
        """
        self.know([upload_id])
        with contextlib.suppress(FileNotFoundError):
            os.rename(upload_id, upload_id, src_dir_fd=self.fd, dst_dir_fd=incoming_fd)
        return os.open(upload_id, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=incoming_fd)

    def know(self, upload_ids: Collection[str]) -> None:
        """Let `take_back` take the bodies of these uploads."""
        with self._lock:
            self._expected.update(upload_ids)

    def knows(self, upload_id: str) -> bool:
        """Tell whether `take_back` takes the body of an upload."""
        return upload_id in self._expected

    def take_back(self, incoming_fd: int, upload_id: str) -> bool:
        """Move a body that was not published back here, durably; False where it is none of ours.

        Raises `OSError`.
        """
        if not self.knows(upload_id):
            return False
        with contextlib.suppress(FileNotFoundError):
            self.take(incoming_fd, upload_id)
        if self._durable:
            self.sync()
            os.fsync(incoming_fd)
        return True

    def forget(self, upload_id: str) -> None:
        """Note that an upload is held no longer: it is published, or its body is removed."""
        with self._lock:
            self._expected.discard(upload_id)

    def remove(self, upload_id: str) -> None:
        """Delete a body, durably, if it is here. Raises `OSError`."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(upload_id, dir_fd=self.fd)
            self.sync()
        self.forget(upload_id)
