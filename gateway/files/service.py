"""The files that events speak of, wherever in the installation they lie.

The rule: a script sees one `files`, whether the file is here, on a disk that we share with its
holder, or on another machine; it is always the very file, never a newer one. A holder that cannot
be reached is nobody's fault: `PeerUnavailable`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import IO, Any, Final

import aiofiles
import aiohttp
from aiofiles.threadpool.binary import AsyncBufferedReader

from gateway.auth.installation import Installation
from gateway.domain import paths
from gateway.domain.addresses import Address
from gateway.domain.event_bodies import delivered_event
from gateway.domain.model import Delivery
from gateway.errors import HandlerFailed, PeerUnavailable, Refusal, Superseded
from gateway.files import peer as distant
from gateway.files.by_path import FilesByPath
from gateway.files.peer import FileLocation
from gateway.files.versions import FileVersions, identity_of
from gateway.settings.values import address
from gateway.storage.local.tree import DirectoryTree
from gateway.storage.protocols import Storage
from gateway.telemetry.redaction import INTERNAL_HEADER

REMEMBERED: Final = 20_000
"""Files of deliveries that were begun most recently; older ones are asked for by their id alone."""

Placed = Callable[[str], Awaitable[tuple[str, str] | None]]
"""Says which object an upload has become: its path and entity tag."""


class FilesService(FilesByPath):
    """`files` for handlers that may run far from the file. Callable from any event loop.

    `own` returns the `HOST:PORT` by which events name us, None for a worker, which holds nothing;
    `local` are our own files, `tree` is the directory that we may share with a holder,
    `directory` its path, None where the storage is a bucket. `shelf` is the
    storage; `placed` tells of its objects, None where it keeps files.
    """

    def __init__(
        self,
        installation: Installation,
        tree: DirectoryTree,
        directory: Path | None,
        *,
        own: Callable[[], tuple[str, int] | None],
        local: FileVersions | None = None,
        shelf: Storage,
        slot: int = 0,
        placed: Placed | None = None,
    ) -> None:
        super().__init__(shelf, slot)
        self._placed = placed
        self.met: str | None = None
        self._installation = installation
        self._tree = tree
        self._directory = directory
        self._own = own
        self._local = local
        self._places: OrderedDict[str, FileLocation] = OrderedDict()

    # -- the events of handlers

    async def event_for(self, delivery: Delivery) -> dict[str, Any]:
        """Return the event that a handler gets; `filepath` is set where the very file is on our disk."""
        place = self._place(delivery)
        host, port = place.holder if place else self._own() or (None, None)
        event = delivered_event(delivery, host or "", port or 0, self._directory)
        event |= {"address": host, "port": port}
        if place is None:
            return event
        if not place.ours and "filepath" in event:
            event["filepath"] = None
        directory = self._directory if delivery.upload_id is not None else None
        if directory is not None and await asyncio.to_thread(self._is_here, place):
            event["filepath"] = str(directory / place.path.lstrip("/"))
        return event

    def unavailable_holder(self, delivery: Delivery, failure: HandlerFailed) -> PeerUnavailable | None:
        """Return the error of a run that could not even connect to the holder of its file, else None."""
        place, cause = self._places.get(delivery.upload_id or ""), failure.__cause__
        if place is None or not isinstance(cause, aiohttp.ClientConnectorError):
            return None
        return distant.away(place, cause) if (cause.host, cause.port) == place.holder else None

    def _place(self, delivery: Delivery) -> FileLocation | None:
        """Return where the file is, and remember it; None where there is none."""
        holder = address(delivery.holder)
        if not isinstance(holder, Address):
            return None
        own, origin = self._own(), delivery.origin
        place = FileLocation(
            holder=holder,
            scheme=origin.scheme if origin else "http",
            path=str(delivery.body.get("path", "")),
            identity=origin.identity if origin else None,
            ours=own is not None and tuple(own) == holder,
        )
        if not place.ours:
            self._installation.add_peer(holder)
            self.met = f"{place.scheme}://{place.authority}"
        if delivery.upload_id is not None:
            self._places[delivery.upload_id] = place
            self._places.move_to_end(delivery.upload_id)
        while len(self._places) > REMEMBERED:
            self._places.popitem(last=False)
        return place

    # -- what scripts call

    @contextlib.asynccontextmanager
    async def open(self, event: Mapping[str, Any]) -> AsyncIterator[AsyncBufferedReader]:
        """Open the committed file for reading, as `aiofiles.open(..., "rb")` would.

        One that is elsewhere is fetched into a temporary file first. Raises `Superseded` when it
        has been replaced, changed or removed since, `PeerUnavailable`.
        """
        known = await self._object_of(event)
        if known is not None:
            async with self._as_event(), self.open_path(*known) as reader:
                yield reader
            return
        place = self._places.get(str(event["upload_id"]))
        with contextlib.ExitStack() as held:
            fd = await self._descriptor(str(event["upload_id"]), place, held)
            async with aiofiles.open(fd, "rb") as reader:
                yield reader

    async def _descriptor(
        self, upload_id: str, place: FileLocation | None, held: contextlib.ExitStack
    ) -> int:
        if place is None or (place.ours and place.identity is None):
            return await self._own_files().open_very(*await self._own_files().recorded(upload_id))
        if place.ours and place.identity is not None:
            return await self._own_files().open_very(place.path, place.identity)
        fd = await asyncio.to_thread(self._open_here, place)
        if fd is not None:
            return fd
        fetched = held.enter_context(await asyncio.to_thread(tempfile.TemporaryFile))
        await self._fetch(upload_id, place, fetched)
        return os.dup(fetched.fileno())

    async def remove(self, event: Mapping[str, Any]) -> None:
        """Let the holder delete the committed file. Raises `Superseded`, `PeerUnavailable`."""
        known = await self._object_of(event)
        if known is not None:
            async with self._as_event():
                await self.delete(*known)
            return
        upload_id = str(event["upload_id"])
        place = self._places.get(upload_id)
        if place is None or (place.ours and place.identity is None):
            await self._own_files().remove(event)
        elif place.ours and place.identity is not None:
            await self._own_files().remove_very(place.path, place.identity)
        else:
            async with self._asking("DELETE", upload_id, place):
                pass

    async def _object_of(self, event: Mapping[str, Any]) -> tuple[str, str | None] | None:
        """Return path and entity tag of what an event speaks of, None for the file of an upload."""
        upload_id, path = event.get("upload_id"), event.get("path")
        if upload_id is not None:
            known = None if self._placed is None else await self._placed(str(upload_id))
            if known is not None or self._placed is None:
                return known
        if path is None:
            raise Superseded("the event speaks of nothing that is stored here")
        return str(path), event.get("etag")

    @contextlib.asynccontextmanager
    async def _as_event(self) -> AsyncIterator[None]:
        """What an event speaks of and is there no more has been superseded."""
        try:
            yield
        except Refusal as refusal:
            if refusal.code != "not_found":
                raise
            raise Superseded("what the event speaks of has been removed since") from None

    def _own_files(self) -> FileVersions:
        if self._local is None:
            raise Superseded("this worker has no file of its own, and was told of no other")
        return self._local

    # -- a disk that we share

    def _is_here(self, place: FileLocation) -> bool:
        fd = self._open_here(place)
        if fd is not None:
            os.close(fd)
        return fd is not None

    def _open_here(self, place: FileLocation) -> int | None:
        """Open the file where the very same one lies below our directory."""
        if place.identity is None:
            return None
        try:
            fd = self._tree.open_file(paths.check_path(place.path))
        except (OSError, Refusal):
            return None
        if identity_of(os.fstat(fd)) == place.identity:
            return fd
        os.close(fd)
        return None

    # -- another machine

    async def _fetch(self, upload_id: str, place: FileLocation, into: IO[bytes]) -> None:
        async with self._asking("GET", upload_id, place) as answer:
            while piece := await distant.read(answer, place):
                await asyncio.to_thread(into.write, piece)
        await asyncio.to_thread(into.seek, 0)

    @contextlib.asynccontextmanager
    async def _asking(
        self, method: str, upload_id: str, place: FileLocation
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        url = distant.url_of(upload_id, place)
        trusted = self._installation.credentials_for(method, url)
        if trusted is None:
            raise PeerUnavailable(f"{place.authority} is no peer of this installation")
        headers = {INTERNAL_HEADER: trusted.credential}
        async with aiohttp.ClientSession(timeout=distant.PATIENCE, auto_decompress=False) as session:
            try:
                answer = await session.request(
                    method, trusted.url, headers=headers, ssl=trusted.tls, allow_redirects=False
                )
            except (aiohttp.ClientError, TimeoutError, OSError) as fault:
                raise distant.away(place, fault) from fault
            async with answer:
                await distant.check(answer, place)
                yield answer
