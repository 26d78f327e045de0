"""The storage of other gateways of the installation, over HTTP at `/-/objects/<path>`.

The internal credential opens that page. What a peer refuses is raised in the peer's own words.
"""

from __future__ import annotations

import contextlib
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final, NoReturn
from urllib.parse import quote

import aiohttp
from yarl import URL

from gateway.auth.installation import Installation
from gateway.domain import paths
from gateway.domain.addresses import Address, host_port
from gateway.domain.api_routes import OBJECTS_PREFIX
from gateway.domain.grant import Grant
from gateway.domain.metadata import METADATA_PREFIX
from gateway.domain.model import Delivery, Stored, Upload
from gateway.errors import TABLE, PeerUnavailable, Refusal, Superseded, UnknownOutcome
from gateway.files.versions import FileVersion
from gateway.settings.values import address
from gateway.storage.protocols import PresignedRequest, Stat
from gateway.telemetry.redaction import INTERNAL_HEADER

PIECE_BYTES: Final = 1 << 20
MAX_REMEMBERED: Final = 20_000
"""The newest deliveries, whose file is remembered; in a worker older ones are `Superseded`."""

HTTP_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=60.0)
"""Seconds in which a peer must accept a connection, and may send nothing in the middle of a file."""

NO_PEER: Final = "this worker knows no gateway: name one with --peers HOST:PORT"
GATEWAYS_ONLY: Final = "a worker cannot list or expire files: let a gateway run this handler"

_CODES: Final = {401: "unauthorized", 403: "forbidden", 404: "not_found", 410: "superseded"}
"""Error codes of responses to HEAD, which have no body."""


class Peers:
    """The gateways that deliveries name as owners of files.

    `own` returns the address by which events name this process, None for a worker, which owns no file.
    `default` is the base URL of the peer whose storage a worker uses before a delivery names one.
    """

    def __init__(
        self,
        installation: Installation,
        own: Callable[[], tuple[str, int] | None],
        default: str | None = None,
    ) -> None:
        self._installation = installation
        self.own = own
        self._latest = default
        self._delivered: OrderedDict[str, FileVersion] = OrderedDict()

    def storage(self, owner: str) -> PeerStorage:
        """Return the storage of the peer with this base URL."""
        return PeerStorage(self._installation, lambda: owner)

    def latest_storage(self) -> PeerStorage:
        """Return a storage that is always the one of the peer that the newest delivery named."""
        return PeerStorage(self._installation, lambda: self._latest)

    def remember(self, delivery: Delivery) -> FileVersion | None:
        """Keep, and return, which file a delivery is about; None where it names no owner."""
        owner = owner_of(delivery)
        if owner is None:
            return None
        origin, url = delivery.origin, None
        if self.is_remote(delivery):
            self._installation.add_peer(owner)
            url = self._latest = f"{origin.scheme if origin else 'http'}://{host_port(*owner)}"
        etag = origin.etag if origin else None
        version = FileVersion(str(delivery.body.get("path", "")), etag, url)
        if delivery.upload_id is not None:
            self._delivered[delivery.upload_id] = version
            self._delivered.move_to_end(delivery.upload_id)
        while len(self._delivered) > MAX_REMEMBERED:
            self._delivered.popitem(last=False)
        return version

    def is_remote(self, delivery: Delivery) -> bool:
        """Tell whether a delivery names another address than this process's as the place of its file."""
        owner, own = owner_of(delivery), self.own()
        return owner is not None and (own is None or Address(*own) != owner)

    def delivered(self, upload_id: str) -> FileVersion | None:
        """Return the file of an upload of which there was a delivery."""
        return self._delivered.get(upload_id)


def owner_of(delivery: Delivery) -> Address | None:
    """Return the address of the gateway that stores the file of a delivery, where one is named."""
    owner = address(delivery.holder)
    return owner if isinstance(owner, Address) else None


class PeerStorage:
    """The storage of a gateway. `base_url` returns where it is, None where no gateway is known."""

    def __init__(self, installation: Installation, base_url: Callable[[], str | None]) -> None:
        self._installation = installation
        self._base_url = base_url

    async def stat(self, path: str) -> Stat:
        """Describe a file. Raises `Refusal`, `PeerUnavailable`."""
        async with self._request("HEAD", _object(path)) as response:
            return _described(path, response)

    async def etag_of_upload(self, upload_id: str) -> str:
        """Return the entity tag of an upload's file. Raises `Refusal`, `PeerUnavailable`."""
        async with self._request("HEAD", f"/-/files/{quote(upload_id, safe='')}") as response:
            return _etag(response)

    @contextlib.asynccontextmanager
    async def open(
        self, path: str, *, start: int = 0, length: int | None = None, etag: str | None = None
    ) -> AsyncIterator[PeerFile]:
        """Open a part of a file, see `Storage.open`. Raises also `PeerUnavailable`."""
        headers = _if_match(etag)
        if start or length is not None:
            headers["Range"] = f"bytes={start}-{'' if length is None else start + length - 1}"
        async with self._request("GET", _object(path), headers) as response:
            yield PeerFile(_described(path, response), response)

    async def send_upload(self, upload: Upload, pieces: AsyncIterator[bytes]) -> Stored:
        """Store a file there, as any upload. Raises `Refusal`, `PeerUnavailable`, `UnknownOutcome`."""
        headers = {f"{METADATA_PREFIX}{name}": value for name, value in upload.metadata.items()}
        if upload.content_type is not None:
            headers["Content-Type"] = upload.content_type
        if upload.content_length is not None:
            headers["Content-Length"] = str(upload.content_length)
        if upload.on_conflict != "replace":
            raise RuntimeError("a worker can only replace: on_conflict is for gateways")
        async with self._request("PUT", _object(upload.path), headers, pieces) as response:
            stored = await response.json()
        replaced = response.status == 200
        return Stored(stored["upload_id"], stored["path"], stored["bytes"], stored["mime"], replaced, {})

    def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[Stat]:
        """Raise `RuntimeError`."""
        raise RuntimeError(GATEWAYS_ONLY)

    async def delete(self, path: str, etag: str | None = None) -> None:
        """Remove a file, see `Storage.delete`. Raises also `PeerUnavailable`."""
        async with self._request("DELETE", _object(path), _if_match(etag)):
            pass

    async def sign(self, grant: Grant, *, expires: float) -> PresignedRequest | None:
        """Return None: the gateway signs URLs of its own."""
        return None

    @contextlib.asynccontextmanager
    async def _request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: AsyncIterator[bytes] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        base_url = self._base_url()
        if base_url is None:
            raise PeerUnavailable(NO_PEER)
        url = URL(base_url + target, encoded=True)
        call = self._installation.credentials_for(method, url)
        if call is None:
            raise PeerUnavailable(f"{url.host}:{url.port} is no peer of this installation")
        sent = {**(headers or {}), INTERNAL_HEADER: call.credential}
        async with aiohttp.ClientSession(timeout=HTTP_TIMEOUT, auto_decompress=False) as session:
            try:
                response = await session.request(
                    method, call.url, headers=sent, data=body, ssl=call.tls, allow_redirects=False
                )
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if method == "PUT":
                    raise UnknownOutcome(f"{url.host} did not say whether it stored the file") from error
                raise unreachable(url.authority, error) from error
            async with response:
                if response.status >= 300:
                    await _refuse(response, url)
                yield response


class PeerFile:
    """Bytes of a file in a peer's storage, an `OpenFile`."""

    def __init__(self, stat: Stat, response: aiohttp.ClientResponse) -> None:
        self.stat = stat
        self.fd: int | None = None
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the bytes. Raises `PeerUnavailable` where they end too early."""
        try:
            async for piece in self._response.content.iter_chunked(PIECE_BYTES):
                yield piece
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise PeerUnavailable(f"the peer broke off in the middle of the file: {error}") from error


def unreachable(authority: str, error: BaseException) -> PeerUnavailable:
    """Return what a failed connection to the owner of a file is: no fault of the handler."""
    reason = str(error) or type(error).__name__
    return PeerUnavailable(f"the gateway that stores the file, {authority}, cannot be reached: {reason}")


def _object(path: str) -> str:
    return "/-/objects/" + quote("/".join(paths.check_path(path)))


def _if_match(etag: str | None) -> dict[str, str]:
    return {} if etag is None else {"If-Match": f'"{etag}"'}


def _etag(response: aiohttp.ClientResponse) -> str:
    return response.headers.get("ETag", "").strip('"')


async def _refuse(response: aiohttp.ClientResponse, url: URL) -> NoReturn:
    """Raise what the peer says; a response to HEAD has no body, only a status."""
    if response.status == 412:
        raise Superseded(
            f"{url.path.removeprefix(OBJECTS_PREFIX)} has been replaced or changed meanwhile"
        )
    text = await response.text()
    try:
        refusal: dict[str, Any] = json.loads(text) if text else {}
    except ValueError:
        refusal = {}
    code = str(refusal.get("error", _CODES.get(response.status, "")))
    if code in TABLE:
        raise Refusal(code, str(refusal.get("message", f"the peer answers {response.status}")))
    raise PeerUnavailable(f"{url.authority} answers {response.status}")


def _described(path: str, response: aiohttp.ClientResponse) -> Stat:
    headers = response.headers
    size = headers.get("Content-Range", "").rpartition("/")[2] or headers.get("Content-Length", "0")
    modified = parsedate_to_datetime(headers["Last-Modified"]).timestamp()
    return Stat(path, int(size), modified, _etag(response), headers["Content-Type"])
