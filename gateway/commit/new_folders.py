"""Creates the missing folders of uploads, and makes them durable, beside the batches of the committer.

A chain of new folders costs two syncs for each: within a batch, all other uploads would wait for them.
Here they are made before the upload is queued; the batch finds them, and syncs what changed since.
Clients take turns: one upload into a new folder never waits for a hundred of another client.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from gateway.commit.records import CommitRequest, LocalDisk
from gateway.domain import paths
from gateway.limits import ClientTurns, client_key
from gateway.storage.local.directory import Inode
from gateway.storage.waiting import finish

THREADS: Final = 1
"""Uploads into new folders wait for one another. Two threads made 1.4 times as many chains of five
folders, and doubled the latency of all other requests: they share the interpreter lock."""

MAX_REMEMBERED: Final = 65_536
"""Folders that need not be asked about. They are kept as hashes: their paths would take megabytes."""


class NewFolders:
    """The thread, and what it knows. For event loops: nothing blocks but `close`."""

    def __init__(self, disk: LocalDisk) -> None:
        self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="folders")
        self._turns: ClientTurns[tuple[CommitRequest, Future[None]]] = ClientTurns()
        self._lock = threading.Lock()
        self._disk = disk
        self._existing: set[int] = set()

    def exist(self, path: str) -> bool:
        """Tell whether the folder of a path was there not long ago.

        Wrong answers cost time only: the batch creates what is missing, and checks all else again.
        """
        folder = path.rpartition("/")[0]
        return not folder or hash(folder) in self._existing

    async def create(self, request: CommitRequest) -> None:
        """Create the folders of an upload; their entries are on stable storage afterwards.

        A caller that is cancelled waits for the end too. Raises `Refusal` as `DirectoryTree.open_parent`
        does, `no_space`; `OSError`.
        """
        upload, created = request.upload, Future[None]()
        with self._lock:  # a thread that is free waits until its item is there
            self._executor.submit(self._run_next)
            self._turns.add(client_key(upload.principal, upload.remote), (request, created))
        await finish(asyncio.wrap_future(created))

    def _run_next(self) -> None:
        with self._lock:
            item = self._turns.take()
        if item is None:
            raise AssertionError("each call has its item")
        _client, (request, created) = item
        try:
            self._create(request)
        except BaseException as error:
            created.set_exception(error)
        else:
            created.set_result(None)

    def _create(self, request: CommitRequest) -> None:
        path, synced = request.upload.path, set[Inode]()
        if not request.space_reserved:
            self._disk.space.check(max(request.body.size, 1), new_file=True)
        with self._disk.tree.open_parent(paths.check_path(path)) as parent:
            if self._disk.durable:
                parent.sync_above(synced)
        with self._lock:
            if len(self._existing) >= MAX_REMEMBERED:
                self._existing.clear()
            self._existing.add(hash(path.rpartition("/")[0]))

    def close(self) -> None:
        """End the thread."""
        self._executor.shutdown()
