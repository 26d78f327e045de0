"""A committer with a real journal, a real folder and real threads, but without a server."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gateway.commit.batch import BatchCommitter
from gateway.commit.committer import Committer
from gateway.commit.disk import DiskSpace, RenameLock
from gateway.commit.held.holder import Holder
from gateway.commit.held.local_holder import LocalHolder
from gateway.commit.local_partials import LocalPartialStore
from gateway.commit.local_writer import LocalWriter
from gateway.commit.records import CommitRequest, LocalDisk, ProcessState, Subscribers, UploadEvents
from gateway.domain import failpoints
from gateway.domain.model import UPLOADED, HandlerSpec, Stored, Upload, new_id
from gateway.events.journal import Journal
from gateway.events.protocols import Selection
from gateway.files.service import FilesService, SharedDisk
from gateway.files.versions import JournalVersions
from gateway.storage.local.held_directory import HeldDirectory
from gateway.storage.local.incoming import IncomingDirectory
from gateway.storage.local.one_time_marks import OneTimeMarks
from gateway.storage.local.partial_directory import PartialDirectory
from gateway.storage.local.storage import LocalStorage
from gateway.storage.local.tree import DirectoryTree
from gateway.telemetry.redaction import Redaction
from tests.support.harness import files_below
from tests.support.records import run_sync

TIMEOUT = 30.0


class CommitterHarness:
    """All that commits need, assembled below `folder`.

    `handlers` subscribe to uploads, `watchers` to objects.
    """

    def __init__(self, folder: Path, rename_lock: RenameLock | None = None) -> None:
        self.root = folder / "data"
        self.root.mkdir()
        self.partials = PartialDirectory(folder / "partials")
        self.incoming_folder = folder / "incoming" / "0"
        self.held = HeldDirectory(folder / "held")
        self.incoming = IncomingDirectory(self.incoming_folder, self.partials, self.held)
        self.tree = DirectoryTree(self.root, [], self.incoming.device)
        self.journal = Journal(folder / "journal.db")
        self.journal.open()
        self.once = OneTimeMarks(folder / "once")
        self.disk = ThreadPoolExecutor(2)
        self.handlers: list[str] = ["h"]
        self.watchers: list[HandlerSpec] = []
        self.space = DiskSpace(self.incoming.fd, 0)
        self.local_disk = LocalDisk(
            self.tree, self.incoming, self.space, self.disk, durable=True, rename_lock=rename_lock
        )
        self.state = state = ProcessState(0, self.journal, self.once)
        events = UploadEvents(self._subscribers, Redaction(), 0)
        batch = BatchCommitter(self.local_disk, state, events)
        self.committer = Committer(batch, self.journal.outbox, self.local_disk)
        self.committer.start()
        self.holder = LocalHolder(
            self.local_disk, self.held, state, Holder(state, Redaction(["X-Secret"]))
        )
        exclusive = contextlib.nullcontext if rename_lock is None else rename_lock.exclusive
        storage = LocalStorage(self.tree, self.committer.between_batches, exclusive)
        self.files = FilesService(
            storage, versions=JournalVersions(self.journal), disk=SharedDisk(storage, self.root)
        )

    def _subscribers(self) -> Subscribers:
        handlers = tuple(HandlerSpec(name, UPLOADED, 10) for name in self.handlers)
        return Subscribers(handlers, tuple(self.watchers))

    def close(self) -> None:
        self.holder.close()
        self.committer.close()
        self.disk.shutdown()
        self.journal.close()
        self.incoming.close()
        self.partials.close()
        self.held.close()
        self.once.close()
        self.tree.close()

    def request(self, path: str = "/x", content: bytes = b"body", **fields: Any) -> CommitRequest:
        """Receive a body and return the request to commit it."""
        mime = fields.pop("mime", "text/plain")
        upload = Upload(new_id(0), path, created=1.0, **fields)
        body = self.incoming.create(upload.id, 0o640)
        body.buffer(content)
        return CommitRequest(upload, body, mime, {}, from_client=True)

    async def commit(self, path: str = "/x", content: bytes = b"body", **fields: Any) -> Stored:
        async with asyncio.timeout(TIMEOUT):
            return await self.committer.commit(self.request(path, content, **fields))

    async def batch(self, *requests: CommitRequest) -> list[Stored | BaseException]:
        """Commit `requests` as one batch."""
        entered, go_on = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def hold() -> None:
            loop.call_soon_threadsafe(entered.set)
            assert go_on.wait(TIMEOUT)

        holding = asyncio.create_task(self.committer.between_batches(hold))
        await entered.wait()
        commits = [asyncio.create_task(self.committer.commit(request)) for request in requests]
        await asyncio.sleep(0)  # each has queued its request when this returns
        go_on.set()
        async with asyncio.timeout(TIMEOUT):
            await holding
            return await asyncio.gather(*commits, return_exceptions=True)

    def deliveries(self) -> list[tuple[str, str]]:
        """Return path and state of every delivery."""
        page = run_sync(self.journal.ledger.page(Selection(), None, 1000))
        return [(row.path or "", row.state) for row in page.rows]

    async def claimable(self) -> list[str]:
        """Claim all that is released by now, or will be without further ado; return the paths."""
        # The committer releases before it takes this up, and the journal works in order.
        await self.committer.between_batches(lambda: None)
        claimed = await self.journal.queue.claim("h", 1000, 0.0)
        return sorted(delivery.body["path"] for delivery in claimed)

    def writer(self) -> LocalWriter:
        """Return a writer of whole uploads."""
        return LocalWriter(self.local_disk, self.committer, 0o640, holder=self.holder)

    def partial_store(self) -> LocalPartialStore:
        """Return a store of partial uploads."""
        return LocalPartialStore(self.partials, self.local_disk, self.committer, self.writer())

    def stored(self) -> dict[str, bytes]:
        return files_below(self.root)

    def bodies(self) -> list[str]:
        return sorted(self.incoming.upload_ids())


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[CommitterHarness]:
    opened = CommitterHarness(tmp_path)
    yield opened
    await asyncio.to_thread(opened.close)


OnFailpoint = Callable[[Callable[[str], None]], None]


@pytest.fixture
def on_failpoint() -> Iterator[OnFailpoint]:
    """Let a function hear of every point that is reached; it is forgotten with the test."""
    before = list(failpoints.listeners)
    yield failpoints.listeners.append
    failpoints.listeners[:] = before


@pytest.fixture
def incoming(tmp_path: Path) -> Iterator[IncomingDirectory]:
    opened = IncomingDirectory(tmp_path / "incoming")
    yield opened
    opened.close()
