"""S3 room: the writing requests of S3, each with its patience, and three ways in which one ends.

One rule: what publishes (`put`, `complete`) says published, refused, or that nobody can say; never
one for another. All else may be repeated freely. On the server's loop. May import errors and
its own room.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from gateway.errors import GatewayError, Refusal
from gateway.storage.s3.client import Client, Clients
from gateway.storage.s3.faults import code_of, is_away, refusal_of, status_of
from gateway.storage.s3.sending import Gathered, Patience, Stream

T = TypeVar("T")

OWNER: Final = "gateway-upload-id"
"""The metadata name under which an object says which upload it is."""

LOOK_SECONDS: Final = 10.0
"""How long a client waits to be told that the storage is away."""

SEND_SECONDS: Final = 60.0
"""How long a request is repeated, from its first fault on: a storage may be away for a minute."""

PUBLISH_SECONDS: Final = 300.0
"""How long one request that completes an upload may take: thousands of parts are put together."""

_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 5.0
_NOT_DONE: Final = frozenset({"SlowDown", "ServiceUnavailable"})
"""Answers in 5xx that mean that nothing was done (Amazon S3 API reference, "Error responses")."""

_TAKEN: Final = frozenset({"PreconditionFailed", "412"})


class TakenError(GatewayError):
    """There is an object of this key, and none may be replaced."""


class DoubtfulError(GatewayError):
    """Nobody can say whether the object was published; it may even be a little later."""


@dataclass(slots=True, frozen=True)
class Head:
    """An object: its entity tag without quotes, its size in bytes, the upload that it is, if ours."""

    etag: str
    bytes: int
    upload_id: str | None


class Objects:
    """Writes into one bucket. `away` tells whether the latest request found nobody there."""

    def __init__(self, clients: Clients, bucket: str) -> None:
        self.bucket = bucket
        self.away = False
        self._clients = clients

    async def head(self, key: str, patience: float = LOOK_SECONDS) -> Head | None:
        """Look at an object; None where there is none. Raises `Refusal`."""

        async def call(client: Client) -> Head | None:
            try:
                found = await client.head_object(Bucket=self.bucket, Key=key)
            except Exception as fault:
                if status_of(fault) == 404 and code_of(fault) != "NoSuchBucket":
                    return None
                raise
            return Head(_plain(found), found["ContentLength"], found["Metadata"].get(OWNER))

        return await self._persist("looking at an object", call, patience)

    async def begin(self, key: str, said: Mapping[str, Any]) -> str:
        """Begin a multipart upload; return its id. `said` are headers, as the client names them."""

        async def call(client: Client) -> str:
            made = await client.create_multipart_upload(Bucket=self.bucket, Key=key, **said)
            return str(made["UploadId"])

        return await self._persist("beginning a multipart upload", call, LOOK_SECONDS)

    async def part(
        self, key: str, multipart: str, number: int, body: Gathered | Stream, size: int
    ) -> str:
        """Send one part; return its entity tag. What streams is tried once. Raises `Refusal`."""

        async def call(client: Client) -> str:
            body.patience = Patience()
            async with body.patience:
                sent = await client.upload_part(
                    Bucket=self.bucket,
                    Key=key,
                    UploadId=multipart,
                    PartNumber=number,
                    Body=body,
                    ContentLength=size,
                )
            return str(sent["ETag"])

        again = SEND_SECONDS if isinstance(body, Gathered) else 0.0
        return await self._persist("sending a part", call, again, attempt=None)

    async def put(self, key: str, body: Gathered, said: Mapping[str, Any], *, new: bool) -> str:
        """Publish a small object; return its entity tag. See `_publish`."""
        condition = {"IfNoneMatch": "*"} if new else {}

        async def call(client: Client) -> str:
            body.patience = Patience()
            async with body.patience:
                done = await client.put_object(
                    Bucket=self.bucket,
                    Key=key,
                    Body=body if body.size else b"",
                    ContentLength=body.size,
                    **said,
                    **condition,
                )
            return _plain(done)

        return await self._publish("storing an object", call)

    async def complete(self, key: str, multipart: str, tags: Mapping[int, str], *, new: bool) -> str:
        """Publish a multipart upload of these parts; return the object's tag, "" where none is told."""
        parts = [{"PartNumber": number, "ETag": tags[number]} for number in sorted(tags)]
        condition = {"IfNoneMatch": "*"} if new else {}

        async def call(client: Client) -> str:
            done = await client.complete_multipart_upload(
                Bucket=self.bucket,
                Key=key,
                UploadId=multipart,
                MultipartUpload={"Parts": parts},
                **condition,
            )
            return _plain(done)

        return await self._publish("completing a multipart upload", call)

    async def abort(self, key: str, multipart: str, patience: float = LOOK_SECONDS) -> bool:
        """Take a multipart upload back; False where there is none of this id (any more)."""

        async def call(client: Client) -> bool:
            try:
                await client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=multipart)
            except Exception as fault:
                if status_of(fault) == 404 and code_of(fault) != "NoSuchBucket":
                    return False
                raise
            return True

        return await self._persist("aborting a multipart upload", call, patience)

    async def newest_part(self, key: str, multipart: str) -> datetime | None:
        """Return when the latest part of a multipart upload came; None where there is none."""
        newest: datetime | None = None
        marker = 0
        while True:
            page = await self._parts(key, multipart, marker)
            for part in page.get("Parts", ()):
                newest = max(newest or part["LastModified"], part["LastModified"])
            if not page.get("IsTruncated"):
                return newest
            marker = page["NextPartNumberMarker"]

    async def _parts(self, key: str, multipart: str, marker: int) -> dict[str, Any]:
        async def call(client: Client) -> dict[str, Any]:
            page: dict[str, Any] = await client.list_parts(
                Bucket=self.bucket, Key=key, UploadId=multipart, PartNumberMarker=marker
            )
            return page

        return await self._persist("listing parts", call, LOOK_SECONDS)

    async def is_open(self, key: str, multipart: str) -> bool:
        """Tell whether a multipart upload is neither complete nor aborted. Raises `Refusal`."""
        try:
            await self._parts(key, multipart, 0)
        except Refusal as refusal:
            if isinstance(refusal.__cause__, Exception) and status_of(refusal.__cause__) == 404:
                return False
            raise
        return True

    async def unfinished(self, prefix: str) -> AsyncIterator[tuple[str, str, datetime]]:
        """Iterate over multipart uploads below a prefix: key, id, and when it was begun."""
        markers: dict[str, str] = {}
        while True:

            async def call(client: Client, after: Mapping[str, str] = markers) -> dict[str, Any]:
                page: dict[str, Any] = await client.list_multipart_uploads(
                    Bucket=self.bucket, Prefix=prefix, **after
                )
                return page

            page = await self._persist("listing multipart uploads", call, LOOK_SECONDS)
            for one in page.get("Uploads", ()):
                if one["Key"].startswith(prefix):
                    yield one["Key"], one["UploadId"], one["Initiated"]
            if not page.get("IsTruncated") or not page.get("NextKeyMarker"):
                return
            markers = {
                "KeyMarker": page["NextKeyMarker"],
                "UploadIdMarker": page.get("NextUploadIdMarker", ""),
            }

    async def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no fault."""

        async def call(client: Client) -> None:
            await client.delete_object(Bucket=self.bucket, Key=key)

        await self._persist("removing an object", call, LOOK_SECONDS)

    # -- patience

    async def _persist(
        self,
        doing: str,
        call: Callable[[Client], Awaitable[T]],
        patience: float,
        *,
        attempt: float | None = LOOK_SECONDS,
    ) -> T:
        """Do what may be repeated, until it is done, refused, or `patience` has run out.

        `attempt` are the seconds that one try may take, None where it watches itself. Raises `Refusal`.
        """
        pauses = _Pauses(patience)
        while True:
            try:
                client = await self._clients.client()
                async with asyncio.timeout(attempt):
                    result = await call(client)
            except Exception as fault:
                if isinstance(fault, GatewayError):
                    raise
                self.away = is_away(fault)
                if not self.away or not await pauses.next():
                    raise self._refused(fault, doing) from fault
            else:
                self.away = False
                return result

    async def _publish(self, doing: str, call: Callable[[Client], Awaitable[str]]) -> str:
        """Do what makes an object visible.

        Raises `TakenError` or `Refusal` where it is certain that it did not, else `DoubtfulError`.
        """
        pauses, doubtful = _Pauses(SEND_SECONDS), False
        client = await self._clients.client()
        while True:
            try:
                async with asyncio.timeout(PUBLISH_SECONDS):
                    tag = await call(client)
            except Exception as fault:
                self.away = is_away(fault)
                doubtful = doubtful or (self.away and not _not_done(fault))
                if self.away and await pauses.next():
                    continue
                if doubtful:
                    raise DoubtfulError(f"{doing}: {fault}") from fault
                if code_of(fault) in _TAKEN:
                    raise TakenError("there is an object of this name") from fault
                raise self._refused(fault, doing) from fault
            self.away = False
            return tag

    def _refused(self, fault: Exception, doing: str) -> Exception:
        from botocore.exceptions import ParamValidationError

        if isinstance(fault, ParamValidationError):
            return Refusal("bad_request", "the storage takes no such metadata or headers")
        return refusal_of(fault, doing) or fault

    async def alive(self, seconds: float) -> bool:
        """Tell whether the bucket is there and answers us within so many seconds."""
        try:
            client = await self._clients.client()
            async with asyncio.timeout(seconds):
                await client.head_bucket(Bucket=self.bucket)
        except Exception as fault:
            refusal_of(fault, "looking at the bucket")
            return False
        self.away = False
        return True


class _Pauses:
    """Pauses between tries, doubling, for so many seconds from the first one on."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._until: float | None = None
        self._pause = _FIRST_PAUSE

    async def next(self) -> bool:
        """Pause; False, at once, where the time is up."""
        now = time.monotonic()
        if self._until is None:
            self._until = now + self._patience
        if now + self._pause > self._until:
            return False
        await asyncio.sleep(self._pause * random.uniform(0.5, 1))  # noqa: S311 - no secret
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        return True


def _plain(answer: Mapping[str, Any]) -> str:
    """Return the entity tag of an answer without its quotes; Ceph leaves one of them empty."""
    return str(answer.get("ETag") or "").strip('"')


def _not_done(fault: Exception) -> bool:
    """Tell whether a request certainly was not carried out, although it may be repeated."""
    import aiohttp
    from botocore.exceptions import ConnectTimeoutError

    if code_of(fault) in _NOT_DONE or isinstance(fault, ConnectTimeoutError):
        return True
    inner = getattr(fault, "kwargs", {}).get("error")
    return isinstance(inner, aiohttp.ClientConnectorError)
