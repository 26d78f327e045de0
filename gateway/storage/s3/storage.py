"""A bucket as a `Storage`.

The stat of an object and the bytes that are read are of one version, whichever store it is: the entity
tag of each response is compared, since not every store knows `If-Match`. On any event loop.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, Final, Self

from gateway.domain import paths
from gateway.domain.grant import Grant
from gateway.domain.model import OnConflict
from gateway.errors import Refusal, Superseded
from gateway.settings.values import Bucket
from gateway.storage.protocols import (
    INVALID_POSITION,
    MAX_FOLDER_PAGE,
    FolderPage,
    PresignedRequest,
    Stat,
)
from gateway.storage.s3.client import Clients
from gateway.storage.s3.encoding import PrefixedKeys, decode_metadata, stored_digest
from gateway.storage.s3.errors import as_refusals, code_of, is_unavailable, status_of
from gateway.storage.s3.lifecycle import Expiry, expire
from gateway.storage.s3.moving import ObjectMover
from gateway.storage.s3.presign import presigned
from gateway.telemetry.logs import event

PIECE_BYTES: Final = 1 << 18
"""A piece is what has come in, up to this."""

LIST_PAGE_SIZE: Final = 1000
"""Objects that one page has at most (Amazon S3 API reference, ListObjectsV2)."""

log = logging.getLogger("gateway.storage")

_OTHER_VERSION: Final = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict"})


class S3Storage:
    """A bucket, below its prefix, as a `Storage`. Callable from any event loop.

    `signing` are clients with the public address of the bucket, which is signed too.
    """

    def __init__(self, bucket: Bucket, clients: Clients, signing: Clients | None = None) -> None:
        self._bucket = bucket.name
        self._keys = PrefixedKeys(bucket)
        self._clients = clients
        self._signing = signing or clients
        self.removed: Callable[[str], Awaitable[None]] | None = None
        """Hears of the path of each object that `delete` has removed."""

    async def stat(self, path: str) -> Stat:
        """Describe an object."""
        key = self._keys.key_of(path)
        client = await self._clients.client()
        with as_refusals(f"reading the head of {path}"):
            return _described(path, await client.head_object(Bucket=self._bucket, Key=key))

    @contextlib.asynccontextmanager
    async def open(
        self, path: str, *, start: int = 0, length: int | None = None, etag: str | None = None
    ) -> AsyncIterator[OpenObject]:
        """Open a part of an object, with one request."""
        async with self._open_key(self._keys.key_of(path), path, start, length, etag) as opened:
            yield opened

    @contextlib.asynccontextmanager
    async def open_private(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> AsyncIterator[OpenObject]:
        """Open a part of a private object of the gateway, by its key: a `PrivateFile`."""
        async with self._open_key(key, "a private object", start, length, None) as opened:
            yield opened

    @contextlib.asynccontextmanager
    async def _open_key(
        self, key: str, path: str, start: int, length: int | None, etag: str | None
    ) -> AsyncIterator[OpenObject]:
        client = await self._clients.client()
        if length == 0:  # without a GET: no range of HTTP is empty (RFC 9110 section 14.1.1)
            with as_refusals(f"reading the head of {path}"):
                stat = _described(path, await client.head_object(Bucket=self._bucket, Key=key))
            stat.check_etag(etag)
            yield OpenObject(stat, None, 0)
            return
        params = {"Bucket": self._bucket, "Key": key, **_range(start, length), **_if_match(etag)}
        with as_refusals(f"reading {path}"), _same_or_superseded(path):
            response = await client.get_object(**params)
        body = response["Body"]
        try:
            stat = _described(path, response)
            stat.check_etag(etag)
            _check_range(response, start)
            yield OpenObject(stat, body, int(response["ContentLength"]))
        finally:
            body.close()

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncGenerator[Stat, None]:
        """Iterate over objects. Their stats have no type and no metadata."""
        params: dict[str, Any] = {"Bucket": self._bucket, "Prefix": self._keys.key_prefix(prefix)}
        params["MaxKeys"] = LIST_PAGE_SIZE
        if after is not None:
            params["StartAfter"] = self._keys.key_prefix(after)
        client = await self._clients.client()
        while True:
            with as_refusals(f"listing {prefix}"):
                page = await client.list_objects_v2(**params)
            for entry in page.get("Contents", ()):
                path = self._keys.path_of(entry["Key"])
                if path is not None:
                    modified = entry["LastModified"].timestamp()
                    yield Stat(path, int(entry["Size"]), modified, _etag(entry))
            if not page.get("IsTruncated"):
                return
            params["ContinuationToken"] = page["NextContinuationToken"]

    async def list_folder(
        self, folder: str, *, after: str | None = None, limit: int = MAX_FOLDER_PAGE
    ) -> FolderPage:
        """Return a page of a folder, with one request. Stats have no type and no metadata."""
        name = folder.strip("/")
        folder = f"/{'/'.join(paths.check_path(name))}/" if name else "/"
        prefix = self._keys.key_prefix(folder)
        params: dict[str, Any] = {"Bucket": self._bucket, "Prefix": prefix, "Delimiter": "/"}
        params["MaxKeys"] = min(limit, MAX_FOLDER_PAGE)
        if after is not None:
            params["ContinuationToken"] = after
        client = await self._clients.client()
        with as_refusals(f"listing {folder}"), _own_token():
            page = await client.list_objects_v2(**params)
        files = {str(entry["Key"]): entry for entry in page.get("Contents", ())}
        folders = {str(entry["Prefix"]) for entry in page.get("CommonPrefixes", ())}
        if not files and not folders and after is None:
            raise Refusal("not_found", "there is no such folder")
        entries = [self._entry(key, files.get(key)) for key in sorted({*files, *folders})]
        token = page.get("NextContinuationToken") if page.get("IsTruncated") else None
        return FolderPage([entry for entry in entries if entry is not None], token)

    def _entry(self, key: str, entry: Mapping[str, Any] | None) -> Stat | str | None:
        """Return a listed file or folder; None for a folder's marker, and a name that is no path."""
        path = self._keys.path_of(key if entry is not None else key.removesuffix("/"))
        if path is None or entry is None:
            return path if path is None else f"{path}/"
        return Stat(path, int(entry["Size"]), entry["LastModified"].timestamp(), _etag(entry))

    async def delete(self, path: str, etag: str | None = None) -> None:
        """Remove an object.

        Where a store ignores `If-Match` with DELETE, an object stored after the comparison is lost.
        """
        key = self._keys.key_of(path)
        (await self.stat(path)).check_etag(etag)
        client = await self._clients.client()
        with as_refusals(f"removing {path}"), _same_or_superseded(path):
            await client.delete_object(Bucket=self._bucket, Key=key, **_if_match(etag))
        if self.removed is not None:
            await self.removed(path)

    async def move(
        self, path: str, target: str, *, etag: str | None = None, on_conflict: OnConflict = "replace"
    ) -> Stat:
        """Give an object another key, see `MovingStorage.move`."""
        mover = ObjectMover(self, self._bucket, self._keys)
        return await mover.move(await self._clients.client(), path, target, etag, on_conflict)

    async def sign(self, grant: Grant, *, expires: float) -> PresignedRequest | None:
        """Sign a request that the bucket accepts, see `presigned`. Raises `ValueError`, `Refusal`."""
        key = self._keys.key_of(grant.path)
        client = await self._signing.client()
        with as_refusals(f"signing {grant.path}"):
            return await presigned(client, self._bucket, key, grant, expires)

    async def expire(self, prefix: str, seconds: float) -> Expiry | None:
        """Set a lifecycle rule of the bucket. Raises `Refusal`."""
        key_prefix = self._keys.key_prefix(prefix)
        client = await self._clients.client()
        with as_refusals(f"setting the expiry of {prefix}"):
            try:
                return await expire(client, self._bucket, key_prefix, seconds)
            except Exception as error:
                if (is_unavailable(error) and status_of(error) != 501) or status_of(error) == 403:
                    raise
                log.warning(
                    "the bucket has no lifecycle rules (%s): only expire() removes %s",
                    code_of(error),
                    prefix,
                    extra=event("lifecycle.unsupported", prefix=prefix, code=code_of(error)),
                )
                return None


class OpenObject:
    """A part of an object that is being received, an `OpenFile`."""

    fd: int | None = None

    def __init__(self, stat: Stat, body: Any, length: int) -> None:
        self.stat = stat
        self._body = body
        self._left = length

    def __aiter__(self) -> Self:
        """Return the pieces."""
        return self

    async def __anext__(self) -> bytes:
        """Return what has come. Raises `Refusal` where the response stalls or ends too early."""
        if not self._left:
            raise StopAsyncIteration
        with as_refusals(f"reading {self.stat.path}"):
            piece: bytes = await self._body.read(PIECE_BYTES)
            if not piece or len(piece) > self._left:
                raise OSError("the storage sent another number of bytes than it declared")
        self._left -= len(piece)
        return piece


def _described(path: str, response: Mapping[str, Any]) -> Stat:
    """Return the stat in a response to HEAD or GET; of a part, `Content-Range` has the whole size."""
    metadata = decode_metadata(response.get("Metadata", {}))
    whole = str(response.get("ContentRange", "")).rpartition("/")[2]
    return Stat(
        path,
        int(whole) if whole.isdecimal() else int(response["ContentLength"]),
        response["LastModified"].timestamp(),
        _etag(response),
        response.get("ContentType"),
        metadata,
        stored_digest(metadata),
    )


def _etag(response: Mapping[str, Any]) -> str:
    return str(response.get("ETag", "")).strip('"')


def _range(start: int, length: int | None) -> dict[str, str]:
    if start == 0 and length is None:
        return {}
    return {"Range": f"bytes={start}-" + ("" if length is None else str(start + length - 1))}


def _check_range(response: Mapping[str, Any], start: int) -> None:
    """Raise where the store ignored the range, as it may: it would send the wrong bytes."""
    content_range = str(response.get("ContentRange", ""))
    if start and not content_range.startswith(f"bytes {start}-"):
        raise Refusal("internal", "the storage does not support ranges")


def _if_match(etag: str | None) -> dict[str, str]:
    return {} if etag is None else {"IfMatch": f'"{etag}"'}


@contextlib.contextmanager
def _own_token() -> Iterator[None]:
    """Raise `Refusal("bad_request")` for a token that the store has not given."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise Refusal("bad_request", INVALID_POSITION) from error
    except Exception as error:
        if code_of(error) == "InvalidArgument":
            raise Refusal("bad_request", INVALID_POSITION) from error
        raise


@contextlib.contextmanager
def _same_or_superseded(path: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if code_of(error) in _OTHER_VERSION or status_of(error) == 412:
            raise Superseded(f"{path} has been replaced or changed meanwhile") from error
        raise
