"""Plain data of a local commit: the request, the upload in between, the result of a batch."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Final

from gateway.commit.disk_space import DiskSpace
from gateway.commit.rename_lock import RenameLock
from gateway.domain.model import Identity, Stored, Upload
from gateway.errors import Refusal, UnknownOutcome
from gateway.events.outbox import EventRecord
from gateway.storage.local.directory import OpenDirectory
from gateway.storage.local.incoming import IncomingDirectory, IncomingFile
from gateway.storage.local.tree import DirectoryTree


@dataclass(slots=True, frozen=True)
class LocalDisk:
    """The disk as one process uses it. `durable` syncs what is committed.

    `rename_lock` keeps other processes from removing files while this one publishes; None without
    other processes.
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

    `from_client` emits OnFileUploaded. `space_reserved` is False where the disk was not asked yet: the
    commit checks the space.
    """

    upload: Upload
    body: IncomingFile
    mime: str
    digests: dict[str, str]
    from_client: bool
    space_reserved: bool = True


@dataclass(slots=True)
class BatchResult:
    """The outcome of each request of a batch by upload id, and the events to be released.

    Filled step by step, so that it holds what is certain even where a step fails.
    """

    outcomes: dict[str, Stored | Refusal | UnknownOutcome] = field(default_factory=dict)
    event_ids: list[str] = field(default_factory=list)


_UNKNOWN: Final = Identity(0, 0, 0, 0)


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
