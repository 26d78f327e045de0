"""What is ordered, what became of it, and what is known of it in between.

Plain data; the steps are in `batch`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.domain.event_bodies import object_created_body
from gateway.domain.model import OBJECT_CREATED, UPLOADED, HandlerSpec, Identity, Stored, Upload, new_id
from gateway.errors import Refusal, UnknownOutcome
from gateway.events.outbox import EventRecord, UploadRecord
from gateway.storage.local.directory import OpenDirectory
from gateway.storage.local.incoming import IncomingFile


@dataclass(slots=True)
class CommitRequest:
    """A received body to be committed: what it is, and what its handlers will be told.

    `tell` is called with the size in bytes, where there are handlers; None where no client uploaded
    it. `looked` is False where nobody has looked yet whether the disk has room for it.
    """

    upload: Upload
    body: IncomingFile
    mime: str
    digests: dict[str, str]
    tell: Callable[[int], dict[str, Any]] | None
    looked: bool = True


@dataclass(slots=True)
class BatchResult:
    """What became of a batch's orders, by upload id, and the events that may now be delivered.

    Filled as the steps go, so that it holds what is known even if a step breaks down.
    """

    outcomes: dict[str, Stored | Refusal | UnknownOutcome] = field(default_factory=dict)
    event_ids: list[str] = field(default_factory=list)


@dataclass(slots=True, frozen=True)
class Subscribers:
    """Who is told of what is stored: names for uploads, handlers with their filters for objects."""

    uploaded: tuple[str, ...] = ()
    created: tuple[HandlerSpec, ...] = ()

    def of_object(self, key: str) -> tuple[str, ...]:
        """Return the names of those who want to know of the object `key`."""
        return tuple([spec.name for spec in self.created if spec.wants(key)])


_UNKNOWN: Final = Identity(0, 0, 0, 0)


@dataclass(slots=True)
class StagedUpload:
    """An order whose bytes are in its file, with the folder it goes to, held open."""

    order: CommitRequest
    parent: OpenDirectory
    segments: tuple[str, ...]
    replaced: bool
    identity: Identity = _UNKNOWN
    told: tuple[EventRecord, ...] = ()

    @property
    def upload(self) -> Upload:
        """The upload that was ordered."""
        return self.order.upload

    @property
    def path(self) -> str:
        """The path as clients and handlers know it, with the name that was chosen."""
        return "/" + "/".join([*self.segments[:-1], self.parent.name])


def record_of(item: StagedUpload, audience: Subscribers, slot: int) -> UploadRecord:
    """Return what the journal keeps of a sealed upload, and note its events in `item`."""
    upload, order = item.upload, item.order
    item.told = told = tuple(_tellings(item, audience, slot))
    return UploadRecord(
        upload_id=upload.id,
        path=item.path,
        identity=item.identity,
        mime=order.mime,
        digests=order.digests,
        principal=upload.principal,
        remote=upload.remote,
        created=upload.created,
        told=told,
        metadata=upload.metadata,
    )


def _tellings(item: StagedUpload, audience: Subscribers, slot: int) -> Iterator[EventRecord]:
    order = item.order
    if audience.uploaded and order.tell is not None:
        body = order.tell(item.identity.size)
        yield EventRecord(new_id(slot), UPLOADED, body, audience.uploaded)
    if audience.created:
        path = item.path
        if handlers := audience.of_object(path.removeprefix("/")):
            identity = item.identity
            body = object_created_body(
                order.upload, path=path, size=identity.size, etag=identity.etag, mime=order.mime
            )
            yield EventRecord(new_id(slot), OBJECT_CREATED, body, handlers)
