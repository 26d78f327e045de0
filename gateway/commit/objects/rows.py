"""What the journal has of an upload whose publishing in a bucket is not settled."""

from __future__ import annotations

from typing import Any

from gateway.commit.objects.body import ObjectCommit
from gateway.commit.records import StoredContent, UploadEvents
from gateway.commit.writer import media_type
from gateway.domain.model import Identity
from gateway.events.outbox import UploadRecord


def place_of(commit: ObjectCommit, bucket: str) -> dict[str, Any]:
    """Return where the object of a commit will be, and whose commit it is."""
    body = commit.body
    place = {"bucket": bucket, "key": body.target.key, "multipart": body.multipart}
    more = {"claim": body.claim, "held": True if commit.is_held else None}
    return {**place, **{name: value for name, value in more.items() if value is not None}}


def pending_record(commit: ObjectCommit, events: UploadEvents, bucket: str) -> UploadRecord:
    """Return the row of a commit, pending, with the events that follow once it is published."""
    upload, body, mime = commit.upload, commit.body, media_type(commit.upload)
    path = body.target.path
    content = StoredContent(path, body.received, mime, "", bucket, commit.digests)
    records = events.records(events.subscribers(), upload, content, from_client=commit.from_client)
    return UploadRecord(
        upload_id=upload.id,
        path=path,
        identity=Identity(0, body.received, 0),  # no inode: the place has the etag
        mime=mime,
        digests=commit.digests,
        principal=upload.principal,
        remote=upload.remote,
        created=upload.created,
        events=tuple(records),
        metadata=upload.metadata,
        kept_headers=upload.kept_headers,
        results=upload.results,
        place=place_of(commit, bucket),
        pending=True,
    )
