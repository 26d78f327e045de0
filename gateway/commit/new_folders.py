"""Creates the missing folders of uploads, and makes them durable, beside the batches of the committer.

A chain of new folders costs two syncs for each: within a batch, all other uploads would wait for them.
Here they are made before the upload is queued; the batch finds them, and syncs what changed since.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Final

from gateway.commit.records import CommitRequest, LocalDisk
from gateway.domain import paths
from gateway.storage.local.directory import Inode

THREADS: Final = 2
"""Uploads into new folders wait for one another; so few threads leave the disk to all others."""

MAX_REMEMBERED: Final = 65_536
"""Folders that need not be asked about. They are kept as hashes: their paths would take megabytes."""


class NewFolders:
    """The threads, and what they know. `exist` is for the event loop, `create` blocks."""

    def __init__(self, disk: LocalDisk) -> None:
        self.executor = ThreadPoolExecutor(THREADS, thread_name_prefix="folders")
        self._disk = disk
        self._existing: set[int] = set()

    def exist(self, path: str) -> bool:
        """Tell whether the folder of a path was there not long ago.

        Wrong answers cost time only: the batch creates what is missing, and checks all else again.
        """
        folder = path.rpartition("/")[0]
        return not folder or hash(folder) in self._existing

    def create(self, request: CommitRequest) -> None:
        """Create the folders of an upload; their entries are on stable storage afterwards.

        Raises `Refusal` as `DirectoryTree.open_parent` does, `no_space`; `OSError`.
        """
        path, synced = request.upload.path, set[Inode]()
        if not request.space_reserved:
            self._disk.space.check(max(request.body.size, 1), new_file=True)
        with self._disk.tree.open_parent(paths.check_path(path)) as parent:
            if self._disk.durable:
                parent.sync_above(synced)
        if len(self._existing) >= MAX_REMEMBERED:
            self._existing.clear()
        self._existing.add(hash(path.rpartition("/")[0]))

    def close(self) -> None:
        """End the threads."""
        self.executor.shutdown()
