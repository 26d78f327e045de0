"""Events of created objects: their id, their body, and the buckets that they come from.

Everything follows from the notification and the object alone, so that every process and machine
makes the same event of the same object. Pure, except for the date of the event.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.domain import paths
from gateway.domain.event_bodies import notified_object_body
from gateway.domain.model import OBJECT_CREATED
from gateway.endpoints.notifications.parser import ObjectNotification
from gateway.endpoints.notifications.presigned_uploads import PresignedUpload
from gateway.errors import Refusal
from gateway.events.protocols import NewEvent
from gateway.settings.values import Bucket
from gateway.storage.protocols import Stat
from gateway.storage.s3.encoding import user_metadata


@dataclass(frozen=True, slots=True)
class NotificationScope:
    """The buckets whose notifications are accepted: `own`, if the storage is a bucket, and `others`."""

    own: Bucket | None
    others: frozenset[str] = frozenset()

    def accepts_bucket(self, bucket: str) -> bool:
        """Return whether the settings name a bucket."""
        return bucket in self.others or (self.own is not None and bucket == self.own.name)

    def key_in_storage(self, bucket: str, key: str) -> str | None:
        """Return the key relative to our storage, None if it is outside."""
        if self.own is None or bucket != self.own.name:
            return None
        prefix = f"{self.own.prefix}/" if self.own.prefix else ""
        return key[len(prefix) :] if key.startswith(prefix) and key != prefix else None

    def notification_for(self, path: str, stat: Stat) -> ObjectNotification:
        """Return the notification that an object of our storage should have had."""
        bucket, key = ("", path) if self.own is None else (self.own.name, self.own.key(path))
        return ObjectNotification(bucket, key, "ObjectCreated:Put", stat.bytes, stat.etag)


@dataclass(frozen=True, slots=True)
class NotifiedObject:
    """A created object. `key` is relative to our storage if `ours`, else to its bucket.

    `stat` is None if the object was not queried; `lost` is its date if its notification was lost;
    `presigned` are the URLs that may have created it.
    """

    notification: ObjectNotification
    key: str
    ours: bool
    stat: Stat | None = None
    presigned: Sequence[PresignedUpload] = ()
    lost: float | None = None


def object_created_event(subject: NotifiedObject, handlers: tuple[str, ...]) -> NewEvent:
    """Return the `OnObjectCreated` event of an object."""
    notification, stat = subject.notification, subject.stat
    path = f"/{subject.key}"
    storage_path = path if subject.ours and _is_path(path) else None
    stored = user_metadata(stat.metadata if stat is not None else notification.metadata or {})
    body = notified_object_body(
        event_name=notification.event_name,
        bucket=notification.bucket,
        key=subject.key,
        path=storage_path,
        size=stat.bytes if stat is not None else notification.bytes,
        etag=notification.etag or (stat.etag if stat is not None else None),
        mime=(stat.mime if stat is not None else None) or notification.mime,
        metadata=_trusted_metadata(subject.presigned, stored),
        version=notification.version,
        sequencer=notification.sequencer,
    )
    event_id = object_event_id(notification, subject.lost)
    return NewEvent(event_id, OBJECT_CREATED, handlers, body, time.time(), path=storage_path)


def object_event_id(notification: ObjectNotification, lost: float | None = None) -> str:
    """Return the id of the event of an object: equal for every notification of the same object.

    A version identifies an object; without one its etag and sequencer do. (Some senders have one
    sequencer for everything, and send two notifications of one multipart upload.) An object whose
    notification was `lost` is identified by its date.
    """
    if lost is not None:
        parts = ["lost", notification.etag, str(lost)]
    elif notification.version is not None:
        parts = ["version", notification.version]
    elif notification.etag is None and notification.sequencer is None:
        parts = ["moment", str(notification.at)]
    else:
        parts = ["content", notification.etag, notification.sequencer]
    text = "\0".join([part or "" for part in (notification.bucket, notification.key, *parts)])
    return f"object.{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:32]}"


def _trusted_metadata(presigned: Sequence[PresignedUpload], stored: dict[str, str]) -> dict[str, str]:
    """Return the metadata of the URL that created an object; without a URL, the stored metadata.

    Only signed metadata counts: some stores drop the metadata of a URL, and some accept unsigned
    metadata from the client.
    """
    matching = [upload for upload in presigned if upload.metadata.items() <= stored.items()]
    if matching:
        return dict(max(matching, key=lambda upload: len(upload.metadata)).metadata)
    return dict(presigned[0].metadata) if presigned else stored


def _is_path(path: str) -> bool:
    """Return whether scripts can open it: object stores accept keys that are no paths."""
    try:
        return "/" + "/".join(paths.check_path(path)) == path
    except Refusal:
        return False
