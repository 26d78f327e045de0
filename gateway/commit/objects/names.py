"""How an upload appears in a bucket: its name, and the metadata of its object."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from gateway.commit.writer import media_type
from gateway.domain.model import Upload
from gateway.domain.paths import names_beside
from gateway.errors import Refusal
from gateway.signing.keys import ObjectMarker
from gateway.storage.s3.bucket import BucketClient
from gateway.storage.s3.encoding import ObjectTarget, PrefixedKeys, put_object_params


@dataclass(slots=True)
class ReservedNames:
    """The names that uploads of this process are about to get.

    No two uploads of the process get one name, even where the store ignores conditions. On the loop.
    """

    keys: PrefixedKeys
    objects: BucketClient
    marker: ObjectMarker
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    _owners: dict[str, str] = field(default_factory=dict)

    @contextlib.asynccontextmanager
    async def exclusive(self, key: str | None) -> AsyncIterator[None]:
        """Keep other uploads from this key; None: no lock is needed."""
        if key is None:
            yield
            return
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            yield

    async def reserve_free_path(self, upload: Upload, path: str) -> str:
        """Return a free path, and keep it for this upload. Raises `Refusal("conflict")`.

        A name that an unfinished multipart upload will get is not free: that one may be far along.
        """
        folder, _, wanted = path.rpartition("/")
        for name in (wanted, *names_beside(wanted, upload.id)):
            key = self.keys.key_of(f"{folder}/{name}")
            if self._owners.setdefault(key, upload.id) != upload.id:
                continue
            exists = await self.objects.head_object(key) is not None
            if not exists and not await self.objects.has_multipart(key):
                return f"{folder}/{name}"
            del self._owners[key]
        raise Refusal("conflict", "no free name was found beside the existing file")

    def release_names(self, upload_id: str) -> None:
        """Keep no name for an upload any more."""
        for key in [key for key, owner in self._owners.items() if owner == upload_id]:
            del self._owners[key]

    def target(self, upload: Upload, path: str) -> ObjectTarget:
        """Return where a body goes. The mark covers the path too."""
        mark = self.marker.mark(upload.id, path)
        return ObjectTarget(path, self.keys.key_of(path), upload.id, _object_params(upload, mark))


def _object_params(upload: Upload, mark: str) -> dict[str, Any]:
    """Return what the object says of itself; only a signed URL may set how long it stays fresh."""
    headers = {name.lower(): value for name, value in upload.headers.items()}
    if upload.grant is not None:
        headers.pop("cache-control", None)
        if upload.grant.cache_control:
            headers["cache-control"] = upload.grant.cache_control
    return put_object_params(upload.id, mark, media_type(upload), upload.metadata, headers)
