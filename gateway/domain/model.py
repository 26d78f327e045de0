"""The nouns that cross rooms (upload, stored file, delivery) and their ids.

Plain data only: no behaviour that reads a clock, a disk or a socket except making an id.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from gateway.domain.grant import Grant

UPLOADING: Final = "APIGW.OnFileUploading"
UPLOADED: Final = "APIGW.OnFileUploaded"
UPLOAD_FAILED: Final = "APIGW.OnFileUploadFailed"
OBJECT_CREATED: Final = "APIGW.OnObjectCreated"
DOWNLOADING: Final = "APIGW.OnFileDownloading"
SCHEDULE: Final = "Schedule"

EVENT_VERSION: Final = 1
"""Version of the events' shape; it grows when a key changes its meaning or goes away."""

OnConflict = Literal["replace", "reject", "rename"]
ON_CONFLICT: Final[tuple[OnConflict, ...]] = ("replace", "reject", "rename")

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = tuple(first + second for first in _CROCKFORD for second in _CROCKFORD)
_SHIFTS: Final = tuple(range(120, -1, -10))


class _Random:
    """Random bytes of the system, fetched many at a time.

    Each visit to the system lets another thread take the interpreter, which costs more than a
    whole small upload's share of it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes = b""
        self._used = 0
        os.register_at_fork(after_in_child=self._forget)

    def take(self, count: int) -> bytes:
        with self._lock:
            start = self._used
            if start + count > len(self._bytes):
                self._bytes, start = os.urandom(_AT_ONCE), 0
            self._used = start + count
            return self._bytes[start : self._used]

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._bytes = b""


_AT_ONCE: Final = 4096
_random = _Random()


def random_bytes(count: int) -> bytes:
    """Return `count` (up to 100) bytes from the system's source; for ids, not for keys."""
    return _random.take(count)


def new_id(slot: int) -> str:
    """Make a ULID (48 bits of milliseconds, 80 random bits, Crockford base 32) with `-slot` behind it.

    The slot tells which journal of an installation knows the upload. Unguessable enough to
    name a status page: 80 bits from the system's source. Source: github.com/ulid/spec.
    """
    number = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(_random.take(10), "big")
    return f"{''.join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])}-{slot}"


@dataclass(slots=True)
class Upload:
    """One request to store a file, from admission on.

    `path` starts with a slash and is relative to DIRECTORY; it is the request's until a hook
    rewrites it. `params` values are lists. `headers` are the request's as sent: secrets are
    redacted by whoever writes them down. `content_length` is None when the body is chunked.
    `must_be_new` is `If-None-Match: *` (RFC 9110 section 13.1.2). `created` is a Unix time.
    `metadata` is kept with the file; its names are in lower case. `grant` is what a signed URL
    allowed, None where the request had none.
    """

    id: str
    path: str
    resources: dict[str, str] = field(default_factory=dict)
    params: dict[str, list[str]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    method: str = "PUT"
    remote: str | None = None
    principal: dict[str, Any] | None = None
    content_length: int | None = None
    content_type: str | None = None
    max_bytes: int | None = None
    on_conflict: OnConflict = "replace"
    must_be_new: bool = False
    created: float = 0.0
    metadata: dict[str, str] = field(default_factory=dict)
    grant: Grant | None = None


@dataclass(slots=True)
class Download:
    """One request to have a file, or a folder or some files of it as an archive.

    `path` is that of the file, or of the folder, which then ends with a slash; it is the request's
    until a handler rewrites it. `archive` is "zip" or None, `files` names what is wanted of the
    folder (None: all). `filename` and `cache_control` are how the answer is to be saved and cached,
    None: as usual. The rest is as in `Upload`.
    """

    id: str
    path: str
    resources: dict[str, str] = field(default_factory=dict)
    params: dict[str, list[str]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    method: str = "GET"
    remote: str | None = None
    principal: dict[str, Any] | None = None
    archive: str | None = None
    files: list[str] | None = None
    filename: str | None = None
    cache_control: str | None = None


class Identity(NamedTuple):
    """Which version of a file was committed: device and inode, size in bytes, mtime in nanoseconds."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        """Return the version that a stat describes."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    @property
    def etag(self) -> str:
        """The entity tag of this version, without quotes.

        Strong (RFC 9110 section 8.8.3): files get their names whole and by rename, so another content
        is another inode or time. Hashed, since clients have no use for inode numbers.
        """
        text = f"{self.device}-{self.inode}-{self.size}-{self.mtime_ns}"
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


class Stored(NamedTuple):
    """A committed upload: where it lies, what it is, whether it replaced an older file."""

    upload_id: str
    path: str
    bytes: int
    mime: str
    replaced: bool
    digests: dict[str, str]


@dataclass(slots=True, frozen=True)
class Origin:
    """How a file is reached from elsewhere: the scheme that its owner serves, and its entity tag."""

    scheme: str
    etag: str | None = None


@dataclass(slots=True, frozen=True)
class Delivery:
    """One claimed run of one handler for one event.

    `attempt` starts at 1 and is counted, durably, when the delivery is claimed. `token`
    names the delivery to the queue that handed it out. `round` counts how often somebody began
    the attempts anew. `holder` is the `HOST:PORT` that has the file, None where it is at hand;
    `origin` tells more of it. `created` is the event's birth, a Unix time.
    """

    token: object
    event_id: str
    upload_id: str | None
    event: str
    handler: str
    attempt: int
    body: dict[str, Any]
    holder: str | None = None
    round: int = 0
    created: float = 0.0
    origin: Origin | None = None


@dataclass(slots=True, frozen=True)
class RetryPolicy:
    """How often a failing handler runs again: total runs, first and longest pause in seconds."""

    attempts: int = 8
    backoff: float = 1.0
    max_backoff: float = 300.0


@dataclass(slots=True, frozen=True)
class HandlerSpec:
    """What the runner must know of a handler: its event, time-out in seconds, slots, retry policy.

    `prefix` and `suffix` are what keys of objects must begin and end with, one of each; empty: all do.
    """

    name: str
    event: str
    timeout: float
    concurrency: int = 4
    retry: RetryPolicy = RetryPolicy()
    prefix: tuple[str, ...] = ()
    suffix: tuple[str, ...] = ()

    def wants(self, key: str) -> bool:
        """Tell whether the handler is told of the object `key`."""
        return (not self.prefix or key.startswith(self.prefix)) and (
            not self.suffix or key.endswith(self.suffix)
        )
