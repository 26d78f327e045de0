"""Plain data of a commit: the disk, the journal, the request and its events, the result of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Final

from gateway.commit.disk import DiskSpace, RenameLock
from gateway.domain.digests import named_digests
from gateway.domain.event_bodies import object_created_body, uploaded_body
from gateway.domain.model import OBJECT_CREATED, UPLOADED, HandlerSpec, Identity, Stored, Upload, new_id
from gateway.errors import Refusal, UnknownOutcome
from gateway.events.journal import Journal
from gateway.events.outbox import EventRecord, UploadRecord
from gateway.storage.local.directory import OpenDirectory
from gateway.storage.local.incoming import IncomingDirectory, IncomingFile
from gateway.storage.local.one_time_marks import OneTimeMarks
from gateway.storage.local.tree import DirectoryTree
from gateway.telemetry import tracing
from gateway.telemetry.redaction import Redaction

_UNKNOWN: Final = Identity(0, 0, 0)


@dataclass(slots=True, frozen=True)
class ProcessState:
    """The journal and the used one-time URLs of the process with this `slot`.

    A one-time URL is used up before its upload is published, and released only where the upload never
    will be. Blocking; `one_time_marks.sync` makes either durable.
    """

    slot: int
    journal: Journal
    one_time_marks: OneTimeMarks

    def consume_url(self, upload: Upload) -> bool:
        """Use up an upload's one-time URL; return whether it has one. Raises as `consume` does."""
        grant = upload.grant
        if grant is None or grant.once is None:
            return False
        self.one_time_marks.consume(grant.once, upload.id, grant.expires)
        return True

    def release_urls(self, uploads: Iterable[Upload]) -> bool:
        """Make the one-time URLs of uploads valid again; return whether there are any to be synced."""
        released = False
        for upload in uploads:
            grant = upload.grant
            if grant is not None and grant.once is not None:
                self.one_time_marks.release(grant.once, upload.id)
                released = True
        return released


@dataclass(slots=True, frozen=True)
class LocalDisk:
    """The disk as one process uses it. `durable` syncs what is committed.

    `rename_lock` (None: no other processes) lets no other remove files while this one publishes.
    """

    tree: DirectoryTree
    incoming: IncomingDirectory
    space: DiskSpace
    executor: Executor
    durable: bool
    rename_lock: RenameLock | None = None


@dataclass(slots=True)
class CommitRequest:
    """A received body to be committed.

    `from_client` emits OnFileUploaded. Without `space_reserved` the commit checks the space. The
    one-time URL of one that `was_held` is used up already, and stays so where the commit is undone.
    """

    upload: Upload
    body: IncomingFile
    mime: str
    digests: dict[str, str]
    from_client: bool
    space_reserved: bool = True
    was_held: bool = False

    def add_kept_digest(self) -> None:
        """Put the digest of `--digest` among the others, once the body is finalized."""
        if kept := self.body.digests.kept():
            self.digests |= named_digests(kept)


def begin_commit_span(upload: Upload) -> tracing.Span:
    """Begin the span of a commit, below that of the upload's request.

    It lasts from when a received body may be committed until it is durable and has its name.
    """
    if not tracing.is_on():
        return tracing.NO_SPAN
    attributes = {"gateway.upload_id": upload.id}
    return tracing.begin_below(upload.traceparent, "gateway.commit", attributes=attributes)


@dataclass(slots=True)
class BatchResult:
    """The outcome of each request of a batch by upload id, and the events to be released.

    Filled step by step, so that it holds what is certain even where a step fails.
    """

    outcomes: dict[str, Stored | Refusal | UnknownOutcome] = field(default_factory=dict)
    event_ids: list[str] = field(default_factory=list)


@dataclass(slots=True)
class StagedUpload:
    """An upload whose bytes are in its file, with the folder it goes to, held open."""

    request: CommitRequest
    parent: OpenDirectory
    segments: tuple[str, ...]
    replaced: bool
    identity: Identity = _UNKNOWN
    events: tuple[EventRecord, ...] = ()

    @property
    def upload(self) -> Upload:
        """The upload of the request."""
        return self.request.upload

    @property
    def path(self) -> str:
        """The path as clients and handlers know it, with the name that was chosen."""
        return "/" + "/".join([*self.segments[:-1], self.parent.name])

    def stored(self) -> Stored:
        """Return what was stored, once it is published."""
        request, identity = self.request, self.identity
        described = request.mime, self.replaced, request.digests
        return Stored(self.upload.id, self.path, identity.size, *described, identity=identity)

    def row(self) -> UploadRecord:
        """Return the row of the journal, with the events that are known by now."""
        upload, request = self.upload, self.request
        return UploadRecord(
            upload_id=upload.id,
            path=self.path,
            identity=self.identity,
            mime=request.mime,
            digests=request.digests,
            principal=upload.principal,
            remote=upload.remote,
            created=upload.created,
            events=self.events,
            metadata=upload.metadata,
            kept_headers=upload.kept_headers,
            results=upload.results,
        )


@dataclass(slots=True, frozen=True)
class Subscribers:
    """The handlers of what is stored: specs with their filters, for uploads and for objects."""

    uploaded: tuple[HandlerSpec, ...] = ()
    created: tuple[HandlerSpec, ...] = ()

    def __bool__(self) -> bool:
        """Tell whether there are any."""
        return bool(self.uploaded or self.created)

    def of_upload(self, key: str) -> tuple[str, ...]:
        """Return the names of the handlers of uploads whose filters match the file `key`."""
        return names_matching(self.uploaded, key)

    def of_object(self, key: str) -> tuple[str, ...]:
        """Return the names of the handlers whose filters match the object `key`."""
        return names_matching(self.created, key)


def names_matching(specs: Iterable[HandlerSpec], key: str) -> tuple[str, ...]:
    """Return the names of the handlers whose filters match a key, a path without its first slash."""
    return tuple([spec.name for spec in specs if spec.matches_key(key)])


@dataclass(slots=True, frozen=True)
class StoredContent:
    """What an upload became: `size` in bytes, `etag` without quotes, `bucket` None where it is local.

    `digests` are in base64 by their name in RFC 9530.
    """

    path: str
    size: int
    mime: str
    etag: str
    bucket: str | None = None
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class UploadEvents:
    """Builds the events of committed uploads. `subscribers()` are those of the plugins loaded now."""

    subscribers: Callable[[], Subscribers]
    redaction: Redaction
    slot: int

    def records(
        self, subscribers: Subscribers, upload: Upload, content: StoredContent, *, from_client: bool
    ) -> Iterator[EventRecord]:
        """Yield the events of an upload; without subscribers no body is built."""
        key = content.path.removeprefix("/")
        if from_client and (uploaded := subscribers.of_upload(key)):
            body = uploaded_body(
                upload,
                mime=content.mime,
                size=content.size,
                digests=content.digests,
                params=self.redaction.params(upload.params),
                headers=self.redaction.headers(upload.headers),
            )
            yield EventRecord(new_id(self.slot), UPLOADED, body, uploaded)
        if not subscribers.created:
            return
        if handlers := subscribers.of_object(key):
            body = object_created_body(
                upload,
                path=content.path,
                size=content.size,
                etag=content.etag,
                mime=content.mime,
                bucket=content.bucket,
                digests=content.digests,
            )
            yield EventRecord(new_id(self.slot), OBJECT_CREATED, body, handlers)
