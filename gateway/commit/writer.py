"""The writing side of a storage, whichever it is; `storage.protocols.Shelf` is the other.

One rule: whoever stores begins a body, writes it, and either commits or discards it; what is
committed has the promise of every upload. It stands here and not in `storage` since the promise
needs the journal. One contract suite (`tests/commit/test_intake.py`) runs over both storages. May
import model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from gateway.domain.model import Stored, Upload


class PendingWrite(Protocol):
    """One body on its way in; nobody can see it. Used by one task at a time."""

    async def write(self, piece: bytes) -> None:
        """Take the next bytes; waits while too much is on its way. Raises `Refusal`."""
        ...

    async def finish(self) -> None:
        """All bytes are here. Raises `Refusal`."""
        ...

    def digest(self, algorithm: str) -> bytes:
        """Return the digest of all bytes, by its `hashlib` name; it must have been asked for."""
        ...

    async def discard(self) -> None:
        """Leave no trace of it. Never raises for a storage that is away."""
        ...


LandingT = TypeVar("LandingT")


@dataclass(slots=True)
class WriteMetadata:
    """What is known of a body that has landed, when it is committed.

    `tell` gives the body of OnFileUploaded for a size in bytes; None where no client uploaded it.
    """

    mime: str
    digests: dict[str, str] = field(default_factory=dict)
    tell: Callable[[int], dict[str, Any]] | None = None


class StorageWriter(Protocol[LandingT]):
    """What every storage can do for whoever stores. Lives on the server's loop."""

    async def exists(self, path: str) -> bool:
        """Tell whether there is something of this path. Raises `Refusal`, also for a bad path."""
        ...

    async def begin(self, upload: Upload, mime: str, algorithms: Sequence[str] = ()) -> LandingT:
        """Begin the body of an upload; `algorithms` are digests to compute. Raises `Refusal`."""
        ...

    async def commit(self, upload: Upload, body: LandingT, deed: WriteMetadata) -> Stored:
        """Publish a body that has ended. It is the intake's from here on, come what may.

        Raises `Refusal` when nothing was stored and nothing will be, `UnknownOutcome` when nobody
        can say.
        """
        ...
