"""Which objects are told of, under which id, and what the event says.

One rule: everything follows from the notice and the object alone, so that whoever tells of the same
object, on whichever machine, makes the same event. Pure but for the date of its making.
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
from gateway.storage.s3.parts import user_metadata


@dataclass(frozen=True, slots=True)
class NotificationScope:
    """Which objects are told of: those of our storage, if it is a bucket, and those of `others`."""

    own: Bucket | None
    others: frozenset[str] = frozenset()

    def takes(self, bucket: str) -> bool:
        """Tell whether the operator named a bucket."""
        return bucket in self.others or (self.own is not None and bucket == self.own.name)

    def inside(self, bucket: str, key: str) -> str | None:
        """Return the key relative to our storage, None where it is not in there."""
        if self.own is None or bucket != self.own.name:
            return None
        prefix = f"{self.own.prefix}/" if self.own.prefix else ""
        return key[len(prefix) :] if key.startswith(prefix) and key != prefix else None

    def notice_of(self, path: str, stat: Stat) -> ObjectNotification:
        """Return what a notification of an object of our storage would have said."""
        bucket, key = ("", path) if self.own is None else (self.own.name, self.own.key(path))
        return ObjectNotification(bucket, key, "ObjectCreated:Put", stat.bytes, stat.etag)


@dataclass(frozen=True, slots=True)
class NotifiedObject:
    """An object to tell of: `key` is relative to our storage, else the bucket's (then `ours` is False).

    `stat` is what it was found to be, None where nobody looked; `lost` is its date where no notification
    came. `initiations` are the URLs by which it may have come.
    """

    notice: ObjectNotification
    key: str
    ours: bool
    stat: Stat | None = None
    initiations: Sequence[PresignedUpload] = ()
    lost: float | None = None


def event_of(subject: NotifiedObject, handlers: tuple[str, ...]) -> NewEvent:
    """Return the event of an object."""
    notice, stat = subject.notice, subject.stat
    path = f"/{subject.key}"
    known = path if subject.ours and _is_path(path) else None
    stored = user_metadata(stat.metadata if stat is not None else notice.metadata or {})
    body = notified_object_body(
        event_name=notice.event_name,
        bucket=notice.bucket,
        key=subject.key,
        path=known,
        size=stat.bytes if stat is not None else notice.bytes,
        etag=notice.etag or (stat.etag if stat is not None else None),
        mime=(stat.mime if stat is not None else None) or notice.mime,
        metadata=_allowed(subject.initiations, stored),
        version=notice.version,
        sequencer=notice.sequencer,
    )
    event_id = id_of(notice, subject.lost)
    return NewEvent(event_id, OBJECT_CREATED, handlers, body, time.time(), path=known)


def id_of(notice: ObjectNotification, lost: float | None = None) -> str:
    """Return the id of the event of an object: equal for every notification of the same one.

    A version names an object for good; without one its etag and the sequencer do. (Some senders
    have one sequencer for everything, and send two notifications of one multipart upload.) An object
    whose notification was `lost` has its date.
    """
    if lost is not None:
        which = ["lost", notice.etag, str(lost)]
    elif notice.version is not None:
        which = ["version", notice.version]
    elif notice.etag is None and notice.sequencer is None:
        which = ["moment", str(notice.at)]
    else:
        which = ["content", notice.etag, notice.sequencer]
    words = "\0".join([word or "" for word in (notice.bucket, notice.key, *which)])
    return f"object.{hashlib.sha256(words.encode('utf-8', 'replace')).hexdigest()[:32]}"


def _allowed(initiations: Sequence[PresignedUpload], stored: dict[str, str]) -> dict[str, str]:
    """Return the metadata of the URL by which an object came; without one, what is stored.

    What was signed counts, and nothing else: some stores keep none of what stands in a URL, and some
    take from the client what nobody signed.
    """
    fitting = [one for one in initiations if one.metadata.items() <= stored.items()]
    if fitting:
        return dict(max(fitting, key=lambda one: len(one.metadata)).metadata)
    return dict(initiations[0].metadata) if initiations else stored


def _is_path(path: str) -> bool:
    """Tell whether scripts can open it: an object store takes names that are no paths."""
    try:
        return "/" + "/".join(paths.check(path)) == path
    except Refusal:
        return False
