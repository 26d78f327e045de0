"""`files` in scripts: by event the version that was committed, by path the current one.

An event's file may be in the storage of this process, on a disk that it shares with the owner of the
file, or at a peer. It is always the version of the event, never a newer one.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
from aiofiles.threadpool import wrap
from aiofiles.threadpool.binary import AsyncBufferedReader

from gateway.domain.addresses import host_port
from gateway.domain.event_bodies import delivered_event, received_id
from gateway.domain.model import RECEIVED, Delivery, OnConflict, Stored
from gateway.errors import HandlerFailed, PeerUnavailable, Refusal, Superseded
from gateway.files.event_errors import event_errors
from gateway.files.local_copy import closed_in_thread, open_local
from gateway.files.moving import move_version
from gateway.files.peers import Peers, PeerStorage, owner_of, unreachable
from gateway.files.private import PrivateFiles, is_received_event
from gateway.files.saver import FileSaver, Source
from gateway.files.versions import FileVersion, UploadVersions
from gateway.storage.protocols import ExpiringStorage, Stat, Storage
from gateway.storage.s3.encoding import user_metadata
from gateway.telemetry import logs

log = logging.getLogger("gateway.storage")


@dataclass(frozen=True, slots=True)
class SharedDisk:
    """The directory of this process, which may be the one of the peer that owns a file."""

    storage: Storage
    directory: Path


class FilesService:
    """What scripts know as `files`. Callable from any event loop.

    `versions` finds the files of uploads, None in a worker. `peers` are the gateways that may own the
    file of an event. `disk` is None where every gateway reaches the one `storage`, a bucket. `private`
    are the files of events of OnFileReceived.
    """

    def __init__(
        self,
        storage: Storage,
        saver: FileSaver | None = None,
        *,
        versions: UploadVersions | None = None,
        peers: Peers | None = None,
        disk: SharedDisk | None = None,
    ) -> None:
        self.saver = saver or FileSaver()
        self.private = PrivateFiles()
        self._storage = storage
        self._versions = versions
        self._peers = peers
        self._disk = disk
        self._expiry_rules: dict[str, float] = {}

    # -- deliveries

    def event_now(self, delivery: Delivery) -> dict[str, Any] | None:
        """Return the event that a handler gets, None where its file has to be looked for first."""
        if delivery.holder is not None:
            return None
        host, port = (self._peers and self._peers.own()) or (None, None)
        event = delivered_event(delivery, host, port, self._disk.directory if self._disk else None)
        if delivery.event == RECEIVED:
            path = self.private.path_of(delivery.upload_id)
            event["filepath"] = path and str(path)
        return event

    def received_event(self, upload_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the event of OnFileReceived for handlers that run while the client waits."""
        event_id = received_id(upload_id)
        event = self.event_now(Delivery(None, event_id, upload_id, RECEIVED, "", 1, body))
        if event is None:
            raise AssertionError("the file is here")
        return event

    async def event_for(self, delivery: Delivery) -> dict[str, Any]:
        """Return the event that a handler gets. `filepath` is set where the file is on this disk."""
        if (event := self.event_now(delivery)) is not None:
            return event
        upload_id = delivery.upload_id
        if upload_id and self._versions and self._peers and self._peers.is_remote(delivery):
            own = await self._versions.find([upload_id])
            if own:  # it names an address of an earlier start
                delivery = replace(delivery, holder=None)
        version = self._peers.remember(delivery) if self._peers else None
        host, port = owner_of(delivery) or (self._peers and self._peers.own()) or (None, None)
        directory = self._disk.directory if self._disk else None
        if version is not None and version.owner is not None and not await self._is_on_disk(version):
            directory = None
        return delivered_event(delivery, host, port, directory)

    def unavailable_owner(self, delivery: Delivery, failed: HandlerFailed) -> PeerUnavailable | None:
        """Return the lost connection to the file's owner that made a run fail, None for other causes."""
        owner, cause = owner_of(delivery), failed.__cause__
        if isinstance(cause, aiohttp.ClientConnectorError) and (cause.host, cause.port) == owner:
            return unreachable(host_port(*owner), cause)
        return None

    # -- by event

    @contextlib.asynccontextmanager
    async def open(self, event: Mapping[str, Any]) -> AsyncIterator[AsyncBufferedReader]:
        """Open the committed version for reading, as `aiofiles.open(..., "rb")` would.

        Of OnFileReceived, the private file. What is no local file is fetched into a temporary file
        first. Raises `Superseded` where it has been replaced, changed or removed since, and where a
        private file is decided about; `PeerUnavailable`.
        """
        async with closed_in_thread() as stack:
            if is_received_event(event) and (
                file := await self.private.open(self._storage, event, stack)
            ):
                yield wrap(file)
                return
            version = await self._version_of(event)
            with event_errors(version):
                storage = await self._readable_storage(version)
                file = await open_local(storage, version, stack)
            yield wrap(file)

    async def remove(self, event: Mapping[str, Any]) -> None:
        """Remove the committed version, durably. Raises as `open` does."""
        if is_received_event(event):
            raise RuntimeError("a file without a name is refused by handle.terminate(), not removed")
        version = await self._version_of(event)
        storage = self._storage if version.owner is None else self._peer(version.owner)
        with event_errors(version):
            await version.delete(storage)

    async def _version_of(self, event: Mapping[str, Any]) -> FileVersion:
        """Return which version an event is about. Raises `Superseded`, `PeerUnavailable`."""
        upload_id = event.get("upload_id")
        if upload_id is None:
            return _version_by_path(event)
        delivered = self._peers.delivered(str(upload_id)) if self._peers else None
        if delivered is not None and delivered.owner is not None and self._disk is not None:
            return await self._with_etag(delivered, str(upload_id))
        if self._versions is not None:
            versions = await self._versions.find([str(upload_id)])
            if str(upload_id) in versions:
                return versions[str(upload_id)]
        if delivered is not None and delivered.etag is not None:
            return replace(delivered, owner=None, upload_id=str(upload_id))
        if self._disk is None:
            return _version_by_path(event)
        raise Superseded(f"this process knows no upload {upload_id} (any more)")

    async def _with_etag(self, version: FileVersion, upload_id: str) -> FileVersion:
        """Ask the owner for the entity tag that the delivery does not name."""
        if version.owner is None or version.etag is not None:
            return version
        with event_errors(version):
            return replace(version, etag=await self._peer(version.owner).etag_of_upload(upload_id))

    async def _readable_storage(self, version: FileVersion) -> Storage:
        """Return from where a version is read: a peer only where it is not here."""
        if version.owner is None:
            return self._storage
        if self._disk is not None and await self._is_on_disk(version):
            return self._disk.storage
        return self._peer(version.owner)

    async def _is_on_disk(self, version: FileVersion) -> bool:
        """Tell whether the directory of this process has this version of the file."""
        if self._disk is None or version.etag is None:
            return False
        try:
            return (await self._disk.storage.stat(version.path)).etag == version.etag
        except (OSError, Refusal):
            return False

    def _peer(self, owner: str) -> PeerStorage:
        if self._peers is None:
            raise PeerUnavailable(f"this process knows no peers, and the file is at {owner}")
        return self._peers.storage(owner)

    # -- by path

    @contextlib.asynccontextmanager
    async def open_path(self, path: str, etag: str | None = None) -> AsyncIterator[AsyncBufferedReader]:
        """Open what is stored at a path for reading, as `aiofiles.open(..., "rb")` would.

        What is no local file is fetched into a temporary file first. Raises `Refusal` `not_found`,
        `bad_path`, `forbidden`; `Superseded` where `etag` is given and the file has another.
        """
        async with closed_in_thread() as stack:
            yield wrap(await open_local(self._storage, FileVersion(path, etag), stack))

    async def stat(self, path: str) -> Stat:
        """Describe what is stored at a path. Raises `Refusal` as `open_path` does."""
        stat = await self._storage.stat(path)
        return replace(stat, metadata=user_metadata(stat.metadata))

    def list(self, prefix: str = "/", *, after: str | None = None) -> AsyncIterator[Stat]:
        """Iterate over what is stored under paths that start with `prefix`, in their byte order."""
        return self._storage.list(prefix, after=after)

    async def delete(self, path: str, etag: str | None = None) -> None:
        """Remove what is stored at a path, durably. Raises as `open_path` does."""
        await self._storage.delete(path, etag)

    async def move(
        self,
        file: Mapping[str, Any] | str,
        path: str,
        *,
        on_conflict: OnConflict = "replace",
        etag: str | None = None,
    ) -> Stat:
        """Give the file of an event, or of a path, another path, durably; return it as it is there.

        `files.open(event)` finds it there. Raises as `open` or `open_path` does, `Refusal` also
        `conflict`, `other_file_system`; `RuntimeError` on a worker.
        """
        upload_id = None
        if isinstance(file, str):
            version = FileVersion(file, etag)
        elif is_received_event(file):
            raise RuntimeError('a file without a name is not moved: set event["path"]')
        else:
            version, upload_id = await self._version_of(file), file.get("upload_id")
        moved = await move_version(self._storage, self._versions, version, path, on_conflict, upload_id)
        if self.saver.quota_files is not None and moved.path != version.path:
            await self.saver.quota_files.moved(version.path, moved.path)
        return replace(moved, metadata=user_metadata(moved.metadata))

    async def save(
        self,
        path: str,
        source: Source,
        *,
        mime: str | None = None,
        metadata: Mapping[str, str] | None = None,
        on_conflict: OnConflict = "replace",
    ) -> Stored:
        """Store bytes, a local file, or pieces as they come; on stable storage when it returns.

        Raises `Refusal` where nothing was stored (`conflict`, `bad_path`, `forbidden`, `no_space`,
        `storage_unavailable`), `UnknownOutcome` where it is unknown, and what `source` raises.
        """
        return await self.saver.save(path, source, mime=mime, metadata=metadata, on_conflict=on_conflict)

    async def expire(self, prefix: str, seconds: float) -> int:
        """Remove what is stored under `prefix` and older than `seconds`; return how many that were.

        What is replaced meanwhile stays. A bucket also gets a lifecycle rule, in whole days, that
        removes what no further call does. Raises `ValueError` for what is no folder.
        """
        if len(prefix) < 3 or not (prefix.startswith("/") and prefix.endswith("/")):
            raise ValueError("expire() takes a folder, such as /exports/")
        await self._set_expiry_rule(prefix, seconds)
        limit, removed = time.time() - seconds, 0
        async for stat in self._storage.list(prefix):
            if stat.modified < limit:
                with contextlib.suppress(Superseded, Refusal):
                    await self._storage.delete(stat.path, stat.etag)
                    removed += 1
        return removed

    async def _set_expiry_rule(self, prefix: str, seconds: float) -> None:
        """Let the storage itself remove what is old, where it can; log each rule once."""
        if not isinstance(self._storage, ExpiringStorage) or self._expiry_rules.get(prefix) == seconds:
            return
        try:
            rule = await self._storage.expire(prefix, seconds)
        except Refusal as refusal:  # this call removes without a rule, and the next one tries again
            log.warning(
                "the bucket takes no lifecycle rule for %s: %s",
                prefix,
                refusal,
                extra=logs.event("lifecycle.refused", prefix=prefix),
            )
            return
        if rule is not None:
            log.info("%s", rule, extra=logs.event("lifecycle.set", prefix=prefix))
        self._expiry_rules[prefix] = seconds


def _version_by_path(event: Mapping[str, Any]) -> FileVersion:
    if event.get("path") is None:
        raise Superseded("the event is about nothing that is stored here")
    return FileVersion(str(event["path"]), event.get("etag"))
