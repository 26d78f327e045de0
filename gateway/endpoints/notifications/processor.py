"""Processes notifications: a new object becomes an event, a wrong one is removed.

The event of an object is durable before the response and is published once. A wrong object becomes a
failed upload, not a created object. Objects that a gateway stored have had their event.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Protocol

from gateway.commit.records import names_matching
from gateway.domain.model import OBJECT_CREATED, HandlerSpec, Upload
from gateway.endpoints.notifications.object_events import (
    NotificationScope,
    NotifiedObject,
    object_created_event,
)
from gateway.endpoints.notifications.parser import ObjectNotification
from gateway.endpoints.notifications.presigned_uploads import PresignedUpload, PresignedUploads
from gateway.errors import RecordsUnavailable, Refusal, Superseded
from gateway.events.protocols import NewEvent, Outbox
from gateway.signing.keys import ObjectMarker
from gateway.storage.protocols import Stat, Storage
from gateway.storage.s3.encoding import MARK_NAME, UPLOAD_ID_NAME
from gateway.telemetry.logs import event
from gateway.telemetry.metrics import Metrics

MAX_CONCURRENT_STATS: Final = 16
"""Objects that are queried at once."""

MAX_LOGGED_BUCKETS: Final = 100
"""Names of unknown buckets that are logged, each once."""

CLOCK_ROUNDING: Final = 2.0
"""Seconds: the date of an object has whole seconds, that of a notification has fractions."""

log = logging.getLogger("gateway.notifications")


class UploadJournal(Protocol):
    """The journal, asked for uploads that this gateway stored."""

    async def has_recorded(self, upload_id: str, path: str) -> bool:
        """Return whether an upload was stored at a path."""


class ObjectHooks(Protocol):
    """The handlers of objects and of failed uploads."""

    def handler_specs(self, *events: str) -> Sequence[HandlerSpec]:
        """Return the handlers of events."""

    def notify_upload_failed(self, upload: Upload, reason: str, received: int) -> None:
        """Start the handlers of failed uploads."""


@dataclass(frozen=True, slots=True)
class UploadOwnership:
    """Tells objects that a gateway stored from objects that clients put."""

    marks: ObjectMarker
    journal: UploadJournal

    async def is_own(
        self, metadata: Mapping[str, str], path: str, presigned: Sequence[PresignedUpload]
    ) -> bool:
        """Return whether a gateway stored an object, and so has published its event.

        Some stores keep unsigned headers, so a client can write an upload id, but not the mark that
        is valid on every machine at any time. Earlier versions wrote no mark: their id is accepted if
        no URL of the path can have created the object (its metadata is missing), else if our journal
        has the upload.
        """
        upload_id = metadata.get(UPLOAD_ID_NAME)
        if not upload_id:
            return False
        if self.marks.is_genuine(metadata.get(MARK_NAME, ""), upload_id, path):
            return True
        if not any(upload.metadata.items() <= metadata.items() for upload in presigned):
            return True
        return await self.journal.has_recorded(upload_id, path)


class NotificationResult(NamedTuple):
    """The outcome of a notification: a word for the counts, and its event if it has one."""

    outcome: str
    event: NewEvent | None = None
    presigned: Sequence[PresignedUpload] = ()


class NotificationProcessor:
    """Turns notifications, and objects whose notification was lost, into events."""

    def __init__(
        self,
        scope: NotificationScope,
        storage: Storage,
        uploads: PresignedUploads,
        ownership: UploadOwnership,
        publisher: ObjectEventPublisher,
        metrics: Metrics,
    ) -> None:
        self._scope = scope
        self._storage = storage
        self._uploads = uploads
        self._ownership = ownership
        self._publisher = publisher
        self._metrics = metrics
        self._stats = asyncio.Semaphore(MAX_CONCURRENT_STATS)
        self._logged_buckets: set[str] = set()

    async def process(self, notifications: Sequence[ObjectNotification]) -> dict[str, int]:
        """Publish events of new objects; return the counts of outcomes when the events are durable.

        Raises `EventEngineUnavailable`, and `Refusal` if the storage is unavailable: then the caller
        may repeat the call.
        """
        results = await asyncio.gather(*(self._process_one(item) for item in notifications))
        if events := [result.event for result in results if result.event is not None]:
            await self._publisher.outbox.publish(events)
        for result in results:
            self._metrics.notifications.add(result.outcome)
            if result.event is not None:
                await self._record_notified(result.presigned, result.event.body["etag"])
        return dict(Counter(result.outcome for result in results))

    async def process_unnotified(self, upload: PresignedUpload, stat: Stat) -> bool:
        """Publish an object without notification; tell whether it was new. Raises as `process`."""
        if not upload.may_have_created(stat) or upload.notified == stat.etag:
            return False
        presigned = await self._uploads.for_path(upload.path)
        if await self._ownership.is_own(stat.metadata, upload.path, presigned):
            return False
        if await self._remove_violation(presigned, stat):
            return False
        key = upload.path.removeprefix("/")
        if handlers := self._publisher.subscribers(key):
            notification = self._scope.notification_for(upload.path, stat)
            subject = NotifiedObject(notification, key, True, stat, presigned, stat.modified)
            await self._publisher.outbox.publish([object_created_event(subject, handlers)])
        await self._record_notified([upload], stat.etag, lost=stat.modified)
        return True

    async def _process_one(self, notification: ObjectNotification) -> NotificationResult:
        key = self._scope.key_in_storage(notification.bucket, notification.key)
        if key is not None:
            return await self._process_in_storage(notification, key)
        if not self._scope.accepts_bucket(notification.bucket):
            return self._ignore_bucket(notification.bucket)
        if notification.bucket not in self._scope.others:
            return NotificationResult("outside")
        return self._created(NotifiedObject(notification, notification.key, False))

    async def _process_in_storage(
        self, notification: ObjectNotification, key: str
    ) -> NotificationResult:
        path = f"/{key}"
        presigned = await self._presigned_for(path)
        if not presigned and not self._publisher.subscribers(key):
            return NotificationResult("unwanted")
        if await self._ownership.is_own(notification.metadata or {}, path, presigned):
            return NotificationResult("own")
        stat = await self._stat(path, notification)
        if stat is not None and await self._ownership.is_own(stat.metadata, path, presigned):
            return NotificationResult("own")
        if stat is not None and await self._remove_violation(presigned, stat):
            return NotificationResult("removed")
        if any(_was_published(upload, notification) for upload in presigned):
            return NotificationResult("duplicate")
        return self._created(NotifiedObject(notification, key, True, stat, presigned))

    def _created(self, subject: NotifiedObject) -> NotificationResult:
        handlers = self._publisher.subscribers(subject.key)
        if not handlers:
            return NotificationResult("unwanted")
        return NotificationResult("told", object_created_event(subject, handlers), subject.presigned)

    def _ignore_bucket(self, bucket: str) -> NotificationResult:
        if bucket not in self._logged_buckets and len(self._logged_buckets) < MAX_LOGGED_BUCKETS:
            self._logged_buckets.add(bucket)
            message = "ignoring notifications of bucket %r: add it to --object-buckets to accept them"
            log.warning(message, bucket[:100], extra=event("notification.ignored"))
        return NotificationResult("strange")

    async def _presigned_for(self, path: str) -> list[PresignedUpload]:
        try:
            return await self._uploads.for_path(path)
        except RecordsUnavailable as error:
            message = "presigned uploads of %s cannot be read: %s"
            log.warning(message, path, error, extra=event("records.unavailable"))
            return []

    async def _stat(self, path: str, notification: ObjectNotification) -> Stat | None:
        """Query the object; None if it was removed or replaced since."""
        try:
            async with self._stats:
                stat = await self._storage.stat(path)
        except Refusal as refusal:
            if refusal.code in {"not_found", "bad_path", "forbidden"}:
                return None
            raise
        return stat if notification.etag is None or stat.etag == notification.etag else None

    async def _remove_violation(self, presigned: Sequence[PresignedUpload], stat: Stat) -> bool:
        """Remove an object that none of the URLs allows which may have created it."""
        candidates = [upload for upload in presigned if upload.may_have_created(stat)]
        violations = [upload.violation(stat.bytes, stat.mime) for upload in candidates]
        if not violations or None in violations:
            return False
        try:
            await self._storage.delete(stat.path, stat.etag)
        except Superseded:
            return True  # the new object has a notification of its own
        except Refusal as refusal:
            if refusal.code != "not_found":
                raise
        reason = str(violations[0])
        self._metrics.presigned_uploads.add("removed")
        fields = {"path": stat.path, "bytes": stat.bytes, "reason": reason}
        message = "removed an object that its presigned URL did not allow"
        log.error(message, extra=event("object.removed", **fields))
        allowed = candidates[0]
        upload = Upload(allowed.key, stat.path, content_type=stat.mime, metadata=dict(allowed.metadata))
        self._publisher.hooks.notify_upload_failed(upload, reason, stat.bytes)
        return True

    async def _record_notified(
        self, presigned: Sequence[PresignedUpload], etag: str | None, lost: float | None = None
    ) -> None:
        """Record that handlers have the event. If that fails, they may get it once more."""
        for upload in presigned:
            if etag is None or upload.notified == etag:
                continue
            try:
                after = replace(upload, notified=etag, lost=lost, due=upload.last_check)
                if await self._uploads.replace_upload(upload, after):
                    self._metrics.presigned_uploads.add("finished" if lost is None else "reconciled")
            except RecordsUnavailable as error:
                message = "the event of %s may be repeated, its record cannot be written: %s"
                log.warning(message, upload.path, error, extra=event("records.unavailable"))


@dataclass(frozen=True, slots=True)
class ObjectEventPublisher:
    """Publishes events of objects to the handlers that subscribe to their keys."""

    outbox: Outbox
    hooks: ObjectHooks

    def subscribers(self, key: str) -> tuple[str, ...]:
        """Return the names of the handlers whose prefix and suffix match a key."""
        return names_matching(self.hooks.handler_specs(OBJECT_CREATED), key)


def _was_published(upload: PresignedUpload, notification: ObjectNotification) -> bool:
    """Return whether this is the late notification of an object that was reconciled."""
    return (
        upload.lost is not None
        and notification.at is not None
        and upload.notified == notification.etag
        and notification.at <= upload.lost + CLOCK_ROUNDING
    )
