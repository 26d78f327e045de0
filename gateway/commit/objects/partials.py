"""Partial uploads in a bucket: state objects, committed by the committer of objects.

Any process of any gateway continues any of them. Those of one gateway exclude each other by locks on its
disk, gateways by `If-Match` on the state: who takes one over makes the writes of the other fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

from gateway.commit.objects.names import ReservedNames
from gateway.commit.objects.open_partial import ObjectOpenPartial, PartialServices
from gateway.commit.objects.partial_claims import PartialClaims
from gateway.commit.objects.partial_expiry import ObjectPartialExpiry
from gateway.commit.objects.partial_locks import PartialLocks
from gateway.commit.partials import PartialBusy
from gateway.commit.publish import check_target
from gateway.domain import failpoints, paths
from gateway.domain.partial import PartialHead, PartialStatus, check_identity_order
from gateway.domain.saved_digests import can_save, load_digest
from gateway.domain.upload_fields import is_upload_id
from gateway.errors import GatewayError, Refusal
from gateway.events.pending_uploads import PendingUpload
from gateway.storage.s3.encoding import ObjectTarget
from gateway.storage.s3.part_sender import UploadContext
from gateway.storage.s3.partial_body import PartialBody
from gateway.storage.s3.partial_objects import PartialObjects, PartialState, StoredState
from gateway.storage.s3.parts import MAX_PARTS, part_bytes
from gateway.storage.s3.private_objects import PrivateObjects

T = TypeVar("T")

MAX_PARTIAL_PART_BYTES: Final = 64 << 20
"""A part is kept in memory while it fills: that of files of 625 GiB."""

_NOT_FOUND: Final = "there is no such upload, or it has ended"


class ObjectPartialStore:
    """The partial uploads of a bucket as a `PartialStore`, for one event loop."""

    def __init__(
        self,
        services: PartialServices,
        context: UploadContext,
        names: ReservedNames,
        locks: PartialLocks,
    ) -> None:
        self._services = services
        self._store: PartialObjects = services.ends.store
        self._context = context
        self._names = names
        self._locks = locks
        self._expiry = ObjectPartialExpiry(services, locks)
        self.claims = PartialClaims(services, locks, self._body)

    @property
    def objects(self) -> PrivateObjects:
        """The objects in which all of them lie."""
        return self._store.objects

    async def create(self, head: PartialHead) -> ObjectOpenPartial:
        """See `PartialStore.create`."""
        upload, algorithms = head.upload, self._digests_of(head)
        size = self._part_bytes(upload.content_length)
        if not head.part_of_concat:
            key = self._names.keys.key_of("/" + "/".join(paths.check_path(upload.path)))
            exists = await self._context.objects.head_object(key) is not None
            check_target(upload, exists=exists, must_exist=head.must_exist)
        self._services.counts.check(head.client)
        await self._services.check_space()
        writer = await self._locks.owner()
        state = PartialState(
            size,
            "" if head.part_of_concat else upload.path,
            writer,
            time.time(),
            upload.content_length,
            digests={name: load_digest(name).save() for name in algorithms},
            staged=head.staged and not head.part_of_concat,
        )
        await self._locks.acquire(upload.id)
        try:
            body = self._body(head, StoredState(state, "", 0, b""))
            await self._create(head, body)
        except BaseException:
            await self._locks.release(upload.id)
            raise
        self._services.counts.add(upload.id, head.client)
        return self._open_partial(head, body, writer)

    async def status(self, upload_id: str) -> PartialStatus | None:
        """See `PartialStore.status`."""
        if not is_upload_id(upload_id) or (head := await self._store.head(upload_id)) is None:
            return None
        state = await self._store.describe(upload_id)
        if state is None or state.removed:
            return None
        if state.claim is not None and await self._is_published(head, state):
            return None
        return PartialStatus(head, state.offset, state.length, state.latest)

    async def open(self, upload_id: str) -> ObjectOpenPartial:
        """See `PartialStore.open`."""
        if not is_upload_id(upload_id):
            raise Refusal("not_found", _NOT_FOUND)
        await self._locks.acquire(upload_id)
        try:
            head, stored = await self._store.head(upload_id), await self._store.read(upload_id)
            if head is None or stored is None or stored.state.removed:
                raise Refusal("not_found", _NOT_FOUND)
            writer, row = await self._locks.owner(), None
            if stored.state.claim is not None:
                row = await self._pending_row(head, stored.state)
            return self._open_partial(head, self._body(head, stored), writer, row)
        except BaseException:
            await self._locks.release(upload_id)
            raise

    async def resolve(self, identity: str) -> str | None:
        """See `PartialStore.resolve`."""
        return await self._store.resolve(identity)

    async def list(self) -> AsyncIterator[PartialStatus]:
        """See `PartialStore.list`."""
        async for upload_id, _ in self._store.ids():
            try:
                status = await self.status(upload_id)
            except Refusal as refusal:
                if refusal.code != "internal":
                    raise
                continue  # a newer gateway wrote it
            if status is not None:
                yield status

    def remove_expired(self, now: float) -> AsyncIterator[PartialStatus]:
        """See `PartialStore.remove_expired`. What crashes and interrupted ends left goes too."""
        return self._expiry.sweep(now)

    async def multiparts(self) -> set[str]:
        """Return the ids of all multipart uploads that belong to partial uploads. Raises `Refusal`."""
        stored = set()
        async for upload_id, _ in self._store.ids():
            state = await self._store.describe(upload_id)
            if state is not None and state.multipart is not None:
                stored.add(state.multipart)
        return stored

    async def close(self) -> None:
        """End what runs in the background."""
        await self._services.counts.close()

    # -- creation

    def _digests_of(self, head: PartialHead) -> Sequence[str]:
        """Return the digests that are computed of an upload. Raises `Refusal`."""
        for digest in head.digests:
            if not can_save(digest.algorithm):
                raise Refusal(
                    "bad_digest",
                    f"{digest.header}: this gateway cannot compute {digest.algorithm} of a file that"
                    " comes in several requests: send it in one, or without this digest",
                )
        if head.part_of_concat:
            return ()
        kept = self._context.digest
        computed = [kept] if kept is not None and can_save(kept) else []
        return tuple(dict.fromkeys([*(digest.algorithm for digest in head.digests), *computed]))

    def _part_bytes(self, length: int | None) -> int:
        """Return the size of the parts. Raises `Refusal("too_large")`."""
        size = part_bytes(length)
        most = min(MAX_PARTIAL_PART_BYTES, self._context.memory.total // 2)
        if size > most:
            raise Refusal(
                "too_large",
                f"an upload in several requests may have {MAX_PARTS * most} bytes in this storage",
            )
        return size

    async def _create(self, head: PartialHead, body: PartialBody) -> None:
        """Store state, identity and head, in this order: what has a head is complete."""
        upload_id = head.upload.id
        before = None
        try:
            await body.create()
            failpoints.hit("before partial head")
            if head.identity is not None:
                before = await self._store.resolve(head.identity)
                check_identity_order(before, upload_id)
                await self._store.put_identity(head.identity, upload_id)
            await self._store.put_head(head)
        except BaseException:
            await body.close()
            await asyncio.shield(self._services.ends.remove(upload_id))
            raise
        failpoints.hit("after partial head")
        if before is not None:
            await self._remove_replaced(before)

    async def _remove_replaced(self, upload_id: str) -> None:
        """Remove the upload whose identity has passed to another one, if it is not open."""
        with contextlib.suppress(PartialBusy, GatewayError):
            opened = await self.open(upload_id)
            await opened.remove()

    # -- opening

    def _body(self, head: PartialHead, stored: StoredState) -> PartialBody:
        upload = head.upload
        staged = stored.state.staged
        target = self._target(head, stored.state.path, staged=staged)
        choose = partial(self._choose_target, head, staged=staged)
        body = PartialBody(self._context, self._store, target, head.client, stored, choose)
        body.done = partial(self._names.release_names, upload.id)
        return body

    def _target(self, head: PartialHead, path: str, *, staged: bool) -> ObjectTarget:
        upload_id = head.upload.id
        if staged:
            return self._services.staging.target(head.upload)
        if head.part_of_concat:
            return ObjectTarget("", self._services.ends.key_of(upload_id, ""), upload_id, {})
        return self._names.target(head.upload, path)

    async def _choose_target(self, head: PartialHead, *, staged: bool) -> ObjectTarget:
        """Return where a multipart upload goes to; with `rename` its name is chosen now."""
        upload = head.upload
        path = "/" + "/".join(paths.check_path(upload.path))
        has_name = not staged and not head.part_of_concat
        if has_name and upload.on_conflict == "rename" and not upload.must_be_new:
            path = await self._names.reserve_free_path(upload, path)
        return self._target(head, path, staged=staged)

    def _open_partial(
        self, head: PartialHead, body: PartialBody, writer: str, row: PendingUpload | None = None
    ) -> ObjectOpenPartial:
        let_go, upload = partial(self._locks.release, head.upload.id), head.upload
        # Handlers may change the upload before it is committed; another request reads the same head.
        own = replace(upload, metadata=dict(upload.metadata), results=dict(upload.results))
        head = replace(head, upload=own)
        return ObjectOpenPartial(self._services, head, body, writer, let_go, row)

    async def _pending_row(self, head: PartialHead, state: PartialState) -> PendingUpload:
        """Return the row of the commit that has claimed an upload, if this process knows no outcome.

        Raises `Refusal("not_found")` where it is published, `PartialBusy` where it may be soon.
        """
        upload_id = head.upload.id
        if await self._is_published(head, state):
            raise Refusal("not_found", _NOT_FOUND)
        row = self._services.committer.take_pending(upload_id, str(state.claim))
        if row is None:
            raise PartialBusy(f"partial upload {upload_id} is being committed")
        return row

    async def _is_published(self, head: PartialHead, state: PartialState) -> bool:
        """Tell whether an upload that a commit has claimed is published; remove what is left of it.

        That is done only where the journal of the commit says so: another one may still have to.
        """
        if not await self._services.ends.is_published(head.upload.id, state.path):
            return False
        if await self._services.committer.has_settled(head.upload.id):
            await self._services.ends.completed(head, staged=state.staged)
        return True
