"""The storage of a gateway, for a worker on another machine: asked over HTTP.

One rule: a worker is trusted by the internal credential and asks at `/-/objects` only; what the
gateway refuses is told in the gateway's own words.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn
from urllib.parse import quote

import aiohttp
from yarl import URL

from gateway.auth.installation import Installation
from gateway.domain import paths
from gateway.domain.grant import Grant
from gateway.domain.metadata import METADATA_PREFIX
from gateway.domain.model import Stored, Upload
from gateway.errors import TABLE, PeerUnavailable, Refusal, Superseded, UnknownOutcome
from gateway.files.peer import PATIENCE, PIECE_BYTES
from gateway.storage.protocols import PresignedRequest, Stat
from gateway.telemetry.redaction import INTERNAL_HEADER

NO_GATEWAY = "this worker knows no gateway: name one with --peers HOST:PORT"
NOT_FROM_HERE = "a worker cannot list, expire or remove by path: let a gateway run this handler"


class PeerStorage:
    """A gateway's storage as a `Shelf`. `gateway` returns its base URL, None where none is known."""

    def __init__(self, installation: Installation, gateway: Callable[[], str | None]) -> None:
        self._installation = installation
        self._gateway = gateway

    async def stat(self, path: str) -> Stat:
        """Describe a file. Raises `Refusal`, `PeerUnavailable`."""
        async with self._asking("HEAD", path) as answer:
            return _described(path, answer)

    @contextlib.asynccontextmanager
    async def open(
        self, path: str, *, start: int = 0, length: int | None = None, etag: str | None = None
    ) -> AsyncIterator[PeerFile]:
        """Open a part of a file, see `Shelf.open`. Raises also `PeerUnavailable`."""
        headers = {} if etag is None else {"If-Match": f'"{etag}"'}
        if start or length is not None:
            headers["Range"] = f"bytes={start}-{'' if length is None else start + length - 1}"
        async with self._asking("GET", path, headers) as answer:
            yield PeerFile(_described(path, answer), answer)

    async def put(self, upload: Upload, pieces: AsyncIterator[bytes]) -> Stored:
        """Store a file there. The gateway takes it as any upload. Raises as `_asking`,
        `UnknownOutcome`."""
        headers = {f"{METADATA_PREFIX}{name}": value for name, value in upload.metadata.items()}
        if upload.content_type is not None:
            headers["Content-Type"] = upload.content_type
        if upload.content_length is not None:
            headers["Content-Length"] = str(upload.content_length)
        if upload.on_conflict != "replace":
            raise RuntimeError("a worker can only replace: on_conflict is for gateways")
        async with self._asking("PUT", upload.path, headers, pieces) as answer:
            said = await answer.json()
        return Stored(
            said["upload_id"], said["path"], said["bytes"], said["mime"], answer.status == 200, {}
        )

    def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[Stat]:
        """Raise `RuntimeError`."""
        raise RuntimeError(NOT_FROM_HERE)

    async def delete(self, path: str, etag: str | None = None) -> None:
        """Raise `RuntimeError`."""
        raise RuntimeError(NOT_FROM_HERE)

    async def sign(self, grant: Grant, *, expires: float) -> PresignedRequest | None:
        """Return None: the gateway signs URLs of its own."""
        return None

    @contextlib.asynccontextmanager
    async def _asking(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: AsyncIterator[bytes] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        segments = paths.check_path(path)
        base = self._gateway()
        if base is None:
            raise PeerUnavailable(NO_GATEWAY)
        url = URL(f"{base}/-/objects/{quote('/'.join(segments))}", encoded=True)
        trusted = self._installation.credentials_for(method, url)
        if trusted is None:
            raise PeerUnavailable(f"{url.host}:{url.port} is no peer of this installation")
        sent = {**(headers or {}), INTERNAL_HEADER: trusted.credential}
        async with aiohttp.ClientSession(timeout=PATIENCE, auto_decompress=False) as session:
            try:
                answer = await session.request(
                    method, trusted.url, headers=sent, data=body, ssl=trusted.tls, allow_redirects=False
                )
            except (aiohttp.ClientError, TimeoutError, OSError) as fault:
                if method == "PUT":
                    raise UnknownOutcome(f"{url.host} did not say whether it stored the file") from fault
                raise PeerUnavailable(f"{url.host} cannot be reached: {fault}") from fault
            async with answer:
                if answer.status >= 300:
                    await _refuse(answer, path)
                yield answer


class PeerFile:
    """Bytes of a file on another machine, as `Opened`."""

    def __init__(self, stat: Stat, answer: aiohttp.ClientResponse) -> None:
        self.stat = stat
        self.fd: int | None = None
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the bytes. Raises `PeerUnavailable` where they end too early."""
        try:
            async for piece in self._answer.content.iter_chunked(PIECE_BYTES):
                yield piece
        except (aiohttp.ClientError, TimeoutError, OSError) as fault:
            raise PeerUnavailable(f"the gateway broke off in the middle of the file: {fault}") from fault


async def _refuse(answer: aiohttp.ClientResponse, path: str) -> NoReturn:
    """Raise what the gateway says; HEAD answers have no words, only a status."""
    if answer.status == 412:
        raise Superseded(f"{path} has been replaced or changed meanwhile")
    text = await answer.text()
    try:
        said: dict[str, Any] = json.loads(text) if text else {}
    except ValueError:
        said = {}
    code = str(said.get("error", "not_found" if answer.status == 404 else ""))
    if code in TABLE:
        raise Refusal(code, str(said.get("message", "there is no such file")))
    raise PeerUnavailable(f"{answer.host} answers {answer.status}")


def _described(path: str, answer: aiohttp.ClientResponse) -> Stat:
    headers = answer.headers
    size = headers.get("Content-Range", "").rpartition("/")[2] or headers.get("Content-Length", "0")
    modified = parsedate_to_datetime(headers["Last-Modified"]).timestamp()
    return Stat(path, int(size), modified, headers.get("ETag", "").strip('"'), headers["Content-Type"])
