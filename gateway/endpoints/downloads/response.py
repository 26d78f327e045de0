"""A file, or parts of it, as an answer.

One rule: the file is closed with the answer, however that ends; whatever goes wrong behind the
headers breaks the connection, so that nobody takes a part for the whole.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final, NamedTuple

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from gateway.domain.model import random_bytes
from gateway.endpoints.downloads.headers import ResponseOptions, head_of, type_of
from gateway.endpoints.downloads.ranges import ByteRange
from gateway.endpoints.downloads.transfer import FileSender, TransferPool
from gateway.errors import GatewayError
from gateway.http.protocol import abort
from gateway.http.responses import GatewayResponse
from gateway.storage.protocols import OpenFile, Stat, Storage

log = logging.getLogger("gateway.downloads")

Ended = Callable[[int, bool], None]
"""Called once at the end: how many bytes of files were sent, and whether those were all."""

_TAIL: Final = "\r\n--{}--\r\n"


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a file and the text in front of it (multipart, RFC 9110 section 14.6)."""

    before: bytes
    part: ByteRange


class OpenResponseFile:
    """An open file and what is to be done when it is closed."""

    def __init__(self, shelf: Storage, opened: OpenFile, closing: AsyncExitStack) -> None:
        self.shelf = shelf
        self.opened = opened
        self._closing = closing

    async def close(self) -> None:
        """Close it; a second call does nothing."""
        await self._closing.aclose()


class ResponseBody(NamedTuple):
    """What there is to send: an open file, or the bytes of each part. Nothing for HEAD and 304."""

    held: OpenResponseFile | None = None
    pieces: Sequence[bytes] = ()


class StreamedResponse(GatewayResponse):
    """An answer whose body comes from a storage. `send_body` sends it; `close` is called in any case."""

    _over = False

    async def send_body(self, request: web.BaseRequest) -> None:
        """Send the body."""
        raise NotImplementedError

    async def close(self) -> None:
        """Give back what was held."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the headers. Without a client there is nobody to send the rest to."""
        try:
            return await super().prepare(request)
        except BaseException:
            await self.close()
            raise

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the body and the end. Raises `ConnectionError` where not all could be sent."""
        request, over = self._req, self._over
        self._over = True
        try:
            if not over and request is not None and request.method != "HEAD":
                await self._send_or_break(request)
            await super().write_eof(data)
        finally:
            await self.close()

    async def _send_or_break(self, request: web.BaseRequest) -> None:
        try:
            await self.send_body(request)
        except ConnectionError:
            abort(request)
            raise
        except (OSError, GatewayError) as fault:
            abort(request)
            log.error("a download broke off: %s", fault)
            raise ConnectionResetError("the file could not be sent whole") from fault
        except BaseException:
            abort(request)
            raise


class FileResponse(StreamedResponse):
    """A file or some parts of it. With nothing `brought` it is only about the file."""

    def __init__(self, stat: Stat, wish: ResponseOptions, status: int, brought: ResponseBody) -> None:
        super().__init__(status=status, headers=head_of(stat, wish))
        self._stat = stat
        self._held, self._pieces = brought
        self._sections: Sequence[Section] = [Section(b"", ByteRange(0, stat.bytes))]
        self._tail = b""
        self.sending: TransferPool | None = None
        self.ended: Ended = lambda sent, whole: None
        if status == 304:
            del self.headers["Content-Type"]  # RFC 9110 section 15.4.5
        else:
            self.content_length = stat.bytes

    def take_parts(self, parts: Sequence[ByteRange]) -> None:
        """Be an answer with these parts of the file only (206)."""
        stat, size = self._stat, self._stat.bytes
        if len(parts) == 1:
            self._sections = [Section(b"", parts[0])]
            self.content_length = parts[0].length
            self.headers["Content-Range"] = parts[0].content_range(size)
            return
        boundary = random_bytes(12).hex()
        self._sections = [
            Section(
                f"\r\n--{boundary}\r\nContent-Type: {type_of(stat)}\r\n"
                f"Content-Range: {part.content_range(size)}\r\n\r\n".encode(),
                part,
            )
            for part in parts
        ]
        self._tail = _TAIL.format(boundary).encode()
        self.headers["Content-Type"] = f"multipart/byteranges; boundary={boundary}"
        self.content_length = len(self._tail) + sum(
            len(section.before) + section.part.length for section in self._sections
        )

    async def send_body(self, request: web.BaseRequest) -> None:
        """Send the parts."""
        if self.sending is None or (self._held is None and not self._pieces):
            return
        sender, whole = FileSender(self.sending, request), False
        try:
            if self._held is None:
                await sender.send_short(self._short(), sum(map(len, self._pieces)))
            else:
                await self._send_parts(sender, self._held)
            whole = True
        finally:
            self.ended(sender.sent, whole)

    def _short(self) -> bytes:
        """Return the body of which all pieces are here."""
        if len(self._pieces) == 1 and not self._tail:
            return self._pieces[0]
        told = (
            section.before + piece for section, piece in zip(self._sections, self._pieces, strict=True)
        )
        return b"".join((*told, self._tail))

    async def _send_parts(self, sender: FileSender, held: OpenResponseFile) -> None:
        for number, section in enumerate(self._sections):
            await sender.send_text(section.before)
            await self._send_part(sender, held, section.part, first=number == 0)
        await sender.send_text(self._tail)

    async def _send_part(
        self, sender: FileSender, held: OpenResponseFile, part: ByteRange, *, first: bool
    ) -> None:
        """Send a part: of the file that is open, or, where that was a stream, of one opened anew."""
        if first or held.opened.fd is not None:
            await sender.send_range(held.opened, part)
            return
        stat = self._stat
        opening = held.shelf.open(stat.path, start=part.start, length=part.length, etag=stat.etag)
        async with opening as opened:
            await sender.send_range(opened, part)

    async def close(self) -> None:
        """Close the file."""
        held, self._held = self._held, None
        if held is not None:
            with contextlib.suppress(OSError):
                await held.close()
