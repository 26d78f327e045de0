"""Machinery: the files that events speak of, wherever in the installation they lie.

The rule: a script sees one `files`, whether the file is here, on a disk that we share with its
holder, or on another machine; it is always the very file, never a newer one. A holder that cannot
be reached is nobody's fault: `HolderAway`. May import commit, installation, hooks, storage and below.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlencode

import aiofiles
import aiohttp
from aiofiles.threadpool.binary import AsyncBufferedReader
from yarl import URL

from gateway import paths
from gateway.commit.files import VeryFiles, identity_of
from gateway.errors import HolderAway, Refusal, Superseded
from gateway.hooks import HandlerFailed, Hooks
from gateway.installation import Installation
from gateway.model import Delivery, Identity
from gateway.redaction import INTERNAL_HEADER
from gateway.settings import Address
from gateway.settings.values import address
from gateway.storage.tree import Tree

CONNECT_SECONDS: Final = 5.0
SILENCE_SECONDS: Final = 60.0
"""How long a holder may send nothing while it hands a file over."""

PIECE_BYTES: Final = 1 << 20
REMEMBERED: Final = 20_000
"""Files of deliveries that were begun most recently; older ones are asked for by their id alone."""

_PATIENCE: Final = aiohttp.ClientTimeout(
    total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the file of an upload is: who has it, how he is called, which very file it is."""

    holder: Address
    scheme: str
    path: str
    identity: Identity | None
    ours: bool

    @property
    def authority(self) -> str:
        """The holder as it stands in a URL."""
        host, port = self.holder
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def very(self) -> dict[str, str]:
        """What tells the holder which file is meant, even when its journal has forgotten."""
        one = self.identity
        if one is None:
            return {}
        return {"path": self.path, "is": f"{one.device}-{one.inode}-{one.size}-{one.mtime_ns}"}


class Holders:
    """`files` for handlers that may run far from the file. Callable from any event loop.

    `own` returns the `HOST:PORT` by which events name us, None for a worker, which holds nothing;
    `local` are our own files, `tree` is the directory that we may share with a holder; `directory` is
    where files lie, None where they are objects.
    """

    def __init__(
        self,
        installation: Installation,
        tree: Tree,
        directory: Path | None,
        *,
        own: Callable[[], tuple[str, int] | None],
        local: VeryFiles | None = None,
    ) -> None:
        self._installation = installation
        self._tree = tree
        self._directory = directory
        self._own = own
        self._local = local
        self._places: OrderedDict[str, Place] = OrderedDict()

    # -- what handlers are told

    def complete(self, delivery: Delivery) -> dict[str, Any]:
        """Return the event that a handler gets. `filepath` is set where the file is ours."""
        place = self._place(delivery)
        host, port = place.holder if place else self._own() or (None, None)
        event = {**delivery.event_at(host or "", port or 0, self._directory)}
        event |= {"address": host, "port": port}
        if place is not None and not place.ours and "filepath" in event:
            event["filepath"] = None
        return event

    async def deliver(self, hooks: Hooks, delivery: Delivery, event: dict[str, Any]) -> None:
        """Run the handler. Where it could not even connect to the holder, that is `HolderAway`."""
        place = self._places.get(delivery.upload_id or "")
        here = place is not None and await asyncio.to_thread(self._is_here, place)
        if place is not None and self._directory is not None and here:
            event["filepath"] = str(self._directory / place.path.lstrip("/"))
        try:
            await hooks.deliver(delivery, event)
        except HandlerFailed as failed:
            cause = failed.__cause__
            if place is None or not isinstance(cause, aiohttp.ClientConnectorError):
                raise
            if (cause.host, cause.port) != place.holder:
                raise
            raise _away(place, cause) from failed

    def _place(self, delivery: Delivery) -> Place | None:
        """Return where the file is, and remember it; None where there is none."""
        holder = address(delivery.holder)
        if not isinstance(holder, Address):
            return None
        own, origin = self._own(), delivery.origin
        place = Place(
            holder=holder,
            scheme=origin.scheme if origin else "http",
            path=str(delivery.body.get("path", "")),
            identity=origin.identity if origin else None,
            ours=own is not None and tuple(own) == holder,
        )
        if not place.ours:
            self._installation.meet(holder)
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
        has been replaced, changed or removed since, `HolderAway`.
        """
        place = self._places.get(str(event["upload_id"]))
        with contextlib.ExitStack() as held:
            fd = await self._descriptor(str(event["upload_id"]), place, held)
            async with aiofiles.open(fd, "rb") as reader:
                yield reader

    async def _descriptor(self, upload_id: str, place: Place | None, held: contextlib.ExitStack) -> int:
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
        """Let the holder delete the committed file. Raises `Superseded`, `HolderAway`."""
        upload_id = str(event["upload_id"])
        place = self._places.get(upload_id)
        if place is None or (place.ours and place.identity is None):
            await self._own_files().remove(event)
        elif place.ours and place.identity is not None:
            await self._own_files().remove_very(place.path, place.identity)
        else:
            async with self._asking("DELETE", upload_id, place):
                pass

    def _own_files(self) -> VeryFiles:
        if self._local is None:
            raise Superseded("this worker has no file of its own, and was told of no other")
        return self._local

    # -- a disk that we share

    def _is_here(self, place: Place) -> bool:
        fd = self._open_here(place)
        if fd is not None:
            os.close(fd)
        return fd is not None

    def _open_here(self, place: Place) -> int | None:
        """Open the file where the very same one lies below our directory."""
        if place.identity is None:
            return None
        try:
            fd = self._tree.open(paths.check(place.path))
        except (OSError, Refusal):
            return None
        if identity_of(os.fstat(fd)) == place.identity:
            return fd
        os.close(fd)
        return None

    # -- another machine

    async def _fetch(self, upload_id: str, place: Place, into: IO[bytes]) -> None:
        async with self._asking("GET", upload_id, place) as answer:
            while piece := await _read(answer, place):
                await asyncio.to_thread(into.write, piece)
        await asyncio.to_thread(into.seek, 0)

    @contextlib.asynccontextmanager
    async def _asking(
        self, method: str, upload_id: str, place: Place
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        url = _url(upload_id, place)
        trusted = self._installation.recognise(method, url)
        if trusted is None:
            raise HolderAway(f"{place.authority} is no peer of this installation")
        headers = {INTERNAL_HEADER: trusted.credential}
        async with aiohttp.ClientSession(timeout=_PATIENCE, auto_decompress=False) as session:
            try:
                answer = await session.request(
                    method, trusted.url, headers=headers, ssl=trusted.tls, allow_redirects=False
                )
            except (aiohttp.ClientError, TimeoutError, OSError) as fault:
                raise _away(place, fault) from fault
            async with answer:
                await _check(answer, place)
                yield answer


def _url(upload_id: str, place: Place) -> URL:
    base = f"{place.scheme}://{place.authority}/-/files/{upload_id}"
    return URL(f"{base}?{urlencode(place.very)}" if place.very else base, encoded=True)


async def _check(answer: aiohttp.ClientResponse, place: Place) -> None:
    """Raise what a status means: the file is another one, or the holder has troubles of its own."""
    if answer.status in {404, 410}:
        raise Superseded(f"{place.path} is no longer what was uploaded, says its holder")
    if answer.status in {401, 403}:
        raise HolderAway(
            f"{place.authority} does not know us: give all nodes the same"
            " --installation-key-file and set their clocks"
        )
    if answer.status >= 300:
        raise HolderAway(f"{place.authority} answers {answer.status}")


async def _read(answer: aiohttp.ClientResponse, place: Place) -> bytes:
    """Return about a piece of the file, nothing at its end. Cut short, it is `HolderAway`."""
    pieces, size = [], 0
    try:
        while size < PIECE_BYTES and (some := await answer.content.readany()):
            pieces.append(some)
            size += len(some)
    except (aiohttp.ClientError, TimeoutError, OSError) as fault:
        raise _away(place, fault) from fault
    return b"".join(pieces)


def _away(place: Place, fault: BaseException) -> HolderAway:
    return HolderAway(
        f"the holder of the file, {place.authority}, cannot be reached:"
        f" {str(fault) or type(fault).__name__}"
    )
