"""The storage protocol, which a local directory and a bucket implement.

`tests/contract/test_storage.py` runs over every implementation. A **path** is what events name: it
starts with `/` and lies below DIRECTORY; its **key** is the same without that slash.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable

from gateway.domain.grant import Grant
from gateway.domain.model import OnConflict
from gateway.errors import Superseded

MAX_FOLDER_PAGE: Final = 1000
"""Entries that one page of a folder has at most (Amazon S3 API reference, ListObjectsV2: MaxKeys)."""

INVALID_POSITION: Final = "invalid cursor: use the one of the previous page"

MAX_SINGLE_PASS_BYTES: Final = 64 << 10
"""What a single-pass read returns in memory; longer parts are sent from the open file."""


@dataclass(frozen=True, slots=True)
class Stat:
    """One stored file: its size in bytes, when it was last changed (Unix seconds), what it is.

    `etag` is strong and stands without quotes: equal only for the same bytes (RFC 9110 section
    8.8.3). `mime` is None where no upload declared it; `metadata` names are in lower case. `digests` are
    in base64 by their name in RFC 9530; empty where none is known of this version.
    """

    path: str
    bytes: int
    modified: float
    etag: str
    mime: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)

    def check_etag(self, etag: str | None) -> None:
        """Raise `Superseded` where another version than this one is expected (None: any)."""
        if etag is not None and etag != self.etag:
            raise Superseded(f"{self.path} has been replaced or changed meanwhile")


@dataclass(frozen=True, slots=True)
class FolderPage:
    """Some entries of one folder: the stats of files, and the paths of folders, which end with a slash.

    `next` is where the next page begins, None at the end. `described` tells that the stats have the type
    and the metadata that `Storage.stat` would tell.
    """

    entries: Sequence[Stat | str]
    next: str | None
    described: bool = False


@dataclass(frozen=True, slots=True)
class PresignedRequest:
    """A request that the storage itself accepts: send `method` to `url`.

    `headers` must be sent as they are; `fields` are those of a form (a POST policy), else empty.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)


class OpenFile(Protocol):
    """The requested bytes of one version of a file, whatever happens to its name meanwhile.

    Iterating yields them in pieces of up to about a megabyte, once, and raises `OSError` or `Refusal`
    where they end too early: a short file never passes for a whole one.
    """

    @property
    def stat(self) -> Stat:
        """The whole file."""

    @property
    def fd(self) -> int | None:
        """A descriptor of the file itself, at no position in particular, or None (no local file)."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Return the pieces."""


class Storage(Protocol):
    """The reading side of a storage. Callable from any event loop.

    Every path passes `paths.check_path` and the protected places first: `Refusal` `bad_path`,
    `forbidden`. A folder is no file: `not_found`. Out of reach it is `storage_unavailable` (503).
    """

    async def stat(self, path: str) -> Stat:
        """Describe a file. Raises `Refusal("not_found")`."""

    def open(
        self, path: str, *, start: int = 0, length: int | None = None, etag: str | None = None
    ) -> AbstractAsyncContextManager[OpenFile]:
        """Open `length` bytes from `start` on (None: up to the end), both within the file.

        Entering raises `Refusal("not_found")`, `Superseded` where the file has another `etag`.
        """

    def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[Stat]:
        """Iterate over the files whose path starts with `prefix`, in the byte order of their keys.

        `prefix` is text, no folder: `/a` matches `/ab` too. With `after` it begins behind that path.
        Of a bucket the order is the store's: byte order in S3, folder by folder in SeaweedFS. What is
        added or removed meanwhile may be missed or seen; nothing is seen twice. Memory is bounded.
        """

    async def delete(self, path: str, etag: str | None = None) -> None:
        """Remove a file durably. Raises `Refusal("not_found")`, `Superseded` where `etag` differs."""

    async def sign(self, grant: Grant, *, expires: float) -> PresignedRequest | None:
        """Sign a request that the storage itself accepts until `expires` (Unix seconds).

        None: it cannot, and the gateway signs a URL of its own.
        """


class FolderStorage(Storage, Protocol):
    """A storage of this gateway itself, whose folders can be listed one level at a time."""

    async def list_folder(
        self, folder: str, *, after: str | None = None, limit: int = MAX_FOLDER_PAGE
    ) -> FolderPage:
        """Return up to `limit` entries of a folder, whose path ends with a slash, in order.

        `after` is the `next` of the page before. A folder counts as its name with a slash. A page may
        have fewer entries, or none, before the end. As with `list`, nothing is seen twice. Raises
        `Refusal` `not_found` for a folder that does not exist, in a bucket: that has no entries;
        `bad_request` for an `after` of no page.
        """


@dataclass(frozen=True, slots=True)
class SinglePassRead:
    """A file and the parts of it that were read in one pass.

    `pieces` holds one for each part, unless they were too long for memory: then `opened` is that open
    file. Enter it at once, as nothing else closes it.
    """

    stat: Stat
    pieces: Sequence[bytes] = ()
    opened: AbstractAsyncContextManager[OpenFile] | None = None


@runtime_checkable
class SinglePassReader(Protocol):
    """A storage that opens a file, lets the caller decide, and reads, in one pass: a directory."""

    async def read_parts(
        self, path: str, choose: Callable[[Stat], Sequence[tuple[int, int]]]
    ) -> SinglePassRead:
        """Open a file and read the parts of it (start, length) that `choose` returns.

        `choose` is called in a thread, with the stat of the open file; what it raises is raised here.
        Raises `Refusal` as `open` does, `Superseded` for a file that is cut short meanwhile.
        """

    def read_parts_now(
        self, path: str, choose: Callable[[Stat], Sequence[tuple[int, int]]]
    ) -> SinglePassRead | None:
        """Do the same at once, without waiting for a disk; None where `read_parts` has to.

        `choose` is called here, and `opened` is None. Raises `Refusal` as `open` does.
        """


@runtime_checkable
class PrivateStorage(Protocol):
    """A storage that keeps whole files privately, as objects, before they get their names."""

    def open_private(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[OpenFile]:
        """Open a private object by its whole key, as `Storage.open` does. Raises `Refusal`."""


class ExpiryRule(Protocol):
    """What a storage will remove by itself. As text it is for a person to read."""

    @property
    def days(self) -> int:
        """The age at which a file is removed: S3 counts in days."""


@runtime_checkable
class MovingStorage(Protocol):
    """A storage that gives a file another path."""

    async def stat(self, path: str) -> Stat:
        """Describe a file, see `Storage.stat`."""

    async def move(
        self, path: str, target: str, *, etag: str | None = None, on_conflict: OnConflict = "replace"
    ) -> Stat:
        """Move a file, durably, with its metadata; return it as it is at its new path.

        With `on_conflict` `rename` that may be another path than `target`. Raises `Superseded` where
        `etag` is given and the file has another; `Refusal`: `not_found`, `conflict`, `bad_path`,
        `forbidden`, `other_file_system`, `too_large` (above 5 GiB in a bucket), `storage_unavailable`.
        """


@runtime_checkable
class ExpiringStorage(Protocol):
    """A storage that may remove by itself what is old."""

    async def expire(self, prefix: str, seconds: float) -> ExpiryRule | None:
        """Let the storage itself remove what lies below `prefix` (text) and is that many seconds old.

        None: it removes nothing by itself, and the caller has to.
        """
