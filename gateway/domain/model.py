"""The data that packages share: upload, stored file, delivery, handler; and ids.

Plain data. Only making an id reads the clock and the system's random source.
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from gateway.domain.grant import Grant
from gateway.domain.quotas import QuotaLeft

UPLOADING: Final = "APIGW.OnFileUploading"
RECEIVED: Final = "APIGW.OnFileReceived"
UPLOADED: Final = "APIGW.OnFileUploaded"
UPLOAD_FAILED: Final = "APIGW.OnFileUploadFailed"
OBJECT_CREATED: Final = "APIGW.OnObjectCreated"
DOWNLOADING: Final = "APIGW.OnFileDownloading"
LISTING: Final = "APIGW.OnFileListing"
DELETING: Final = "APIGW.OnFileDeleting"
DELETED: Final = "APIGW.OnFileDeleted"
SCHEDULE: Final = "Schedule"

EVENT_VERSION: Final = 1
"""Version of the events' shape; it increases when a key changes its meaning or is removed."""

OnConflict = Literal["replace", "reject", "rename"]
ON_CONFLICT: Final[tuple[OnConflict, ...]] = ("replace", "reject", "rename")

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_DIGIT_OF_LETTER: Final = str.maketrans(_CROCKFORD, "0123456789abcdefghijklmnopqrstuv")
"""To what Python's `int` reads in base 32."""

_PAIRS: Final = tuple(first + second for first in _CROCKFORD for second in _CROCKFORD)
_LETTER_OF_BYTE: Final = (_CROCKFORD * 8).encode()
"""The letter for each value of a random byte; each letter has eight of them."""

_BUFFER_SIZE: Final = 4096


class _RandomBytes:
    """Random bytes of the system, read many at a time.

    Each system call lets another thread take the interpreter lock, which costs more than a whole
    small upload's share of it. `_letters` are the same for ids, as text.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes, self._used = b"", 0
        self._letters, self._letters_used = "", 0
        os.register_at_fork(after_in_child=self._clear)

    def read(self, count: int) -> bytes:
        """Return `count` (up to 100) bytes from the system's source; for ids, not for keys."""
        with self._lock:
            start = self._used
            if start + count > len(self._bytes):
                self._bytes, start = os.urandom(_BUFFER_SIZE), 0
            self._used = start + count
            return self._bytes[start : self._used]

    def letters(self, count: int) -> str:
        """Return `count` (up to 100) random letters of Crockford's base 32, 5 bits each."""
        with self._lock:
            start = self._letters_used
            if start + count > len(self._letters):
                self._letters = os.urandom(_BUFFER_SIZE).translate(_LETTER_OF_BYTE).decode()
                start = 0
            self._letters_used = start + count
            return self._letters[start : self._letters_used]

    def _clear(self) -> None:
        """Forget what was read: a forked child must not repeat it."""
        self._lock = threading.Lock()
        self._bytes, self._letters = b"", ""


_random: Final = _RandomBytes()
random_bytes: Final = _random.read


def new_id(slot: int) -> str:
    """Return a ULID (48 bits of milliseconds, 80 random bits, Crockford base 32) followed by `-slot`.

    The slot names the journal that has the upload. 80 random bits make the URL of a status page
    unguessable. Source: github.com/ulid/spec.
    """
    milliseconds = time.time_ns() // 1_000_000
    later = _PAIRS[milliseconds >> 10 & 1023] + _PAIRS[milliseconds & 1023]
    return f"{_first_letters(milliseconds >> 20)}{later}{_random.letters(16)}-{slot}"


def created_at(upload_id: str) -> float:
    """Return the Unix time, in whole milliseconds, at which an id of `new_id` was made."""
    return int(upload_id[:10].translate(_DIGIT_OF_LETTER), 32) / 1000


def id_prefix(moment: float) -> str:
    """Return how the ids of a Unix time begin; no id of a later time sorts before it."""
    milliseconds = max(0, min(int(moment * 1000), (1 << 48) - 1))
    return "".join([_PAIRS[milliseconds >> shift & 1023] for shift in (40, 30, 20, 10, 0)])


@functools.lru_cache(maxsize=2)
def _first_letters(time: int) -> str:
    """Return the first six letters of an id, which are the same for a quarter of an hour."""
    return "".join([_PAIRS[time >> shift & 1023] for shift in (20, 10, 0)])


@dataclass(slots=True)
class Upload:
    """One request to store a file, from admission on.

    `path` starts with a slash and is relative to DIRECTORY; it is the request's until a hook
    rewrites it. `headers` are unredacted: writers of logs and journal redact them. `content_length` is
    None if the body is chunked. `must_be_new` is `If-None-Match: *` (RFC 9110 section 13.1.2).
    `created` is the Unix time of the id: lists since a time select by id. `metadata` is stored with the
    file; its names are in lower case. `grant` is what a signed URL allows, None if the request has none.
    `resumable` is the protocol of one in several requests, `content_length` then that of the whole file;
    `part_of_concat` marks the part of another file (tus, `Upload-Concat: partial`). `kept_headers` are
    those of its creation that responses to HEAD repeat, after its completion too (tus). `results` are
    what its handlers left for the client, by their names. `quotas` are limits that came with it, by
    their keys: those of `domain.quotas.QuotaLimits.as_dict`. `traceparent` is the span of its request
    (W3C Trace Context), None where nothing is traced.
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
    resumable: str | None = None
    part_of_concat: bool = False
    kept_headers: dict[str, str] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    quotas: dict[str, dict[str, int]] = field(default_factory=dict)
    traceparent: str | None = None


@dataclass(slots=True)
class FileRequest:
    """One request for what is stored: to send, list or remove it.

    `path` is that of a file, or of a folder with a trailing slash; it is the request's until a handler
    rewrites it. The other fields are as in `Upload`.
    """

    id: str
    path: str
    resources: dict[str, str] = field(default_factory=dict)
    params: dict[str, list[str]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    method: str = "GET"
    remote: str | None = None
    principal: dict[str, Any] | None = None
    traceparent: str | None = None


@dataclass(slots=True)
class Download(FileRequest):
    """One request for a file, or for a folder or some of its files as an archive.

    `archive` is "zip" or None; `files` are the requested files of the folder (None: all). `filename`
    and `cache_control` set the headers of the response, None: the defaults.
    """

    archive: str | None = None
    files: list[str] | None = None
    filename: str | None = None
    cache_control: str | None = None


class Identity(NamedTuple):
    """The identity of a committed file: inode, size in bytes, mtime in nanoseconds.

    Not the device: all uploads are on one, and its number may be another after a reboot (logical
    volumes, loop devices, btrfs, NFS) and on a restored snapshot.
    """

    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        """Return the version that a stat describes."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)

    @property
    def etag(self) -> str:
        """The entity tag of this version, without quotes.

        Strong (RFC 9110 section 8.8.3): files get their names whole and by rename, so another content
        is another inode or time. Hashed, since clients have no use for inode numbers. 20 hexadecimal
        digits; the 24 of earlier versions hashed the device too.
        """
        text = f"{self.inode}-{self.size}-{self.mtime_ns}"
        return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


class Stored(NamedTuple):
    """A committed upload: its path, size, type and digests; whether it replaced a file.

    `result` is what its handlers left for the client, None if nothing. `identity` is that of its file,
    None for an object. `quotas` are those that it counts for. `tells_path`: its client learns its path.
    """

    upload_id: str
    path: str
    bytes: int
    mime: str
    replaced: bool
    digests: dict[str, str]
    result: dict[str, Any] | None = None
    identity: Identity | None = None
    quotas: tuple[QuotaLeft, ...] = ()
    tells_path: bool = True


@dataclass(slots=True, frozen=True)
class Origin:
    """How other nodes fetch a file: the scheme of the node that has it, and its entity tag."""

    scheme: str
    etag: str | None = None


@dataclass(slots=True, frozen=True)
class Delivery:
    """One claimed run of one handler for one event.

    `attempt` starts at 1 and is stored when the delivery is claimed. `token` identifies the delivery
    in its queue. `round` counts how often attempts were restarted. `holder` is the `HOST:PORT` that
    has the file, None if it is local; `origin` is how to fetch it. `created` is the Unix time of the
    event.
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
    """Retries of a failing handler: total runs, first and longest delay in seconds."""

    attempts: int = 8
    backoff: float = 1.0
    max_backoff: float = 300.0


@dataclass(slots=True, frozen=True)
class HandlerSpec:
    """A handler as the runner sees it: event, time-out in seconds, concurrency, retry policy.

    Keys of objects must begin with one of `prefix` and end with one of `suffix`, unless these are empty.
    """

    name: str
    event: str
    timeout: float
    concurrency: int = 4
    retry: RetryPolicy = RetryPolicy()
    prefix: tuple[str, ...] = ()
    suffix: tuple[str, ...] = ()

    def matches_key(self, key: str) -> bool:
        """Return whether the handler subscribes to the object `key`."""
        return (not self.prefix or key.startswith(self.prefix)) and (
            not self.suffix or key.endswith(self.suffix)
        )
