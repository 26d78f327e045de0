"""Sends the parts of one multipart upload, several at once, with memory that all uploads share.

A part that is buffered can be sent again; one that is streamed cannot. On the server's loop.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final

from gateway.domain import failpoints
from gateway.storage.s3.bucket import BucketClient
from gateway.storage.s3.memory import MemoryBudget
from gateway.storage.s3.multiparts import MultipartLog
from gateway.storage.s3.parts import BufferedPart, StreamedPart

MAX_PARTS_IN_FLIGHT: Final = 4
"""Parts of one upload that are sent at once."""


@dataclass(slots=True, frozen=True)
class UploadContext:
    """What all uploads of a process share. `memory_timeout`: seconds to wait for memory.

    `digest` is the algorithm of `--digest`.
    """

    objects: BucketClient
    memory: MemoryBudget
    executor: Executor
    multiparts: MultipartLog
    memory_timeout: float = 60.0
    digest: str | None = None


class OpenPart:
    """The part that is being filled, of `length` bytes; `reserved` are those of the memory budget."""

    def __init__(self, number: int, length: int) -> None:
        self.number = number
        self.length = length
        self.filled = 0
        self.reserved = 0
        self.buffer: BufferedPart | None = None
        self.stream: StreamedPart | None = None
        self.request: asyncio.Task[str] | None = None


class PartSender:
    """The parts of one upload of a `client`. `tags` are those of the parts that S3 acknowledged."""

    def __init__(self, context: UploadContext, client: str) -> None:
        self.tags: dict[int, str] = {}
        self._context = context
        self._client = client
        self._requests: set[asyncio.Task[str]] = set()
        self._sending: set[asyncio.Task[None]] = set()
        self._reserved = 0
        self._error: Exception | None = None

    # -- memory

    def try_reserve(self, part: OpenPart) -> bool:
        """Reserve the memory of a whole part, if there is some without waiting."""
        if not self._context.memory.try_reserve(self._client, part.length):
            return False
        self._note_reserved(part)
        return True

    async def reserve(self, part: OpenPart) -> None:
        """Wait for the memory of a whole part.

        Raises `Refusal`.
        """
        await self._context.memory.reserve(self._client, part.length, self._context.memory_timeout)
        self._note_reserved(part)

    def release(self, part: OpenPart) -> None:
        """Free the bytes of a part and give its memory back."""
        if part.buffer is not None:
            part.buffer.free()
        part.buffer = part.stream = None
        reserved, part.reserved = min(part.reserved, self._reserved), 0
        self._reserved -= reserved
        self._context.memory.release(self._client, reserved)

    def release_all(self) -> None:
        """Give all memory back; nothing can be sent again."""
        reserved, self._reserved = self._reserved, 0
        self._context.memory.release(self._client, reserved)

    def _note_reserved(self, part: OpenPart) -> None:
        part.reserved = part.length
        self._reserved += part.length

    # -- requests

    def start(
        self, part: OpenPart, key: str, multipart: str, body: BufferedPart | StreamedPart, size: int
    ) -> None:
        """Begin the request that sends a part."""
        upload_part = self._context.objects.upload_part
        request = asyncio.create_task(upload_part(key, multipart, part.number, body, size))
        self._requests.add(request)
        request.add_done_callback(self._requests.discard)
        part.request = request

    async def send(self, part: OpenPart, key: str, multipart: str) -> None:
        """Send a full buffered part, or end its stream; wait while too many are in flight."""
        if part.stream is not None and part.request is not None:
            await part.stream.add(b"", part.request)
        elif part.buffer is not None:
            self.start(part, key, multipart, part.buffer, part.buffer.size)
        self._sending.add(task := asyncio.create_task(self._wait_arrived(part)))
        task.add_done_callback(self._sending.discard)
        failpoints.hit("mid body")
        while len(self._sending) >= MAX_PARTS_IN_FLIGHT:
            await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)
        self.raise_error()

    async def wait_sent(self) -> None:
        """Wait until every part has arrived. Raises `Refusal`."""
        while self._sending:
            await asyncio.wait(self._sending)
        self.raise_error()

    async def cancel(self, *more: asyncio.Task[Any]) -> None:
        """Cancel what is being sent; wait until it, and `more`, have ended."""
        running: list[asyncio.Task[Any]] = [*self._sending, *self._requests]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, *more, return_exceptions=True)

    def raise_error(self) -> None:
        """Raise what ended the first part that failed."""
        if self._error is not None:
            raise self._error

    async def _wait_arrived(self, part: OpenPart) -> None:
        """Wait for the response to one part, then give its memory back."""
        request = part.request
        if request is None:
            return
        try:
            self.tags[part.number] = await request
        except Exception as error:
            self._error = self._error or error
        except asyncio.CancelledError:
            request.cancel()
            raise
        finally:
            self.release(part)
