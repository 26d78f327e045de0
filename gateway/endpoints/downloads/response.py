"""Responses whose body comes from a storage: a file, or ranges of it, and their headers.

The file is closed with the response, however that ends. What fails after the headers breaks the
connection, so that no client takes a part for the whole. A browser saves what it gets, and never
shows, guesses or runs it.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from typing import Final, NamedTuple

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from gateway.domain.digests import digest_field
from gateway.domain.metadata import content_disposition
from gateway.domain.model import random_bytes
from gateway.endpoints.downloads.negotiation import ByteRange, modified_second
from gateway.endpoints.downloads.transfer import FileSender, TransferPool
from gateway.errors import GatewayError
from gateway.http.protocol import abort
from gateway.http.responses import GatewayResponse
from gateway.storage.local.xattrs import guess_mime
from gateway.storage.protocols import OpenFile, Stat, Storage
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.downloads")

Finished = Callable[[int, bool], None]
"""Called once at the end: how many bytes of files were sent, and whether those were all."""

DEFAULT_CACHE_CONTROL: Final = "private, no-cache"
"""Each request is authorized anew, and gets 304 where nothing has changed."""

_SANDBOX: Final = "sandbox; default-src 'none'"
_PRINTABLE: Final = re.compile(r"[\x20-\x7e]{1,255}")


@dataclass(frozen=True, slots=True)
class ResponseOptions:
    """The name to save a download under, and how it may be cached; None is the default."""

    filename: str | None = None
    cache_control: str | None = None


DEFAULT_OPTIONS: Final = ResponseOptions()


def file_headers(stat: Stat, options: ResponseOptions, status: int) -> dict[str, str]:
    """Return the headers of a response with this file, or about it."""
    modified = modified_second(stat)
    if options is DEFAULT_OPTIONS:
        headers = _default_headers(
            stat.path, stat.bytes, stat.etag, stat.mime, modified, tuple(stat.digests.items())
        ).copy()
    else:
        headers = _file_headers(stat, options, modified)
    if status == 304:
        del headers["Content-Type"], headers["Content-Length"]  # RFC 9110 section 15.4.5
        headers.pop("Repr-Digest", None)
    return headers


def _file_headers(stat: Stat, options: ResponseOptions, modified: int) -> dict[str, str]:
    digests = {"Repr-Digest": digest_field(stat.digests)} if stat.digests else {}
    return {
        **download_headers(options.filename or stat.path.rpartition("/")[2], options),
        "Accept-Ranges": "bytes",
        "Content-Type": media_type_of(stat),
        "ETag": f'"{stat.etag}"',
        "Last-Modified": formatdate(modified, usegmt=True),
        "Content-Length": str(stat.bytes),
        **digests,
    }


@lru_cache(maxsize=1024)
def _default_headers(
    path: str,
    size: int,
    etag: str,
    mime: str | None,
    modified: int,
    digests: tuple[tuple[str, str], ...],
) -> dict[str, str]:
    """Return the headers of one version of a file: to compute them takes longer than to read it."""
    stat = Stat(path, size, modified, etag, mime, digests=dict(digests))
    return _file_headers(stat, DEFAULT_OPTIONS, modified)


def download_headers(filename: str, options: ResponseOptions) -> dict[str, str]:
    """Return the headers that all downloads have."""
    cached = options.cache_control
    return {
        "Cache-Control": cached if cached and _PRINTABLE.fullmatch(cached) else DEFAULT_CACHE_CONTROL,
        "Content-Disposition": content_disposition(filename),
        "Content-Security-Policy": _SANDBOX,
        "X-Content-Type-Options": "nosniff",
    }


def media_type_of(stat: Stat) -> str:
    """Return the media type that was stored with a file, else that of its name."""
    stored = stat.mime
    return stored if stored and _PRINTABLE.fullmatch(stored) else guess_mime(stat.path)


@dataclass(frozen=True, slots=True)
class OpenResponseFile:
    """An open file; `exit_stack` releases what it holds."""

    storage: Storage
    file: OpenFile
    exit_stack: AsyncExitStack


class ResponseBody(NamedTuple):
    """An open file, or the bytes of each range. Neither for HEAD and 304."""

    opened: OpenResponseFile | None = None
    chunks: Sequence[bytes] = ()


class StreamedResponse(GatewayResponse):
    """A response whose body is sent by `send_body`; `close` is called in any case."""

    _body_sent = False

    async def send_body(self, request: web.BaseRequest) -> None:
        """Send the body."""
        raise NotImplementedError

    async def close(self) -> None:
        """Release what the body holds."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the headers. If that fails, release what the body holds."""
        try:
            return await super().prepare(request)
        except BaseException:
            await self.close()
            raise

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the body and its end. Raises `ConnectionError` if not all could be sent."""
        request, body_sent = self._req, self._body_sent
        self._body_sent = True
        try:
            if not body_sent and request is not None and request.method != "HEAD":
                await self._send_or_abort(request)
            await super().write_eof(data)
        finally:
            await self.close()

    async def _send_or_abort(self, request: web.BaseRequest) -> None:
        try:
            await self.send_body(request)
        except ConnectionError:
            abort(request)
            raise
        except (OSError, GatewayError) as error:
            abort(request)
            log.error("download failed: %s", error, extra=event("download.failed"))
            raise ConnectionResetError("the file could not be sent whole") from error
        except BaseException:
            abort(request)
            raise


class FileResponse(StreamedResponse):
    """A file or ranges of it; with an empty `body` it is only about the file."""

    def __init__(
        self,
        stat: Stat,
        options: ResponseOptions,
        status: int,
        body: ResponseBody,
        pool: TransferPool,
        finished: Finished,
    ) -> None:
        super().__init__(status=status, headers=file_headers(stat, options, status))
        self._stat = stat
        self._opened, self._chunks = body
        self._pool = pool
        self._finished = finished
        # Ranges of the file, each with the text in front of it (multipart, RFC 9110 section 14.6).
        self._sections: Sequence[tuple[bytes, ByteRange]] = [(b"", ByteRange(0, stat.bytes))]
        self._tail = b""

    def set_ranges(self, ranges: Sequence[ByteRange]) -> None:
        """Send only these ranges of the file (206)."""
        stat, size = self._stat, self._stat.bytes
        if len(ranges) == 1:
            self._sections = [(b"", ranges[0])]
            self.content_length = ranges[0].length
            self.headers["Content-Range"] = ranges[0].content_range(size)
            return
        boundary = random_bytes(12).hex()
        self._sections = [
            (
                f"\r\n--{boundary}\r\nContent-Type: {media_type_of(stat)}\r\n"
                f"Content-Range: {byte_range.content_range(size)}\r\n\r\n".encode(),
                byte_range,
            )
            for byte_range in ranges
        ]
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self.headers["Content-Type"] = f"multipart/byteranges; boundary={boundary}"
        self.content_length = len(self._tail) + sum(
            len(prefix) + byte_range.length for prefix, byte_range in self._sections
        )

    async def send_body(self, request: web.BaseRequest) -> None:
        """Send the ranges."""
        if self._opened is None and not self._chunks:
            return
        sender, complete = FileSender(self._pool, request), False
        try:
            if self._opened is None:
                await sender.send_short(self._short_body(), sum(map(len, self._chunks)))
            else:
                await self._send_sections(sender, self._opened)
            complete = True
        finally:
            self._finished(sender.sent, complete)

    def _short_body(self) -> bytes:
        """Return the body, all of which is in memory."""
        if len(self._chunks) == 1 and not self._tail:
            return self._chunks[0]
        pairs = zip(self._sections, self._chunks, strict=True)
        return b"".join((*(prefix + chunk for (prefix, _), chunk in pairs), self._tail))

    async def _send_sections(self, sender: FileSender, opened: OpenResponseFile) -> None:
        for number, (prefix, byte_range) in enumerate(self._sections):
            await sender.send_text(prefix)
            await self._send_range(sender, opened, byte_range, first=number == 0)
        await sender.send_text(self._tail)

    async def _send_range(
        self, sender: FileSender, opened: OpenResponseFile, byte_range: ByteRange, *, first: bool
    ) -> None:
        """Send a range of the open file, or, if that was a stream, of one opened anew."""
        if first or opened.file.fd is not None:
            await sender.send_range(opened.file, byte_range)
            return
        start, length = byte_range
        opening = opened.storage.open(self._stat.path, start=start, length=length, etag=self._stat.etag)
        async with opening as file:
            await sender.send_range(file, byte_range)

    async def close(self) -> None:
        """Close the file."""
        opened, self._opened = self._opened, None
        if opened is not None:
            with contextlib.suppress(OSError):
                await opened.exit_stack.aclose()
