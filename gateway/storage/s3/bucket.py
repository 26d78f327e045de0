"""The requests to S3 that write, or that the commit needs. On the server's loop.

Only `put_object` and `complete_multipart` make an object visible; `RequestRetrier` says how they end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.errors import Refusal
from gateway.storage.s3.client import Client, Clients
from gateway.storage.s3.encoding import UPLOAD_ID_NAME
from gateway.storage.s3.errors import code_of, refusal_of, status_of
from gateway.storage.s3.parts import BufferedPart, StallTimeout, StreamedPart
from gateway.storage.s3.retries import REQUEST_TIMEOUT, RETRY_TIMEOUT, RequestRetrier


@dataclass(slots=True, frozen=True)
class ObjectHead:
    """An object: its entity tag without quotes, the upload that it is, if any."""

    etag: str
    upload_id: str | None


class BucketClient:
    """Writes into one bucket."""

    def __init__(self, clients: Clients, bucket: str) -> None:
        self.bucket = bucket
        self._retrier = RequestRetrier(clients)

    async def head_object(self, key: str, retry_for: float = REQUEST_TIMEOUT) -> ObjectHead | None:
        """Describe an object; None where there is none. Raises `Refusal`."""

        async def call(client: Client) -> ObjectHead | None:
            try:
                head = await client.head_object(Bucket=self.bucket, Key=key)
            except Exception as error:
                if _is_missing(error):
                    return None
                raise
            return ObjectHead(_etag(head), head["Metadata"].get(UPLOAD_ID_NAME))

        return await self._retrier.retry("reading the head of an object", call, retry_for)

    async def delete_version(self, key: str, etag: str) -> None:
        """Remove an object, in one try, if it has this entity tag.

        Raises `KeyExistsError` where it has another one, `Refusal` (`not_found` too) where nothing was
        removed, `OutcomeUnknownError`. Where a store ignores `If-Match` with DELETE, an object that was
        stored a moment before is removed.
        """
        await self._retrier.publish_once("removing an object", self._delete_call(key, etag))

    def _delete_call(self, key: str, etag: str) -> Callable[[Client], Awaitable[str]]:
        async def call(client: Client) -> str:
            await client.delete_object(Bucket=self.bucket, Key=key, IfMatch=f'"{etag}"')
            return ""

        return call

    async def create_multipart(self, key: str, params: Mapping[str, Any]) -> str:
        """Begin a multipart upload; return its id. `params` are named as the S3 client names them."""

        async def call(client: Client) -> str:
            created = await client.create_multipart_upload(Bucket=self.bucket, Key=key, **params)
            return str(created["UploadId"])

        return await self._retrier.retry("beginning a multipart upload", call, REQUEST_TIMEOUT)

    async def upload_part(
        self, key: str, multipart: str, number: int, body: BufferedPart | StreamedPart, size: int
    ) -> str:
        """Send one part; return its entity tag. A streamed one is tried once. Raises `Refusal`."""

        async def call(client: Client) -> str:
            body.stall_timeout = StallTimeout()
            async with body.stall_timeout:
                response = await client.upload_part(
                    Bucket=self.bucket,
                    Key=key,
                    UploadId=multipart,
                    PartNumber=number,
                    Body=body,
                    ContentLength=size,
                )
            return str(response["ETag"])

        retry_for = RETRY_TIMEOUT if isinstance(body, BufferedPart) else 0.0
        return await self._retrier.retry("sending a part", call, retry_for, attempt=None)

    async def put_object(
        self, key: str, body: BufferedPart, params: Mapping[str, Any], *, new: bool
    ) -> str:
        """Publish a small object; return its entity tag. Raises as `RequestRetrier.publish` does."""
        condition = {"IfNoneMatch": "*"} if new else {}

        async def call(client: Client) -> str:
            body.stall_timeout = StallTimeout()
            async with body.stall_timeout:
                response = await client.put_object(
                    Bucket=self.bucket,
                    Key=key,
                    Body=body if body.size else b"",
                    ContentLength=body.size,
                    **params,
                    **condition,
                )
            return _etag(response)

        return await self._retrier.publish("storing an object", call)

    async def complete_multipart(
        self, key: str, multipart: str, tags: Mapping[int, str], *, new: bool
    ) -> str:
        """Publish a multipart upload of these parts; return the object's tag, "" where S3 names none."""
        parts = [{"PartNumber": number, "ETag": tags[number]} for number in sorted(tags)]
        condition = {"IfNoneMatch": "*"} if new else {}

        async def call(client: Client) -> str:
            response = await client.complete_multipart_upload(
                Bucket=self.bucket,
                Key=key,
                UploadId=multipart,
                MultipartUpload={"Parts": parts},
                **condition,
            )
            return _etag(response)

        return await self._retrier.publish("completing a multipart upload", call)

    async def abort_multipart(
        self, key: str, multipart: str, retry_for: float = REQUEST_TIMEOUT
    ) -> bool:
        """Abort a multipart upload; False where there is none of this id (any more)."""

        async def call(client: Client) -> bool:
            try:
                await client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=multipart)
            except Exception as error:
                if _is_missing(error):
                    return False
                raise
            return True

        return await self._retrier.retry("aborting a multipart upload", call, retry_for)

    async def newest_part_time(self, key: str, multipart: str) -> datetime | None:
        """Return when the latest part of a multipart upload came; None where there is none."""
        newest: datetime | None = None
        marker = 0
        while True:
            page = await self._list_parts(key, multipart, marker)
            for part in page.get("Parts", ()):
                newest = max(newest or part["LastModified"], part["LastModified"])
            if not page.get("IsTruncated"):
                return newest
            marker = page["NextPartNumberMarker"]

    async def _list_parts(self, key: str, multipart: str, marker: int) -> dict[str, Any]:
        params = {"Bucket": self.bucket, "Key": key, "UploadId": multipart, "PartNumberMarker": marker}
        page: dict[str, Any] = await self._retrier.retry(
            "listing parts", lambda client: client.list_parts(**params), REQUEST_TIMEOUT
        )
        return page

    async def is_multipart_open(self, key: str, multipart: str) -> bool:
        """Tell whether a multipart upload is neither complete nor aborted. Raises `Refusal`."""
        try:
            await self._list_parts(key, multipart, 0)
        except Refusal as refusal:
            if isinstance(refusal.__cause__, Exception) and status_of(refusal.__cause__) == 404:
                return False
            raise
        return True

    async def list_multiparts(self, prefix: str) -> AsyncIterator[tuple[str, str, datetime]]:
        """Iterate over multipart uploads below a prefix: key, id, and when it was begun."""
        markers: dict[str, str] = {}
        while True:

            async def call(client: Client, after: Mapping[str, str] = markers) -> dict[str, Any]:
                try:
                    page: dict[str, Any] = await client.list_multipart_uploads(
                        Bucket=self.bucket, Prefix=prefix, **after
                    )
                except Exception as error:
                    if code_of(error) == "NoSuchUpload":  # rclone says so where there is none
                        return {}
                    raise
                return page

            page = await self._retrier.retry("listing multipart uploads", call, REQUEST_TIMEOUT)
            for upload in page.get("Uploads", ()):
                if upload["Key"].startswith(prefix):
                    yield upload["Key"], upload["UploadId"], upload["Initiated"]
            if not page.get("IsTruncated") or not page.get("NextKeyMarker"):
                return
            markers = {
                "KeyMarker": page["NextKeyMarker"],
                "UploadIdMarker": page.get("NextUploadIdMarker", ""),
            }

    async def has_multipart(self, key: str) -> bool:
        """Tell whether a multipart upload to a key is unfinished. Raises `Refusal`."""
        async for other, _, _ in self.list_multiparts(key):  # by key: the shortest is the first
            return other == key
        return False

    async def is_reachable(self, seconds: float) -> bool:
        """Tell whether the bucket exists and answers within so many seconds."""
        try:
            client = await self._retrier.clients.client()
            async with asyncio.timeout(seconds):
                await client.head_bucket(Bucket=self.bucket)
        except Exception as error:
            refusal_of(error, "checking the bucket")
            return False
        return True


def _is_missing(error: Exception) -> bool:
    return status_of(error) == 404 and code_of(error) != "NoSuchBucket"


def _etag(response: Mapping[str, Any]) -> str:
    """Return the entity tag of a response without its quotes; Ceph leaves one of them empty."""
    return str(response.get("ETag") or "").strip('"')
