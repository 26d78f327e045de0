"""`files` for the tests of plugins: in a temporary directory of one test.

A missing file is refused as by a real storage, and what was replaced is `Superseded`. The directory is
made with the first file and removed by `close`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiofiles
from aiofiles.threadpool.binary import AsyncBufferedReader

from gateway.domain import paths
from gateway.domain.digests import named_digests
from gateway.domain.model import OnConflict, Stored, new_id
from gateway.errors import Refusal, Superseded
from gateway.storage.local.xattrs import guess_mime
from gateway.storage.protocols import Stat

NO_FILE: Final = "this test has no file for the event: give it one with `body:` or `body_file:`"


class _Attributes(NamedTuple):
    """What was said of a file when it was stored. `number` tells apart all that were."""

    number: int
    mime: str
    metadata: Mapping[str, str]


class TemporaryFiles:
    """The files of one test, by path; and the versions of those that an event is about.

    `now` returns the Unix time at which files are stored.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._stored = 0
        self._root: Path | None = None
        self._attributes: dict[str, _Attributes] = {}
        self._versions: dict[str, Stat] = {}
        self._private: dict[str, Path] = {}
        self._remove: Callable[[], object] = bool

    @property
    def directory(self) -> Path:
        """The directory below which files lie, as DIRECTORY of a gateway."""
        return self._folder("files")

    def close(self) -> None:
        """Remove all of it."""
        self._remove()

    # -- for the test itself

    def put(
        self,
        path: str,
        content: bytes,
        *,
        mime: str | None = None,
        metadata: Mapping[str, str] | None = None,
        upload_id: str | None = None,
    ) -> Stat:
        """Store a file, that of the upload `upload_id`. Raises `Refusal` `bad_path`."""
        path = _checked(path)
        target = self._place(path)
        written = self._folder("incoming") / str(self._stored)
        written.write_bytes(content)
        os.utime(written, (self._now(), self._now()))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            written.replace(target)
        except OSError as error:
            raise Refusal("bad_path", f"{path} cannot be stored: {error.strerror}") from None
        self._stored += 1
        self._attributes[path] = _Attributes(self._stored, mime or guess_mime(path), metadata or {})
        stat = self._stat(path)
        if upload_id is not None:
            self._versions[upload_id] = stat
        return stat

    def put_private(
        self, upload_id: str, path: str, content: bytes, mime: str | None = None
    ) -> tuple[Stat, Path]:
        """Keep the file of an upload to `path` that has no name yet; return where it lies."""
        place = self._private[upload_id] = self._folder("private") / upload_id
        place.write_bytes(content)
        return _described(_checked(path), place, _Attributes(0, mime or guess_mime(path), {})), place

    def content(self, path: str) -> bytes | None:
        """Return what is stored at a path, None if nothing is."""
        try:
            return self._place(_checked(path)).read_bytes()
        except OSError:
            return None

    # -- for scripts

    @contextlib.asynccontextmanager
    async def open(self, event: Mapping[str, Any]) -> AsyncIterator[AsyncBufferedReader]:
        """Open the file of an event. Raises `Superseded`, and `RuntimeError` if the test gives none."""
        private = self._private.get(str(event.get("upload_id")))
        place = private or self._place(self._version_of(event).path)
        async with aiofiles.open(place, "rb") as reader:
            yield reader

    async def remove(self, event: Mapping[str, Any]) -> None:
        """Remove the file of an event. Raises as `open` does."""
        self._discard(self._version_of(event).path)

    @contextlib.asynccontextmanager
    async def open_path(self, path: str, etag: str | None = None) -> AsyncIterator[AsyncBufferedReader]:
        """Open what is stored at a path. Raises `Refusal("not_found")`, `Superseded`."""
        stat = self._stat(path)
        stat.check_etag(etag)
        async with aiofiles.open(self._place(stat.path), "rb") as reader:
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
        content = await _content(source)
        path, replaced = self._free_path(_checked(path), on_conflict)
        stat = self.put(path, content, mime=mime, metadata=metadata)
        digests = dict(stat.digests)
        return Stored(new_id(0), path, stat.bytes, stat.mime or "", replaced, digests)

    async def move(
        self,
        file: Mapping[str, Any] | str,
        path: str,
        *,
        on_conflict: OnConflict = "replace",
        etag: str | None = None,
    ) -> Stat:
        """Give the file of an event or of a path another path. Raises as `open` does, and `conflict`."""
        moved = self._stat(file) if isinstance(file, str) else self._version_of(file)
        moved.check_etag(etag)
        old, new = moved.path, _checked(path)
        if old == new:
            return moved
        new, _ = self._free_path(new, on_conflict)
        self._place(new).parent.mkdir(parents=True, exist_ok=True)
        self._place(old).rename(self._place(new))
        self._attributes[new] = self._attributes.pop(old, _Attributes(0, guess_mime(new), {}))
        stat = self._stat(new)
        for upload_id, version in self._versions.items():
            if version == moved:
                self._versions[upload_id] = stat
        return stat

    async def stat(self, path: str) -> Stat:
        """Describe what is stored at a path."""
        return self._stat(path)

    async def list(self, prefix: str = "/", *, after: str | None = None) -> AsyncIterator[Stat]:
        """Iterate over what is stored."""
        for path in sorted(self._paths(), key=os.fsencode):
            if path.startswith(prefix) and path > (after or ""):
                yield self._stat(path)

    async def delete(self, path: str, etag: str | None = None) -> None:
        """Remove what is stored at a path."""
        stat = self._stat(path)
        stat.check_etag(etag)
        self._discard(stat.path)

    async def expire(self, prefix: str, seconds: float) -> int:
        """Remove what is stored in a folder and is older; return how many that were."""
        limit = self._now() - seconds
        old = [stat async for stat in self.list(prefix) if stat.modified < limit]
        for stat in old:
            self._discard(stat.path)
        return len(old)

    # -- below

    def _folder(self, name: str) -> Path:
        if self._root is None:
            self._root = Path(tempfile.mkdtemp(prefix="gateway-test-"))
            self._remove = weakref.finalize(self, shutil.rmtree, self._root, ignore_errors=True)
        folder = self._root / name
        folder.mkdir(exist_ok=True)
        return folder

    def _place(self, path: str) -> Path:
        return self.directory / path.removeprefix("/")

    def _paths(self) -> Iterator[str]:
        for place in self.directory.rglob("*"):
            if place.is_file():
                yield f"/{place.relative_to(self.directory)}"

    def _stat(self, path: str) -> Stat:
        path = _checked(path)
        place = self._place(path)
        if not place.is_file():
            raise Refusal("not_found", "there is no such file")
        return _described(
            path, place, self._attributes.get(path) or _Attributes(0, guess_mime(path), {})
        )

    def _version_of(self, event: Mapping[str, Any]) -> Stat:
        """Return the file that an event is about, as it was stored."""
        version = self._versions.get(str(event.get("upload_id")))
        if version is None:
            path = str(event.get("path"))
            if self.content(path) is None:
                raise RuntimeError(NO_FILE)
            return self._stat(path)
        try:
            self._stat(version.path).check_etag(version.etag)
        except Refusal:
            raise Superseded(f"{version.path} has been removed since it was uploaded") from None
        return version

    def _free_path(self, path: str, on_conflict: OnConflict) -> tuple[str, bool]:
        """Return where a file is stored, and whether it replaces one. Raises `Refusal` `conflict`."""
        replaced = self._place(path).is_file()
        if replaced and on_conflict == "reject":
            raise Refusal("conflict", "the file exists, and existing files are not replaced here")
        if not replaced or on_conflict == "replace":
            return path, replaced
        folder, _, name = path.rpartition("/")
        beside = (f"{folder}/{free}" for free in paths.names_beside(name, new_id(0)))
        return next(free for free in beside if not self._place(free).exists()), False

    def _discard(self, path: str) -> None:
        self._place(path).unlink()
        self._attributes.pop(path, None)


def _described(path: str, place: Path, attributes: _Attributes) -> Stat:
    status, content = place.stat(), place.read_bytes()
    version = f"{attributes.number}-{status.st_mtime_ns}-".encode() + content
    etag = hashlib.blake2b(version, digest_size=10).hexdigest()
    digests = named_digests({"sha256": hashlib.sha256(content).digest()})
    mime, metadata = attributes.mime, attributes.metadata
    return Stat(path, len(content), status.st_mtime, etag, mime, metadata, digests)


def _checked(path: str) -> str:
    return "/" + "/".join(paths.check_path(path))


async def _content(source: Any) -> bytes:
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str | os.PathLike):
        return await asyncio.to_thread(Path(source).read_bytes)
    return b"".join([piece async for piece in source])
