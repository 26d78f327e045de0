"""Bodies that become files: over the short road, the ordinary or the fast one.

One rule: nothing here waits for the disk on the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Executor
from functools import partial

from aiohttp import web

from gateway.commit.committer import Committer
from gateway.commit.disk_space import DiskSpace, Reservation
from gateway.commit.records import CommitRequest
from gateway.domain.model import Stored, Upload
from gateway.endpoints.uploads import preconditions
from gateway.endpoints.uploads import sink as store
from gateway.endpoints.uploads.admission import AdmittedUpload, uploaded_event_body
from gateway.endpoints.uploads.buffered import take
from gateway.endpoints.uploads.socket_receiver import ReceiverFactory
from gateway.http.request_body import send_continue_or_disconnect
from gateway.settings import Settings
from gateway.storage.local.incoming import IncomingDirectory, IncomingFile
from gateway.storage.local.tree import DirectoryTree
from gateway.storage.local.xattrs import encode_xattr
from gateway.telemetry.redaction import Redaction


class FileSink:
    """DIRECTORY, as the door sees it."""

    def __init__(
        self,
        settings: Settings,
        tree: DirectoryTree,
        reserve: DiskSpace,
        incoming: IncomingDirectory,
        committer: Committer,
        *,
        roads: ReceiverFactory,
        disk: Executor,
    ) -> None:
        self._settings = settings
        self._tree = tree
        self._reserve = reserve
        self._incoming = incoming
        self._roads = roads
        self._disk = disk
        self._redaction = Redaction(settings.redact)
        self.commit_order = committer.commit

    async def look(
        self, upload: Upload, segments: tuple[str, ...], headers: Mapping[str, str]
    ) -> Reservation:
        """Look at the target and promise the space. Raises `Refusal`."""
        look = partial(self._look, upload, segments, headers)
        return await asyncio.get_running_loop().run_in_executor(self._disk, look)

    def _look(
        self, upload: Upload, segments: tuple[str, ...], headers: Mapping[str, str]
    ) -> Reservation:
        store.check_name(upload, headers, exists=self._tree.lstat(segments) is not None)
        return self._reserve.admit(upload.content_length)

    async def take(self, request: web.BaseRequest, admitted: AdmittedUpload) -> CommitRequest:
        """Receive over the short road: the body is small, and here. Raises `Refusal`."""
        upload, content = admitted.upload, take(request)
        admitted.progress.received = len(content)
        store.check_whole(upload, len(content))
        body = self._incoming.create(upload.id, self._settings.file_mode)
        body.xattr = encode_xattr(upload.path, upload.content_type, upload.metadata)
        body.buffer(content)
        return self._order(admitted, body, {})

    async def receive(
        self, request: web.BaseRequest, admitted: AdmittedUpload, share: Reservation, *, waiting: bool
    ) -> CommitRequest:
        """Receive a body. Raises `Refusal`, `ClientDisconnected`."""
        upload, algorithms = admitted.upload, store.algorithms_of(admitted)
        body = self._incoming.create(upload.id, self._settings.file_mode, list(algorithms.values()))
        body.xattr = encode_xattr(upload.path, upload.content_type, upload.metadata)
        admitted.progress.state = "receiving"
        if self._settings.durability == "full":
            body.start_writeback()
        receiver = self._roads.receiver(body, share, admitted.progress, upload.max_bytes)
        try:
            if waiting:
                await send_continue_or_disconnect(request)
            await receiver.receive(request, upload.content_length)
            computed = {name: body.digest(known) for name, known in algorithms.items()}
            store.verify(admitted, computed)
        except BaseException:
            await receiver.discard()
            raise
        return self._order(admitted, body, computed)

    async def commit(self, order: CommitRequest) -> Stored:
        """Hand the body to the committer. Raises `Refusal`, `UnknownOutcome`."""
        return await self.commit_order(order)

    def _order(
        self, admitted: AdmittedUpload, body: IncomingFile, computed: dict[str, bytes]
    ) -> CommitRequest:
        upload = admitted.upload
        mime = store.mime_of(upload)
        return CommitRequest(
            upload,
            body,
            mime,
            preconditions.described(computed),
            partial(uploaded_event_body, upload, mime, self._redaction),
            looked=admitted.share is not None,
        )
