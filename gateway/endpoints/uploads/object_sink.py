"""Bodies that become objects: they go on to S3 while they come.

One rule: the client is read no faster than the storage takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Executor
from functools import partial
from typing import NamedTuple

from aiohttp import web

from gateway.commit.disk_space import DiskSpace, Reservation
from gateway.commit.object_writer import ObjectWriter
from gateway.commit.writer import WriteMetadata
from gateway.domain.model import Stored, Upload
from gateway.endpoints.uploads import preconditions
from gateway.endpoints.uploads import sink as store
from gateway.endpoints.uploads.admission import AdmittedUpload, uploaded_event_body
from gateway.endpoints.uploads.buffered import take
from gateway.errors import Refusal
from gateway.http.request_body import read_chunk, send_continue_or_disconnect
from gateway.settings import Settings
from gateway.storage.s3.upload import MultipartUpload
from gateway.telemetry.redaction import Redaction


class ReceivedObject(NamedTuple):
    """A body that has arrived and is to be committed."""

    upload: Upload
    body: MultipartUpload
    deed: WriteMetadata


class ObjectSink:
    """A bucket, as the door sees it. The disk must have room for the journal."""

    def __init__(
        self,
        settings: Settings,
        intake: ObjectWriter,
        reserve: DiskSpace,
        disk: Executor,
    ) -> None:
        self._intake = intake
        self._reserve = reserve
        self._disk = disk
        self._idle_timeout = settings.idle_timeout
        self._redaction = Redaction(settings.redact)

    async def look(
        self, upload: Upload, segments: tuple[str, ...], headers: Mapping[str, str]
    ) -> Reservation:
        """Look at the target and at the disk. Raises `Refusal`, also for a storage that is away."""
        exists = await self._intake.exists("/" + "/".join(segments))
        store.check_name(upload, headers, exists=exists)
        return await asyncio.get_running_loop().run_in_executor(self._disk, self._reserve.admit, None)

    async def take(self, request: web.BaseRequest, admitted: AdmittedUpload) -> ReceivedObject:
        """Take a small body that is here. Raises `Refusal`."""
        content = take(request)
        admitted.progress.received = len(content)
        store.check_whole(admitted.upload, len(content))
        body = await self._begin(admitted, [])
        try:
            await body.write(content)
        except BaseException:
            await body.discard()
            raise
        return self._order(admitted, body, {})

    async def receive(
        self, request: web.BaseRequest, admitted: AdmittedUpload, share: Reservation, *, waiting: bool
    ) -> ReceivedObject:
        """Receive a body. Raises `Refusal`, `ClientDisconnected`."""
        algorithms = store.algorithms_of(admitted)
        body = await self._begin(admitted, list(algorithms.values()))
        try:
            if waiting:
                await send_continue_or_disconnect(request)
            await self._read(request, admitted, body)
            await body.finish()
            computed = {name: body.digest(known) for name, known in algorithms.items()}
            store.verify(admitted, computed)
        except BaseException:
            await body.discard()
            raise
        return self._order(admitted, body, computed)

    async def commit(self, order: ReceivedObject) -> Stored:
        """Publish the object. Raises `Refusal`, `UnknownOutcome`."""
        return await self._intake.commit(*order)

    async def _begin(self, admitted: AdmittedUpload, algorithms: list[str]) -> MultipartUpload:
        admitted.progress.state = "receiving"
        return await self._intake.begin(admitted.upload, store.mime_of(admitted.upload), algorithms)

    async def _read(
        self, request: web.BaseRequest, admitted: AdmittedUpload, body: MultipartUpload
    ) -> None:
        """Read the body to its end. Raises as `Receiver.receive` does."""
        upload, progress = admitted.upload, admitted.progress
        while piece := await read_chunk(request.content, self._idle_timeout):
            progress.received += len(piece)
            store.check_whole(upload, progress.received)
            await body.write(piece)
        if upload.content_length is not None and progress.received != upload.content_length:
            raise Refusal("incomplete_body", "the body ended before its declared length")

    def _order(
        self, admitted: AdmittedUpload, body: MultipartUpload, computed: dict[str, bytes]
    ) -> ReceivedObject:
        upload = admitted.upload
        mime = store.mime_of(upload)
        tell = partial(uploaded_event_body, upload, mime, self._redaction)
        return ReceivedObject(upload, body, WriteMetadata(mime, preconditions.described(computed), tell))
