"""How partial uploads in a bucket end: their objects are removed, the state last.

An end that is interrupted is repeated by a sweep. Several gateways may end the same one at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from dataclasses import dataclass
from typing import Final

from gateway.domain import failpoints
from gateway.domain.partial import PartialHead
from gateway.errors import GatewayError
from gateway.storage.s3.bucket import BucketClient
from gateway.storage.s3.encoding import PrefixedKeys
from gateway.storage.s3.partial_objects import PartialObjects, PartialState
from gateway.storage.s3.private_objects import ChangedError, PrivateObjects
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.commit")

MAX_TRIES: Final = 3
"""Versions of a state that are tried, where others write to it at the same time."""


@dataclass(slots=True, frozen=True)
class PartialEnds:
    """Ends partial uploads. `objects` writes into the bucket, `keys` are those of paths.

    `private` are the objects that handlers read.
    """

    store: PartialObjects
    objects: BucketClient
    keys: PrefixedKeys
    private: PrivateObjects

    def key_of(self, upload_id: str, path: str) -> str:
        """Return the key that an upload goes to; without a path that of a part of a concatenation."""
        return self.keys.key_of(path) if path else self.store.objects.key_of(f"{upload_id}.part")

    def _body_key(self, upload_id: str, state: PartialState) -> str:
        """Return the key that the bytes of an upload go to."""
        return self.private.key_of(upload_id) if state.staged else self.key_of(upload_id, state.path)

    async def is_published(self, upload_id: str, path: str) -> bool:
        """Tell whether the object of a path is this upload. Raises `Refusal`."""
        head = await self.objects.head_object(self.key_of(upload_id, path))
        return head is not None and head.upload_id == upload_id

    async def completed(self, head: PartialHead, *, staged: bool) -> None:
        """Remove what is left of a published upload. Its identity names it for a day more.

        `staged`: it has a private object, which goes too.
        """
        failpoints.hit("before partial end")
        try:
            if staged:
                await self.private.delete(head.upload.id)
            await self.end(head)
        except GatewayError as error:
            _log_left(head.upload.id, error)

    async def end(self, head: PartialHead) -> None:
        """Remove what is left of an upload that ended well, but for its private object.

        Raises `Refusal`.
        """
        if head.identity is not None:
            await self._keep_identity(head.identity, head.upload.id)
        await self.store.delete(head.upload.id)

    async def remove(self, upload_id: str, only: str | None = None) -> bool:
        """Remove an upload for good; with `only` if its state still has this entity tag.

        Returns whether it is marked as removed: no request appends from then on. Does not raise where
        the storage is unavailable.
        """
        try:
            state = await self._mark(upload_id, only)
        except GatewayError as error:
            _log_left(upload_id, error)
            return False
        if state is None:
            return False
        try:
            await self._remove_marked(upload_id, state)
        except GatewayError as error:
            _log_left(upload_id, error)
        return True

    async def _mark(self, upload_id: str, only: str | None) -> PartialState | None:
        for _ in range(MAX_TRIES):
            stored = await self.store.read(upload_id)
            if stored is None or (only is not None and stored.etag != only):
                return None
            state = stored.state
            if state.removed:
                return state
            marked = dataclasses.replace(state, removed=True, sequence=state.sequence + 1)
            with contextlib.suppress(ChangedError):
                await self.store.write(upload_id, marked, memoryview(b""), stored.etag)
                return marked
        return None

    async def _remove_marked(self, upload_id: str, state: PartialState) -> None:
        head = await self.store.head(upload_id)
        identity = None if head is None else head.identity
        if identity is not None and await self.store.resolve(identity) == upload_id:
            await self.store.objects.delete(f"r-{identity}")
        if state.multipart is not None:
            await self.objects.abort_multipart(self._body_key(upload_id, state), state.multipart)
        if state.staged:
            await self.private.delete(upload_id)
        if not state.path:
            await self.store.objects.delete(f"{upload_id}.part")
        await self.store.delete(upload_id)

    async def _keep_identity(self, identity: str, upload_id: str) -> None:
        """Store it again, if it is still this upload's: its age counts from now on."""
        if await self.store.resolve(identity) == upload_id:
            await self.store.put_identity(identity, upload_id)


def _log_left(upload_id: str, error: GatewayError) -> None:
    log.warning(
        "objects of partial upload %s could not be removed, a sweep will do it: %s",
        upload_id,
        error,
        extra=event("partial.left", upload_id=upload_id),
    )
