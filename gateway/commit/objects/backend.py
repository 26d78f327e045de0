"""The writing side of a bucket: all that one process needs to store into it, put together.

A body goes on to S3 while it comes; nothing is visible before its commit. S3 may be unavailable at any
time: nothing here waits for it before the port opens.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence, Set
from typing import Final

from gateway.commit.held.holder import Holder
from gateway.commit.objects.committer import ObjectCommitter
from gateway.commit.objects.held_store import ObjectHeldStore
from gateway.commit.objects.names import ReservedNames
from gateway.commit.objects.open_partial import PartialServices
from gateway.commit.objects.partial_counts import PartialCounts
from gateway.commit.objects.partial_ends import PartialEnds
from gateway.commit.objects.partial_locks import PartialLocks
from gateway.commit.objects.partials import ObjectPartialStore
from gateway.commit.objects.reconciler import UploadReconciler
from gateway.commit.objects.staging import ObjectStaging
from gateway.commit.objects.staging_ends import PrivateObjectEnds
from gateway.commit.objects.writer import MAX_STREAMS, ObjectWriter
from gateway.commit.records import LocalDisk, ProcessState, UploadEvents
from gateway.errors import GatewayError
from gateway.events.pending_uploads import PendingUpload
from gateway.settings import Settings
from gateway.settings.values import Bucket
from gateway.signing.keys import ObjectMarker
from gateway.storage.local.named_locks import NamedLocks
from gateway.storage.s3.bucket import BucketClient
from gateway.storage.s3.client import Clients
from gateway.storage.s3.copies import ObjectCopier
from gateway.storage.s3.encoding import UPLOAD_ID_NAME, PrefixedKeys
from gateway.storage.s3.memory import MemoryBudget
from gateway.storage.s3.multiparts import MultipartLog, MultipartSweeper
from gateway.storage.s3.part_sender import UploadContext
from gateway.storage.s3.partial_objects import PartialObjects
from gateway.storage.s3.parts import BufferedPart
from gateway.storage.s3.private_objects import PROBE_PATH, PrivateObjects
from gateway.storage.s3.retries import KeyExistsError, RequestRetrier
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.commit")

MAX_CONNECTIONS: Final = MAX_STREAMS + 256
"""Requests to S3 at once; more wait for one to end."""

REACHABLE_TIMEOUT: Final = 3.0
PROBE_RETRY_INTERVAL: Final = 30.0


class ObjectBackend:
    """The writing side of the bucket of `--storage`, for one process.

    `clients` must try a request once: what publishes has to know of every attempt.
    """

    def __init__(
        self,
        settings: Settings,
        clients: Clients,
        disk: LocalDisk,
        state: ProcessState,
        events: UploadEvents,
        marker: ObjectMarker,
    ) -> None:
        if settings.storage == "file":
            raise ValueError("--storage names no bucket")
        bucket = self._bucket = settings.storage
        self._clients = clients
        self._journal = state.journal
        self.objects = BucketClient(clients, bucket.name)
        multiparts = MultipartLog(settings.state / "multipart")
        self.reconciler = UploadReconciler(self.objects, state, multiparts)
        names = ReservedNames(PrefixedKeys(bucket), self.objects, marker)
        self._committer = ObjectCommitter(names, state, events, self.reconciler)
        context = UploadContext(
            self.objects,
            MemoryBudget(settings.storage_memory),
            disk.executor,
            multiparts,
            settings.idle_timeout,
            settings.computed_digest,
        )
        holder = Holder(state, events.redaction)
        self.staging = self._open_staging(bucket, names, context, holder)
        self.writer = ObjectWriter(names, context, self._committer, self.staging, disk)
        self.held = ObjectHeldStore(self.staging, self._committer, self._journal.pending_uploads)
        self._locks = NamedLocks(settings.state / "partials.lock")
        self.partials = self._open_partials(bucket, names, context)
        self.reconciler.claims = self.staging.ends.claims = self.partials.claims
        self.reconciler.settled = self.staging.ends.ended
        self._sweeper = MultipartSweeper(
            self.objects,
            multiparts,
            bucket.key("/") if state.slot == 0 else None,
            self,
            state.slot,
            settings.processes,
        )
        self._background: list[asyncio.Task[None]] = []

    def _open_staging(
        self, bucket: Bucket, names: ReservedNames, context: UploadContext, holder: Holder
    ) -> ObjectStaging:
        private, rows = PrivateObjects(self._clients, bucket, "held"), self._journal.private_objects
        copier = ObjectCopier(self.objects, RequestRetrier(self._clients), bucket.key(PROBE_PATH))
        ends = PrivateObjectEnds(private, bucket.name, rows, self.is_in_use)
        return ObjectStaging(private, context, copier, names, rows, ends, holder)

    def _open_partials(
        self, bucket: Bucket, names: ReservedNames, context: UploadContext
    ) -> ObjectPartialStore:
        store = PartialObjects(PrivateObjects(self._clients, bucket, "partials"))
        services = PartialServices(
            PartialEnds(store, self.objects, names.keys, self.staging.private),
            self._committer,
            self.staging,
            PartialCounts(store),
            self.writer.streams,
            self.writer.check_space,
        )
        locks = PartialLocks(self._locks, context.executor)
        return ObjectPartialStore(services, context, names, locks)

    def prepare(self, pending: Sequence[PendingUpload]) -> None:
        """Check that there are credentials; take over the pending uploads of an earlier run.

        Blocking, after recovery. Raises `ConfigError`.
        """
        self._clients.prepare()
        for row in pending:
            self.reconciler.add(row)
        if pending:
            log.info(
                "%d uploads have an unknown outcome: S3 will be queried for them",
                len(pending),
                extra=event("uploads.pending", count=len(pending)),
            )

    async def start(self) -> None:
        """Begin to settle, to sweep and to probe what the store can do."""
        tasks = (
            self.reconciler.run(),
            self._sweeper.run(),
            self.staging.ends.run(),
            self._probe(),
        )
        self._background = [asyncio.create_task(task) for task in tasks]

    async def close(self) -> None:
        """Wait for what is being published, end the rest, close the connections."""
        await self._committer.close()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.staging.ends.close()
        await self.partials.close()
        await self._clients.close()
        self._locks.close()

    async def is_reachable(self) -> bool:
        """Tell whether the bucket can be reached now."""
        return await self.objects.is_reachable(REACHABLE_TIMEOUT)

    def is_in_use(self, upload_id: str) -> bool:
        """See `LivingUploads.is_in_use`."""
        return self.writer.is_active(upload_id) or upload_id in self.reconciler

    async def kept_multiparts(self) -> Set[str]:
        """See `LivingUploads.kept_multiparts`."""
        return await self.partials.multiparts()

    async def _probe(self) -> None:
        """Warn where two gateways could both give a name that must not be replaced."""
        while True:
            try:
                honoured = await self._honours_conditions()
            except GatewayError:
                await asyncio.sleep(PROBE_RETRY_INTERVAL)
                continue
            except Exception:
                log.exception("the bucket could not be probed", extra=event("bucket_probe.failed"))
                return
            if not honoured:
                log.warning(
                    "%s ignores If-None-Match: where several processes or gateways store into it,"
                    " `reject`, `rename` and If-None-Match may replace an object",
                    self._bucket,
                    extra=event("bucket.unconditional"),
                )
            return

    async def _honours_conditions(self) -> bool:
        key, params = self._bucket.key(PROBE_PATH), {"Metadata": {UPLOAD_ID_NAME: "probe"}}
        try:
            for _ in range(2):  # at the first start the object does not exist
                await self.objects.put_object(key, BufferedPart(), params, new=True)
        except KeyExistsError:
            return True
        return False
