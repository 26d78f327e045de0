"""Names of objects that must replace nothing: chosen, kept, and given one at a time.

One rule: within this process no two uploads meet at a name, whatever the store makes of conditions.
On the server's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from gateway.commit.publish import names_beside
from gateway.domain.model import Upload
from gateway.errors import Refusal
from gateway.storage.s3.bucket import BucketClient
from gateway.storage.s3.keys import PrefixedKeys


@dataclass(slots=True)
class ReservedNames:
    """The names that uploads of this process are about to get."""

    keys: PrefixedKeys
    objects: BucketClient
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    _claimed: dict[str, str] = field(default_factory=dict)

    @contextlib.asynccontextmanager
    async def alone(self, key: str | None) -> AsyncIterator[None]:
        """Be the only one at a key; None: there is no need to."""
        if key is None:
            yield
            return
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            yield

    async def free_path(self, upload: Upload, path: str) -> str:
        """Return a path that nobody has, and keep it for this upload. Raises `Refusal("conflict")`."""
        folder, _, name = path.rpartition("/")
        for one in (name, *names_beside(name, upload.id)):
            key = self.keys.of(f"{folder}/{one}")
            if self._claimed.setdefault(key, upload.id) != upload.id:
                continue
            if await self.objects.head_object(key) is None:
                return f"{folder}/{one}"
            del self._claimed[key]
        raise Refusal("conflict", "no free name was found beside the existing file")

    def let_go(self, upload_id: str) -> None:
        """Keep no name for an upload any more."""
        for key in [key for key, owner in self._claimed.items() if owner == upload_id]:
            del self._claimed[key]
