"""What the other rooms may ask of a storage, whichever it is.

One rule: a storage that speaks these protocols passes the one contract suite (`tests/storage`), and
no other room knows which one it has. A **path** is what events name: it starts with `/` and lies
below DIRECTORY; its **key** is the same without that slash.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, runtime_checkable

from gateway.domain.grant import Grant

MAX_SINGLE_PASS_BYTES: Final = 64 << 10
"""What is read while a file is looked at, rather than sent from the open file."""


@dataclass(frozen=True, slots=True)
class Stat:
    """One stored file: its size in bytes, when it was last changed (Unix seconds), what it is.

    `etag` is strong and stands without quotes: equal only for the same bytes (RFC 9110 section
    8.8.3). `mime` is None where nobody said it; `metadata` names are in lower case.
    """

    path: str
    bytes: int
    modified: float
    etag: str
    mime: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PresignedRequest:
    """A request that the storage itself will take: send `method` to `url`.

    `headers` must be sent as they are; `fields` are those of a form (a POST policy), else empty.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)


class OpenFile(Protocol):
    """The bytes that were asked for of one version of a file, whatever happens to its name meanwhile.

    Iterating gives them in pieces of up to about a megabyte, once, and raises `OSError` or `Refusal`
    where they end too early: less than promised is never taken for all.
    """

    @property
    def stat(self) -> Stat:
        """The whole file."""
        ...

    @property
    def fd(self) -> int | None:
        """A descriptor of the file itself, at no position in particular, or None (no local file)."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Return the pieces."""
        ...


class Storage(Protocol):
    """The reading side of a storage. Callable from any event loop.

    Every path passes `paths.check_path` and the protected places first: `Refusal` `bad_path`,
    `forbidden`. A folder is no file: `not_found`. A storage that is away: `Refusal`
    `storage_unavailable` (503).
    """

    async def stat(self, path: str) -> Stat:
        """Describe a file. Raises `Refusal("not_found")`."""
        ...

    def open(
        self, path: str, *, start: int = 0, length: int | None = None, etag: str | None = None
    ) -> AbstractAsyncContextManager[OpenFile]:
        """Open `length` bytes from `start` on (None: up to the end), both within the file.

        Entering raises `Refusal("not_found")`, and `Superseded` where `etag` is given and the file
        has another.
        """
        ...

    def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[Stat]:
        """Iterate over the files whose path starts with `prefix`, in the byte order of their keys.

        `prefix` is text, no folder: `/a` finds `/ab` too. With `after` it begins behind that path. Of
        a bucket the order is the store's: byte order in S3, folder by folder in SeaweedFS. What
        is added or removed meanwhile may be missed or seen; nothing is seen twice. Memory is
        bounded whatever the number of files.
        """
        ...

    async def delete(self, path: str, etag: str | None = None) -> None:
        """Remove a file durably. Raises `Refusal("not_found")`, `Superseded` where `etag` differs."""
        ...

    async def sign(self, grant: Grant, *, expires: float) -> PresignedRequest | None:
        """Let the storage itself take one request until `expires` (Unix seconds).

        None: it cannot, and the gateway signs a URL of its own.
        """
        ...


@dataclass(frozen=True, slots=True)
class SinglePassRead:
    """What one look at a file brought: what it is, and the bytes that were chosen of it.

    `pieces` holds one for each part, unless they were too long to be read at once: then `opened`
    is that very file. It is to be entered at once, as nothing else closes it.
    """

    stat: Stat
    pieces: Sequence[bytes] = ()
    opened: AbstractAsyncContextManager[OpenFile] | None = None


@runtime_checkable
class SinglePassReader(Protocol):
    """A storage that looks at a file, decides, opens and reads in one go: a directory."""

    async def visit(
        self, path: str, choose: Callable[[Stat], Sequence[tuple[int, int]]]
    ) -> SinglePassRead:
        """Open a file and take the parts of it (start, length) that `choose` wants.

        `choose` is called in a thread, with what the open file is; what it raises comes out of here.
        Raises `Refusal` as `open` does, `Superseded` for a file that is cut short meanwhile.
        """
        ...


@runtime_checkable
class ExpiringStorage(Protocol):
    """A storage that may remove by itself what is old."""

    async def expire(self, prefix: str, seconds: float) -> Any | None:
        """Let the storage itself remove what lies below `prefix` (text) and is that many seconds old.

        Returns what it will do, for a person to read, with `days`: S3 counts in days. None: it
        removes nothing by itself, and who asks has to sweep.
        """
        ...
