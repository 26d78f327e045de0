"""How bytes get into a storage: one protocol for uploads of clients and for `files.save` of scripts.

It stands in `commit` and not in `storage` because the promise needs the journal. The contract suite
`tests/contract/test_storage_writer.py` runs over every implementation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Protocol

from gateway.domain.held import Held, PrivateFile
from gateway.domain.model import Stored, Upload
from gateway.storage.local.xattrs import guess_mime


class ThreadedWrite(Protocol):
    """The side of a pending write that a thread uses, without a detour through the event loop."""

    def append(self, chunks: Sequence[bytes | memoryview]) -> None:
        """Write `chunks` now. Blocking. Raises `Refusal("no_space")`, `OSError`."""

    def start_in_thread(self, work: Callable[[], None], executor: Executor) -> asyncio.Future[None]:
        """Let a thread work on the body; `discard` waits for it, also when the caller is cancelled."""


class PendingWrite(Protocol):
    """A body on its way into the storage, not visible to anyone. One task uses it at a time, but for
    `discard`, which may come while a cancelled `write` still ends.

    It ends with exactly one `commit`, `hold` or `discard`.
    """

    @property
    def threaded(self) -> ThreadedWrite | None:
        """What a thread may write to directly; None where all bytes go through the event loop."""

    async def write(self, chunk: bytes) -> None:
        """Take the next bytes; waits while too many are on their way. Raises `Refusal`."""

    async def finish(self) -> None:
        """Bring the rest of the bytes to the storage: the body is complete. Raises `Refusal`."""

    def digest(self, algorithm: str) -> bytes:
        """Return the digest of the finished body, by the name that `begin` was given."""

    async def stage(self) -> PrivateFile:
        """Let handlers of OnFileReceived read the finished body, which stays private.

        What they change in the upload counts in `commit` and `hold`. Raises `Refusal`.
        """

    async def hold(self, digests: Mapping[str, str], handlers: Sequence[str]) -> Held:
        """Keep the finished body private until `handlers` have decided, one after the other.

        The upload and the first delivery are in the journal, and the body is durable, on return. From
        here on the body is the writer's. Raises as `commit` does.
        """

    async def commit(self, digests: Mapping[str, str], *, from_client: bool) -> Stored:
        """Publish the finished body. From here on the body is the writer's, also after a cancel.

        `digests` are kept in the journal, base64 by RFC 9530 name. `from_client` emits OnFileUploaded.
        Raises `Refusal` (nothing was stored and nothing will be), `UnknownOutcome`.
        """

    async def discard(self) -> None:
        """Remove the body. Does not raise where the storage is unavailable: a sweep removes it later."""


class StorageWriter(Protocol):
    """The writing side of a storage. Runs on the server's event loop."""

    async def begin(
        self,
        upload: Upload,
        algorithms: Sequence[str] = (),
        *,
        must_exist: bool = False,
        staged: bool = False,
    ) -> PendingWrite:
        """Check the target, reserve the space, begin a body. `algorithms` are digests of
        `domain.digests` to compute; `staged`: handlers of OnFileReceived will read it.

        Raises `Refusal`: a bad path, a target that may not be replaced, `precondition_failed` where
        it must exist and does not, `no_space`, `storage_unavailable`.
        """

    async def store(self, upload: Upload, content: bytes, *, from_client: bool) -> Stored:
        """Commit a small body that is complete in memory; the commit checks its target and its space.

        A body of a few KiB costs the disk one visit that way. Raises as `PendingWrite.commit` does.
        """


def media_type(upload: Upload) -> str:
    """Return the media type of an upload: the declared one, else a guess from its name."""
    return upload.content_type or guess_mime(upload.path)
