"""Hands a stored file to another node of the installation, and removes it for one.

The rule: it is the very file that the upload was, or nothing; what it says is an attachment and is
never sniffed. Who may ask is settled before it gets here; only our own kind may name a file by its
identity.
"""

from __future__ import annotations

import asyncio
import os
import re
from typing import Any, Final
from urllib.parse import quote

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from gateway.auth.authenticator import INTERNAL
from gateway.auth.request import ApiHandler, IncomingRequest
from gateway.domain.model import Identity
from gateway.errors import Refusal, Superseded
from gateway.files.versions import FileVersions

PIECE_BYTES: Final = 1 << 20
SILENCE_SECONDS: Final = 60.0
"""How long the other side may take nothing of a file."""

_IDENTITY: Final = re.compile(r"(\d{1,20})-(\d{1,20})-(\d{1,20})-(-?\d{1,20})", re.ASCII)

Query = dict[str, list[str]]


class InternalFilesEndpoint:
    """Answers `/-/files/<upload_id>`: GET, HEAD and DELETE."""

    def __init__(self, files: FileVersions) -> None:
        self._files = files

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is answered here."""
        return {"file": self._answer}

    async def _answer(self, incoming: IncomingRequest) -> web.StreamResponse:
        principal, upload_id = incoming.operator, incoming.variables["upload_id"]
        if principal is None:  # `--auth none` lets anybody upload, and nobody have others' files
            raise Refusal("forbidden", "only somebody known may have or remove a file here")
        named = _very(incoming.params) if principal == INTERNAL else None
        try:
            path, identity = named or await self._files.recorded(upload_id)
        except Superseded:
            raise Refusal("not_found", "no upload of this id is known (any more)") from None
        try:
            if incoming.request.method == "DELETE":
                await self._files.remove_very(path, identity)
                return web.Response(status=204)
            return _InternalFileResponse(
                await self._files.open_very(path, identity), path, identity.size
            )
        except Superseded as fault:
            raise Refusal("superseded", str(fault)) from None


class _InternalFileResponse(web.StreamResponse):
    """The file as an answer; its descriptor is closed with it."""

    def __init__(self, fd: int, path: str, size: int) -> None:
        super().__init__()
        self._file: int | None = fd
        name = quote(path.rpartition("/")[2], safe="")
        self.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{name}"  # RFC 8187
        self.headers["X-Content-Type-Options"] = "nosniff"
        self.content_type = "application/octet-stream"
        self.content_length = size

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the headers. Without a client there is nobody to send the file to."""
        try:
            return await super().prepare(request)
        except BaseException:
            await self._close()
            raise

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the file, then the end. One that shrinks meanwhile breaks the connection."""
        try:
            if self._req is not None and self._req.method != "HEAD":
                await self._send(self._req)
            await super().write_eof(data)
        finally:
            await self._close()

    async def _send(self, request: web.BaseRequest) -> None:
        left = self.content_length or 0
        while left > 0 and self._file is not None:
            piece = await asyncio.to_thread(os.read, self._file, min(PIECE_BYTES, left))
            if not piece:
                if request.transport is not None:
                    request.transport.abort()
                return
            left -= len(piece)
            try:
                async with asyncio.timeout(SILENCE_SECONDS):
                    await self.write(piece)
            except TimeoutError as fault:
                raise ConnectionResetError("the other side takes no more of the file") from fault

    async def _close(self) -> None:
        fd, self._file = self._file, None
        if fd is not None:
            await asyncio.to_thread(os.close, fd)


def _very(query: Query) -> tuple[str, Identity] | None:
    """Return the path and identity that the query names, None where it names none."""
    values: dict[str, Any] = {name: query[name][0] for name in ("path", "is") if query.get(name)}
    form = _IDENTITY.fullmatch(values.get("is", ""))
    if form is None or "path" not in values:
        return None
    device, inode, size, mtime_ns = map(int, form.groups())
    return str(values["path"]), Identity(device, inode, size, mtime_ns)
