"""Everything that one process needs to store into a bucket, put together.

One rule: S3 may be away whenever it likes: nothing here waits for it before the port opens. Lives
on the server's loop, but for `prepare`.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from typing import Final

from gateway.commit.multipart_sweeper import MultipartSweeper
from gateway.commit.object_commit import Mark
from gateway.commit.object_names import ReservedNames
from gateway.commit.object_reconciler import UploadReconciler
from gateway.commit.object_writer import ObjectWriter
from gateway.commit.records import Subscribers
from gateway.errors import GatewayError
from gateway.events.journal import Journal
from gateway.events.pending_uploads import PendingUpload
from gateway.settings import Bucket, Settings
from gateway.storage.local.one_time_marks import OneTimeMarks
from gateway.storage.s3.bucket import BucketClient
from gateway.storage.s3.client import Clients
from gateway.storage.s3.keys import PrefixedKeys
from gateway.storage.s3.memory_budget import MemoryBudget
from gateway.storage.s3.multipart_log import MultipartLog
from gateway.storage.s3.part_body import BufferedPart
from gateway.storage.s3.parts import OWNER
from gateway.storage.s3.retries import KeyTakenError
from gateway.storage.s3.upload import UploadContext

log = logging.getLogger("gateway.commit")

CONNECTIONS: Final = 256
"""Requests to S3 at once; more wait for one to end."""

ALIVE_SECONDS: Final = 3.0
AGAIN_SECONDS: Final = 30.0
PROBE: Final = "/.gateway/probe"
"""An empty object that no upload can name. It tells whether the store honours If-None-Match, and
stays: `rclone serve s3` is at times stuck when one is removed while its neighbour comes."""


class ObjectBackend:
    """The writing side of one bucket, for the process of a slot. `learn` gets secrets to be masked."""

    def __init__(
        self,
        settings: Settings,
        bucket: Bucket,
        journal: Journal,
        once: OneTimeMarks,
        *,
        threads: Executor,
        slot: int,
        mark: Mark,
        audience: Callable[[], Subscribers],
        learn: Callable[[Iterable[str]], None],
    ) -> None:
        self._clients = Clients(learn, connections=CONNECTIONS, attempts=1)
        self._bucket = bucket
        self.objects = BucketClient(self._clients, bucket.name)
        memory = MemoryBudget(settings.storage_memory)
        notes = MultipartLog(settings.state / "multipart")
        self.settler = UploadReconciler(self.objects, journal, notes, once)
        self.intake = ObjectWriter(
            ReservedNames(PrefixedKeys(bucket), self.objects),
            self.objects,
            UploadContext(self.objects, memory, threads, notes, settings.idle_timeout),
            journal,
            self.settler,
            once,
            slot,
            mark,
            audience,
        )
        self._sweeper = MultipartSweeper(
            self.objects,
            notes,
            bucket.key("/") if slot == 0 else None,
            self.intake.cares,
            _owned(slot, settings.processes),
        )
        self._background: list[asyncio.Task[None]] = []

    def prepare(self, pending: Sequence[PendingUpload]) -> None:
        """See that there are credentials; take care of what an earlier run left in doubt.

        Blocking, after recovery. Raises `ConfigError`.
        """
        self._clients.prepare()
        for one in pending:
            self.settler.add(one)
        if pending:
            log.info("%d uploads are in doubt: S3 will be asked for them", len(pending))

    async def start(self) -> None:
        """Begin to settle, to sweep and to find out what the store can do."""
        works = (self.settler.run(), self._sweeper.run(), self._probe())
        self._background = [asyncio.create_task(work) for work in works]

    async def close(self) -> None:
        """Wait for what is being published, end the rest, close the connections."""
        await self.intake.close()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._clients.close()

    async def alive(self) -> bool:
        """Tell whether the bucket can be reached now."""
        return await self.objects.is_reachable(ALIVE_SECONDS)

    async def _probe(self) -> None:
        """Log it where two gateways could both give a name that must not be replaced."""
        while True:
            try:
                honoured = await self._honours_conditions()
            except GatewayError:
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            except Exception:
                log.exception("the bucket could not be probed")
                return
            if not honoured:
                log.warning(
                    "%s ignores If-None-Match: where several processes or gateways store into it,"
                    " `reject`, `rename` and If-None-Match may replace an object",
                    self._bucket,
                )
            return

    async def _honours_conditions(self) -> bool:
        key, said = self._bucket.key(PROBE), {"Metadata": {OWNER: "probe"}}
        try:
            for _ in range(2):  # at the first start there is none
                await self.objects.put_object(key, BufferedPart(), said, new=True)
        except KeyTakenError:
            return True
        return False


def _owned(slot: int, count: int) -> Callable[[str], bool]:
    """Return what tells whether an upload id is of our slot, or of one that no process has any more."""

    def mine(upload_id: str) -> bool:
        found = re.search(r"-(\d+)$", upload_id)
        number = int(found[1]) if found else 0
        return number == slot or (slot == 0 and number >= count)

    return mine
