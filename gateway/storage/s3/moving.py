"""Gives an object another key: the store copies it, then the old one is removed.

In this order a crash loses nothing: it leaves both, and the same call again completes the move. Metadata
and type are copied. Source: Amazon S3 API reference, CopyObject.
"""

from __future__ import annotations

from typing import Any, Final

from gateway.domain import failpoints
from gateway.domain.model import OnConflict, new_id
from gateway.domain.paths import names_beside
from gateway.errors import Refusal, Superseded
from gateway.storage.protocols import Stat, Storage
from gateway.storage.s3.client import Client
from gateway.storage.s3.encoding import UPLOAD_ID_NAME, PrefixedKeys
from gateway.storage.s3.errors import as_refusals, status_of

MAX_MOVED_BYTES: Final = 5 << 30
"""What S3 copies in one request."""


class ObjectMover:
    """Moves objects of one bucket, as `storage` reads and removes them."""

    def __init__(self, storage: Storage, bucket: str, keys: PrefixedKeys) -> None:
        self._storage = storage
        self._bucket = bucket
        self._keys = keys

    async def move(
        self, client: Client, source: str, target: str, etag: str | None, on_conflict: OnConflict
    ) -> Stat:
        """Move an object, see `MovingStorage.move`."""
        stat = await self._storage.stat(source)
        stat.check_etag(etag)
        if self._keys.key_of(source) == self._keys.key_of(target):
            return stat
        if stat.bytes > MAX_MOVED_BYTES:
            raise Refusal("too_large", f"the storage moves at most {MAX_MOVED_BYTES} bytes")
        moved = await self._copy(client, stat, target, on_conflict)
        failpoints.hit("after object copied")
        await self._storage.delete(source, stat.etag)
        return moved

    async def _copy(self, client: Client, stat: Stat, target: str, on_conflict: OnConflict) -> Stat:
        folder, _, name = target.rpartition("/")
        beside = names_beside(name, new_id(0)) if on_conflict == "rename" else ()
        for path in (target, *(f"{folder}/{other}" for other in beside)):
            existing = await self._existing(path)
            if existing is not None and _is_copy(existing, stat):
                return existing  # an earlier call was interrupted
            if existing is not None and on_conflict != "replace":
                continue
            if await self._copy_to(client, stat, path, new=on_conflict != "replace"):
                return await self._storage.stat(path)
        raise Refusal("conflict", "the file exists, and existing files are not replaced here")

    async def _existing(self, path: str) -> Stat | None:
        try:
            return await self._storage.stat(path)
        except Refusal as refusal:
            if refusal.code != "not_found":
                raise
        return None

    async def _copy_to(self, client: Client, stat: Stat, path: str, *, new: bool) -> bool:
        """Copy; return False where an object has the key meanwhile, if the store looks at it."""
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if new else {}
        source = {"Bucket": self._bucket, "Key": self._keys.key_of(stat.path)}
        with as_refusals(f"moving {stat.path}"):
            try:
                await client.copy_object(
                    Bucket=self._bucket,
                    Key=self._keys.key_of(path),
                    CopySource=source,
                    CopySourceIfMatch=f'"{stat.etag}"',
                    MetadataDirective="COPY",
                    **condition,
                )
            except Exception as error:
                if status_of(error) != 412:
                    raise
                if new and await self._existing(path) is not None:
                    return False
                raise Superseded(f"{stat.path} has been replaced or changed meanwhile") from error
        return True


def _is_copy(existing: Stat, stat: Stat) -> bool:
    """Tell whether an object is a copy of another: of the same upload, with the same bytes."""
    same = existing.metadata.get(UPLOAD_ID_NAME) == stat.metadata.get(UPLOAD_ID_NAME)
    return same and UPLOAD_ID_NAME in stat.metadata and existing.bytes == stat.bytes
