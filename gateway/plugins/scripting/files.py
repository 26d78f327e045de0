"""`files` of scripts: the protocol, and files in memory for the tests of plugins.

In memory only what a script names as a source touches a disk, and a missing file is refused as by a
real storage.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import aiofiles
from aiofiles.threadpool.binary import AsyncBufferedReader

from gateway.domain import paths
from gateway.domain.model import OnConflict, Stored, new_id
from gateway.errors import Refusal, Superseded
from gateway.storage.local.xattrs import guess_mime
from gateway.storage.protocols import Stat

NOT_SAVED = "there are no files here but those that the script has saved"


class Files(Protocol):
    """Stored files, for scripts: by event the version that was committed, else by path.

    `gateway.files.service` has the details. `open` and `remove` raise `Superseded` if it was replaced.
    """

    def open(self, event: Mapping[str, Any]) -> AbstractAsyncContextManager[Any]:
        """Open the file of an event for reading bytes."""

    async def remove(self, event: Mapping[str, Any]) -> None:
        """Remove the file of an event."""

    def open_path(self, path: str, etag: str | None = None) -> AbstractAsyncContextManager[Any]:
        """Open what is stored at a path for reading bytes."""

    async def save(
        self,
        path: str,
        source: Any,
        *,
        mime: str | None = None,
        metadata: Mapping[str, str] | None = None,
        on_conflict: OnConflict = "replace",
    ) -> Stored:
        """Store a file."""

    async def stat(self, path: str) -> Any:
        """Describe what is stored at a path."""

    def list(self, prefix: str = "/", *, after: str | None = None) -> AsyncIterator[Any]:
        """Iterate over what is stored under a prefix."""

    async def delete(self, path: str, etag: str | None = None) -> None:
        """Remove what is stored at a path."""

    async def expire(self, prefix: str, seconds: float) -> int:
        """Remove what is stored in a folder and older."""


class FilesInMemory:
    """`files` for the tests of plugins, empty at first."""

    def __init__(self) -> None:
        self._saved: dict[str, tuple[bytes, Stat]] = {}

    @contextlib.asynccontextmanager
    async def open(self, event: Mapping[str, Any]) -> AsyncIterator[AsyncBufferedReader]:
        """Open what a script has saved at the path of the event; there is nothing else."""
        if str(event.get("path")) not in self._saved:
            raise RuntimeError(NOT_SAVED)
        async with self.open_path(str(event["path"])) as reader:
            yield reader

    async def remove(self, event: Mapping[str, Any]) -> None:
        """Remove what a script has saved at the event's path."""
        if self._saved.pop(str(event.get("path")), None) is None:
            raise RuntimeError(NOT_SAVED)

    @contextlib.asynccontextmanager
    async def open_path(self, path: str, etag: str | None = None) -> AsyncIterator[AsyncBufferedReader]:
        """Open what was saved at a path. Raises `Refusal("not_found")`, `Superseded`."""
        content, _ = self._get(path, etag)
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.seek(0)
            async with aiofiles.open(os.dup(file.fileno()), "rb") as reader:
                yield reader

    async def save(
        self,
        path: str,
        source: Any,
        *,
        mime: str | None = None,
        metadata: Mapping[str, str] | None = None,
        on_conflict: OnConflict = "replace",
    ) -> Stored:
        """Save a file. Raises `Refusal`: `bad_path`, `conflict`."""
        path = "/" + "/".join(paths.check_path(path))
        replaced = path in self._saved
        if replaced and on_conflict == "reject":
            raise Refusal("conflict", "the file exists, and existing files are not replaced here")
        content = await _content(source)
        etag = hashlib.blake2b(content, digest_size=12).hexdigest()
        kind = mime or guess_mime(path)
        self._saved[path] = content, Stat(path, len(content), time.time(), etag, kind, metadata or {})
        return Stored(new_id(0), path, len(content), kind, replaced, {})

    async def stat(self, path: str) -> Stat:
        """Describe what was saved at a path."""
        return self._get(path)[1]

    async def list(self, prefix: str = "/", *, after: str | None = None) -> AsyncIterator[Stat]:
        """Iterate over what was saved."""
        for path in sorted(self._saved):
            if path.startswith(prefix) and path > (after or ""):
                yield self._saved[path][1]

    async def delete(self, path: str, etag: str | None = None) -> None:
        """Remove what was saved at a path."""
        del self._saved[self._get(path, etag)[1].path]

    async def expire(self, prefix: str, seconds: float) -> int:
        """Remove what was saved in a folder and is older; return how many that were."""
        limit = time.time() - seconds
        old = [stat async for stat in self.list(prefix) if stat.modified < limit]
        for stat in old:
            del self._saved[stat.path]
        return len(old)

    def _get(self, path: str, etag: str | None = None) -> tuple[bytes, Stat]:
        saved = self._saved.get("/" + "/".join(paths.check_path(path)))
        if saved is None:
            raise Refusal("not_found", "there is no such file")
        if etag is not None and saved[1].etag != etag:
            raise Superseded(f"{path} has been replaced or changed meanwhile")
        return saved


async def _content(source: Any) -> bytes:
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str | os.PathLike):
        return await asyncio.to_thread(Path(source).read_bytes)
    return b"".join([piece async for piece in source])
