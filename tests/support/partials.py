"""Partial uploads for tests: heads, and what a store and its gateway hold."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.commit import partial_expiry
from gateway.commit.partials import PartialStore
from gateway.domain.model import Upload, new_id
from gateway.domain.partial import PartialHead, PartialStatus
from gateway.server.app import Gateway

_OF_HEAD = frozenset(PartialHead.__dataclass_fields__) - {"upload"}


def partial_head(*, length: int | None, **fields: Any) -> PartialHead:
    """Return a head; `fields` are of it or of its upload."""
    of_head = {name: fields.pop(name) for name in list(fields) if name in _OF_HEAD}
    path = fields.pop("path", "/upload/x.bin")
    upload = Upload(new_id(0), path, content_length=length, created=time.time(), **fields)
    return PartialHead(
        **{"upload": upload, "asked_path": path, "protocol": "draft", "client": "c", **of_head}
    )


@dataclass
class StorePartials:
    """A gateway and its store of partial uploads.

    `is_exclusive` tells that an upload that is open cannot be opened once more.
    """

    gateway: Gateway
    is_exclusive: bool = True

    @property
    def confirms_expiry(self) -> bool:
        """Whether two sweeps must find an upload expired: no store refuses a clock that is wrong."""
        return self.gateway.resources.parts.backend is None

    @property
    def store(self) -> PartialStore:
        """The store."""
        store = self.gateway.resources.parts.partials
        assert store is not None
        return store

    async def status(self, upload_id: str) -> PartialStatus:
        """Describe an upload that is there."""
        status = await self.store.status(upload_id)
        assert status is not None
        return status

    async def visible(self) -> dict[str, bytes]:
        """Return what can be read, by path."""
        storage, found = self.gateway.resources.parts.storage, {}
        paths = [stat.path async for stat in storage.list("/upload/")]
        for path in paths:
            async with storage.open(path) as opened:
                found[path] = b"".join([bytes(piece) async for piece in opened])
        return found

    async def left(self) -> list[str]:
        """Return what lies about of uploads that ended, identities aside."""
        base, backend = self.gateway.resources.base, self.gateway.resources.parts.backend
        if backend is not None:
            multiparts = [key async for key, _, _ in backend.objects.list_multiparts("")]
            objects = backend.partials.objects
            return multiparts + [
                entry.name async for entry in objects.list() if not entry.name.startswith("r-")
            ]
        names = [name for name in base.partials.names() if name != "identities"]
        return [*names, *base.disk.incoming.upload_ids()]

    async def expire(self, now: float, monkeypatch: pytest.MonkeyPatch, sweeps: int = 2) -> list[str]:
        """Sweep so often, as at the Unix time `now` and some time apart; return the ids removed."""
        monkeypatch.setattr(partial_expiry, "CONFIRM_INTERVAL", 0.0)
        return [
            status.head.upload.id
            for _ in range(sweeps)
            async for status in self.store.remove_expired(now)
        ]
