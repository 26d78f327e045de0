"""S3 room: the shelf of a bucket: what is stored, read, listed, removed, and signed for.

One rule: what is said of an object and the bytes that are read are of one version, whichever store
it is: the entity tag of each answer is compared, since not every store knows `If-Match`. On any
event loop.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from typing import Any, Final, Self

from gateway.domain.grant import Grant
from gateway.errors import Refusal, Superseded
from gateway.settings.values import Bucket
from gateway.storage.protocols import PresignedRequest, Stat
from gateway.storage.s3.client import Clients
from gateway.storage.s3.errors import code_of, is_unavailable, status_of, translated
from gateway.storage.s3.header_encoding import decoded
from gateway.storage.s3.keys import PrefixedKeys
from gateway.storage.s3.lifecycle import Expiry, expire
from gateway.storage.s3.presign import presigned

PIECE_BYTES: Final = 1 << 18
"""A piece is what has come in, up to this."""

LIST_PAGE_SIZE: Final = 1000
"""As many as one page has at the most (Amazon S3 API reference, ListObjectsV2)."""

log = logging.getLogger("gateway.storage")

_OTHER: Final = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict"})


class S3Storage:
    """A bucket, below its prefix, as a `Shelf`. Callable from any event loop.

    `signing` are clients with the address by which others reach the bucket, which is signed too.
    """

    def __init__(self, bucket: Bucket, clients: Clients, signing: Clients | None = None) -> None:
        self._bucket = bucket.name
        self._keys = PrefixedKeys(bucket)
        self._clients = clients
        self._signing = signing or clients

    async def stat(self, path: str) -> Stat:
        """Describe an object. Raises `Refusal`."""
        key = self._keys.of(path)
        client = await self._clients.client()
        with translated(f"looking at {path}"):
            return _described(path, await client.head_object(Bucket=self._bucket, Key=key))

    @contextlib.asynccontextmanager
    async def open(
        self, path: str, *, start: int = 0, length: int | None = None, etag: str | None = None
    ) -> AsyncIterator[OpenObject]:
        """Open a part of an object, see `Shelf.open`. Every version of it is one request."""
        if length == 0:
            yield await self._nothing(path, etag)
            return
        key = self._keys.of(path)
        client = await self._clients.client()
        asked = {"Bucket": self._bucket, "Key": key, **_range(start, length), **_matching(etag)}
        with translated(f"reading {path}"), _same_or_superseded(path):
            answer = await client.get_object(**asked)
        body = answer["Body"]
        try:
            stat = _described(path, answer)
            _compare(stat, etag)
            _check_range(answer, start)
            yield OpenObject(stat, body, int(answer["ContentLength"]))
        finally:
            body.close()

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncGenerator[Stat, None]:
        """Iterate over objects in the order of their keys, see `Shelf.list`. They tell no type."""
        asked: dict[str, Any] = {"Bucket": self._bucket, "Prefix": self._keys.beginning(prefix)}
        asked["MaxKeys"] = LIST_PAGE_SIZE
        if after is not None:
            asked["StartAfter"] = self._keys.beginning(after)
        client = await self._clients.client()
        while True:
            with translated(f"listing {prefix}"):
                page = await client.list_objects_v2(**asked)
            for found in page.get("Contents", ()):
                path = self._keys.path(found["Key"])
                if path is not None:
                    yield _listed(path, found)
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    async def delete(self, path: str, etag: str | None = None) -> None:
        """Remove an object. Raises `Refusal`, `Superseded`.

        Stores that do not know `If-Match` with DELETE look first and remove then: who replaces the
        object in between loses what he stored.
        """
        key = self._keys.of(path)
        _compare(await self.stat(path), etag)
        client = await self._clients.client()
        with translated(f"removing {path}"), _same_or_superseded(path):
            await client.delete_object(Bucket=self._bucket, Key=key, **_matching(etag))

    async def sign(self, grant: Grant, *, expires: float) -> PresignedRequest | None:
        """Let the bucket take one request, see `presigned`. Raises `ValueError`, `Refusal`."""
        key = self._keys.of(grant.path)
        client = await self._signing.client()
        with translated(f"signing {grant.path}"):
            return await presigned(client, self._bucket, key, grant, expires)

    async def expire(self, prefix: str, seconds: float) -> Expiry | None:
        """Set a rule of the bucket, see `Expiring`. Raises `Refusal`."""
        beginning = self._keys.beginning(prefix)
        client = await self._clients.client()
        with translated(f"setting the expiry of {prefix}"):
            try:
                return await expire(client, self._bucket, beginning, seconds)
            except Exception as fault:
                if (is_unavailable(fault) and status_of(fault) != 501) or status_of(fault) == 403:
                    raise
                log.warning(
                    "the bucket knows no expiry (%s): %s is left to who asked", code_of(fault), prefix
                )
                return None

    async def _nothing(self, path: str, etag: str | None) -> OpenObject:
        """No range of HTTP is empty (RFC 9110 section 14.1.1)."""
        stat = await self.stat(path)
        _compare(stat, etag)
        return OpenObject(stat, None, 0)


class OpenObject:
    """A part of an object on its way, as `Opened`."""

    fd: int | None = None

    def __init__(self, stat: Stat, body: Any, promised: int) -> None:
        self.stat = stat
        self._body = body
        self._left = promised

    def __aiter__(self) -> Self:
        """Return the pieces."""
        return self

    async def __anext__(self) -> bytes:
        """Return what has come. Raises `Refusal` where the storage falls silent or ends too early."""
        if not self._left:
            raise StopAsyncIteration
        with translated(f"reading {self.stat.path}"):
            piece: bytes = await self._body.read(PIECE_BYTES)
            if not piece or len(piece) > self._left:
                raise OSError("the storage sent other bytes than it had promised")
        self._left -= len(piece)
        return piece


def _described(path: str, answer: Mapping[str, Any]) -> Stat:
    """Read what HEAD and GET say. Of a part, the size of the whole stands in `Content-Range`."""
    whole = str(answer.get("ContentRange", "")).rpartition("/")[2]
    return Stat(
        path,
        int(whole) if whole.isdecimal() else int(answer["ContentLength"]),
        answer["LastModified"].timestamp(),
        str(answer.get("ETag", "")).strip('"'),
        answer.get("ContentType"),
        decoded(answer.get("Metadata", {})),
    )


def _listed(path: str, found: Mapping[str, Any]) -> Stat:
    modified = found["LastModified"].timestamp()
    return Stat(path, int(found["Size"]), modified, str(found.get("ETag", "")).strip('"'))


def _range(start: int, length: int | None) -> dict[str, str]:
    if start == 0 and length is None:
        return {}
    return {"Range": f"bytes={start}-" + ("" if length is None else str(start + length - 1))}


def _check_range(answer: Mapping[str, Any], start: int) -> None:
    """A store that ignores the range, as it may, would send the wrong bytes."""
    said = str(answer.get("ContentRange", ""))
    if start and not said.startswith(f"bytes {start}-"):
        raise Refusal("internal", "the storage does not know ranges")


def _matching(etag: str | None) -> dict[str, str]:
    return {} if etag is None else {"IfMatch": f'"{etag}"'}


def _compare(stat: Stat, etag: str | None) -> None:
    if etag is not None and stat.etag != etag:
        raise Superseded(f"{stat.path} has been replaced or changed meanwhile")


@contextlib.contextmanager
def _same_or_superseded(path: str) -> Iterator[None]:
    try:
        yield
    except Exception as fault:
        if code_of(fault) in _OTHER or status_of(fault) == 412:
            raise Superseded(f"{path} has been replaced or changed meanwhile") from fault
        raise
