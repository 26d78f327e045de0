"""The digests of a partial upload: of all its bytes, saved in its state, and of the body of one request.

They take the bytes from the part in memory, in a thread, some hundred KiB at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import Executor
from typing import Final

from gateway.domain.digests import RunningDigest, new_digest
from gateway.domain.saved_digests import SavedDigest, can_save, load_digest
from gateway.storage.s3.partial_objects import PartialState
from gateway.storage.waiting import finish_in_thread

_OFTEN_BYTES: Final = 512 << 10
"""Bytes that are hashed at once: fewer cost a thread more than they take."""


class PartialHashes:
    """The digests of a partial upload. `position` is the offset up to which they have taken bytes."""

    def __init__(self, state: PartialState, executor: Executor) -> None:
        self.position = state.offset
        self._whole: dict[str, SavedDigest] = {
            name: load_digest(name, saved) for name, saved in state.digests.items() if can_save(name)
        }
        self._body: dict[str, RunningDigest] = {}
        self._executor = executor

    def begin_body(self, algorithms: Sequence[str]) -> None:
        """Begin the digests of the body of a request."""
        self._body = {name: new_digest(name) for name in algorithms}

    async def update(self, pieces: memoryview) -> None:
        """Take the bytes from `position` on. A cancelled caller waits until they are taken."""
        if not pieces:
            return
        if self._whole or self._body:
            await finish_in_thread(self._take, pieces, executor=self._executor)
        else:
            self.position += len(pieces)

    async def update_often(self, pieces: memoryview) -> None:
        """Take the bytes from `position` on where they are many."""
        if len(pieces) >= _OFTEN_BYTES:
            await self.update(pieces)

    @property
    def algorithms(self) -> Collection[str]:
        """The digests of all bytes that are computed."""
        return self._whole.keys()

    def digest_of_whole(self, algorithm: str) -> bytes:
        """Return one of the `algorithms` of all bytes up to `position`."""
        return self._whole[algorithm].digest()

    def digest_of_body(self, algorithm: str) -> bytes:
        """Return a digest of the body of this request, up to `position`."""
        return self._body[algorithm].digest()

    def save(self) -> dict[str, bytes]:
        """Return the states of the digests of all bytes, for the state of the upload."""
        return {name: digest.save() for name, digest in self._whole.items()}

    def _take(self, pieces: memoryview) -> None:
        for digest in (*self._whole.values(), *self._body.values()):
            digest.update(pieces)
        self.position += len(pieces)
