"""Objects that are the gateway's own: below `<prefix>/.gateway/`, where no path of a client leads.

They are replaced under a condition: `If-Match` with the entity tag of the version that was read (Amazon
S3 user guide, "Conditional writes"). Not every store knows it: it is tried once. On the server's loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, NamedTuple

from gateway.errors import GatewayError
from gateway.settings.values import Bucket
from gateway.storage.s3.client import Client, Clients
from gateway.storage.s3.errors import code_of, status_of
from gateway.storage.s3.parts import BufferedPart, Piece, StallTimeout
from gateway.storage.s3.retries import PUBLISH_TIMEOUT, REQUEST_TIMEOUT, RETRY_TIMEOUT, RequestRetrier
from gateway.telemetry.logs import event

PRIVATE_FOLDER: Final = "/.gateway/"
PROBE_PATH: Final = "/.gateway/probe"
"""An empty object that no upload can name. It tells which conditions the store honours, and stays:
`rclone serve s3` at times hangs when one is removed while its neighbour is created."""

_LIST_PAGE: Final = 1000
_PIECE_BYTES: Final = 256 << 10
_OTHER_TAG: Final = '"00000000000000000000000000000000"'
_CHANGED: Final = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict"})

log = logging.getLogger("gateway.storage")


class ChangedError(GatewayError):
    """An object is another version than the one that was to be replaced or read, or is gone."""


class PrivateEntry(NamedTuple):
    """An object in a listing: its name in the folder, and the Unix time of its last change."""

    name: str
    modified: float


class PrivateContent:
    """What is stored: `first`, and then so many bytes of a part in memory."""

    def __init__(self, first: bytes, rest: memoryview | None = None) -> None:
        self.size = len(first) + (0 if rest is None else len(rest))
        self.stall_timeout: StallTimeout | None = None
        self._first = first
        self._rest = rest or memoryview(b"")

    async def read(self) -> bytes:
        """Return all of it (by this method the S3 client recognises a body)."""
        return self._first + bytes(self._rest)

    def seek(self, _position: int) -> None:
        """Begin again: each iteration does."""

    def tell(self) -> int:
        """Return the position of the next byte, which is the first one."""
        return 0

    async def __aiter__(self) -> AsyncIterator[Piece]:
        yield self._first
        for start in range(0, len(self._rest), _PIECE_BYTES):
            if self.stall_timeout is not None:
                self.stall_timeout.renew()
            yield self._rest[start : start + _PIECE_BYTES]


class PrivateObjects:
    """The objects of one folder below `/.gateway/` of a bucket, by name."""

    def __init__(self, clients: Clients, bucket: Bucket, folder: str) -> None:
        self._bucket = bucket
        self._prefix = bucket.key(f"{PRIVATE_FOLDER}{folder}/")
        self._retrier = RequestRetrier(clients)
        self._probing: asyncio.Task[bool] | None = None

    def key_of(self, name: str) -> str:
        """Return the key of an object."""
        return self._prefix + name

    async def get(self, name: str, *, first: int | None = None) -> tuple[bytes, str] | None:
        """Return an object, or its `first` bytes, and its entity tag; None where there is none."""
        params = self._params(name)
        if first is not None:
            params["Range"] = f"bytes=0-{first - 1}"

        async def call(client: Client) -> tuple[bytes, str] | None:
            try:
                response = await client.get_object(**params)
            except Exception as error:
                if _is_missing(error):
                    return None
                raise
            async with response["Body"] as body:
                content: bytes = await body.read()
            return content[:first], _etag(response)

        return await self._retrier.retry("reading an object of the gateway", call, REQUEST_TIMEOUT)

    async def read_into(self, name: str, start: int, etag: str, buffer: BufferedPart) -> None:
        """Append the bytes from `start` on to an empty buffer. Raises `ChangedError`, `Refusal`."""

        async def call(client: Client) -> None:
            buffer.size = 0
            async for piece in self._pieces(client, name, start, etag):
                buffer.add(piece)

        operation = "reading an object of the gateway"
        await self._retrier.retry(operation, call, REQUEST_TIMEOUT, attempt=PUBLISH_TIMEOUT)

    async def stream(self, name: str) -> AsyncIterator[bytes]:
        """Iterate over the bytes of an object. Raises `ChangedError` where there is none, `Refusal`."""
        client = await self._retrier.clients.client()
        async for piece in self._pieces(client, name, 0, None):
            yield piece

    async def put(self, name: str, content: PrivateContent, *, replaces: str | None = None) -> str:
        """Store an object; return its entity tag. Raises `Refusal`.

        With `replaces`, the tag of the version that is replaced, `ChangedError` where it is another.
        A response that was lost may make that of a version that this very call has stored.
        """
        condition = await self._condition(replaces)

        async def call(client: Client) -> str:
            content.stall_timeout = StallTimeout()
            try:
                async with content.stall_timeout:
                    response = await client.put_object(
                        **self._params(name), Body=content, ContentLength=content.size, **condition
                    )
            except Exception as error:
                if condition and (code_of(error) in _CHANGED or status_of(error) in {404, 412}):
                    raise ChangedError("the object was changed meanwhile") from error
                raise
            return _etag(response)

        operation = "storing an object of the gateway"
        return await self._retrier.retry(operation, call, RETRY_TIMEOUT, attempt=None)

    async def delete(self, name: str) -> None:
        """Remove an object, if there is one. Raises `Refusal`."""

        async def call(client: Client) -> None:
            await client.delete_object(**self._params(name))

        await self._retrier.retry("removing an object of the gateway", call, REQUEST_TIMEOUT)

    async def list(self) -> AsyncIterator[PrivateEntry]:
        """Iterate over the objects, by name, a page at a time. Raises `Refusal`."""
        params: dict[str, Any] = {"Prefix": self._prefix, "MaxKeys": _LIST_PAGE}
        while True:

            async def call(client: Client, after: Mapping[str, Any] = params) -> dict[str, Any]:
                page: dict[str, Any] = await client.list_objects_v2(Bucket=self._bucket.name, **after)
                return page

            page = await self._retrier.retry("listing objects of the gateway", call, REQUEST_TIMEOUT)
            for entry in page.get("Contents", ()):
                yield PrivateEntry(entry["Key"][len(self._prefix) :], entry["LastModified"].timestamp())
            if not page.get("IsTruncated"):
                return
            params = {**params, "ContinuationToken": page["NextContinuationToken"]}

    def _params(self, name: str) -> dict[str, Any]:
        return {"Bucket": self._bucket.name, "Key": self.key_of(name)}

    async def _pieces(
        self, client: Client, name: str, start: int, etag: str | None
    ) -> AsyncIterator[bytes]:
        part = {"Range": f"bytes={start}-"} if start else {}
        try:
            response = await client.get_object(**self._params(name), **part)
        except Exception as error:
            if _is_missing(error):
                raise ChangedError("the object was removed meanwhile") from error
            raise
        async with response["Body"] as body:
            if etag is not None and _etag(response) != etag:
                raise ChangedError("the object was changed meanwhile")
            while piece := await body.read(_PIECE_BYTES):
                yield piece

    # -- conditions

    async def _condition(self, tag: str | None) -> dict[str, str]:
        """Return the condition of a request, if there is one and the store honours it."""
        if tag is None:
            return {}
        probing = self._probing
        if probing is None or (probing.done() and (probing.cancelled() or probing.exception())):
            probing = self._probing = asyncio.create_task(self._honours_if_match())
        return {"IfMatch": f'"{tag}"'} if await asyncio.shield(probing) else {}

    async def _honours_if_match(self) -> bool:
        """Try whether an object is replaced although it has another tag. Raises `Refusal`."""

        async def call(client: Client) -> bool:
            where = {"Bucket": self._bucket.name, "Key": self._bucket.key(PROBE_PATH)}
            try:
                await client.put_object(**where, Body=b"", IfMatch=_OTHER_TAG)
            except Exception as error:
                if code_of(error) in _CHANGED or status_of(error) in {404, 412}:
                    return True
                if status_of(error) in {400, 501}:  # it refuses what it does not know
                    return False
                raise
            return False

        honoured = await self._retrier.retry("probing the bucket", call, REQUEST_TIMEOUT)
        if not honoured:
            log.warning(
                "%s ignores If-Match: where several gateways store into it, all requests of an upload"
                " in several requests must reach the same one (balance by the query's `upload`)",
                self._bucket,
                extra=event("bucket.unfenced"),
            )
        return honoured


def _is_missing(error: Exception) -> bool:
    return status_of(error) == 404 and code_of(error) != "NoSuchBucket"


def _etag(response: Mapping[str, Any]) -> str:
    return str(response.get("ETag") or "").strip('"')
