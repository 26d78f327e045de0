"""Publishes an object by a copy that the store makes of a private one. On the server's loop.

Up to `MAX_COPY_BYTES` it is one request, above the parts of a multipart upload. Where nothing may be
replaced the condition must hold in the request that makes the object visible. Not every store takes
`If-None-Match` with a copy: it is tried once, and where it is ignored parts are copied and the
completion has the condition. Sources: Amazon S3 API reference, CopyObject, UploadPartCopy.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final

from gateway.errors import GatewayError, Refusal
from gateway.storage.s3.bucket import BucketClient
from gateway.storage.s3.client import Client
from gateway.storage.s3.encoding import UPLOAD_ID_NAME, ObjectTarget
from gateway.storage.s3.errors import code_of, status_of
from gateway.storage.s3.parts import MAX_PARTS, BufferedPart
from gateway.storage.s3.retries import (
    PUBLISH_TIMEOUT,
    REQUEST_TIMEOUT,
    RETRY_TIMEOUT,
    OutcomeUnknownError,
    RequestRetrier,
)

MAX_COPY_BYTES: Final = 1 << 30
"""What one request copies. S3 takes 5 GiB; a store that sends nothing meanwhile has to be done before
the client's read time-out (60 s)."""

MAX_COPIES_IN_FLIGHT: Final = 4
"""Parts of one object that are copied at once."""

_MAX_REQUEST_BYTES: Final = 5 << 30
"""What S3 takes in one request (Amazon S3 API reference, CopyObject)."""

_MIN_PART_BYTES: Final = 512 << 20
_MIB: Final = 1 << 20
_NOT_KNOWN: Final = frozenset({405, 501})


class SourceGone(Refusal):
    """The private object is not there any more."""


class PartCopyUnsupported(GatewayError):
    """The store copies no parts."""


class ObjectCopier:
    """Copies objects within a bucket. `probe` is the key of an object that no upload has."""

    def __init__(self, objects: BucketClient, retrier: RequestRetrier, probe: str) -> None:
        self._objects = objects
        self._bucket = objects.bucket
        self._retrier = retrier
        self._probe = probe
        self._probing: asyncio.Task[bool] | None = None

    async def copy(
        self,
        source: str,
        size: int,
        target: ObjectTarget,
        *,
        new: bool,
        begun: Callable[[str | None], Awaitable[None]],
    ) -> str:
        """Publish a copy of the object `source` of `size` bytes; return its entity tag.

        Metadata are those of the target. With `new` it replaces none. `begun` is told S3's id of the
        multipart upload that is to be completed, None where it was aborted. Raises as `put_object`.
        """
        honoured = not new or await self._honours_condition()
        if not size and not honoured:
            return await self._objects.put_object(target.key, BufferedPart(), target.params, new=True)
        if size > MAX_COPY_BYTES or not honoured:
            try:
                return await self._copy_parts(source, size, target, new, begun)
            except PartCopyUnsupported:
                if size > _MAX_REQUEST_BYTES:
                    raise Refusal(
                        "too_large", "the storage copies no parts: it cannot publish a file of this size"
                    ) from None
        return await self._copy_whole(source, target, new=new)

    async def _copy_whole(self, source: str, target: ObjectTarget, *, new: bool) -> str:
        condition = {"IfNoneMatch": "*"} if new else {}

        async def call(client: Client) -> str:
            with _gone():
                response = await client.copy_object(
                    Bucket=self._bucket,
                    Key=target.key,
                    CopySource={"Bucket": self._bucket, "Key": source},
                    MetadataDirective="REPLACE",
                    **target.params,
                    **condition,
                )
            return _tag(response.get("CopyObjectResult")).strip('"')

        return await self._retrier.publish("copying an object", call)

    # -- parts

    async def _copy_parts(
        self,
        source: str,
        size: int,
        target: ObjectTarget,
        new: bool,
        begun: Callable[[str | None], Awaitable[None]],
    ) -> str:
        multipart = await self._objects.create_multipart(target.key, target.params)
        await begun(multipart)
        try:
            tags = await self._send_copies(source, size, target.key, multipart)
            return await self._objects.complete_multipart(target.key, multipart, tags, new=new)
        except OutcomeUnknownError:
            raise
        except GatewayError:
            with contextlib.suppress(GatewayError):
                await self._objects.abort_multipart(target.key, multipart, 0)
                await begun(None)
            raise

    async def _send_copies(self, source: str, size: int, key: str, multipart: str) -> dict[int, str]:
        length = max(_MIN_PART_BYTES, -(-size // (MAX_PARTS * _MIB)) * _MIB)
        slots, tags = asyncio.Semaphore(MAX_COPIES_IN_FLIGHT), dict[int, str]()

        async def copy_part(number: int, start: int) -> None:
            try:
                end = min(start + length, size) - 1
                tags[number] = await self._copy_part(source, (start, end), key, multipart, number)
            finally:
                slots.release()

        try:
            async with asyncio.TaskGroup() as copying:
                for number, start in enumerate(range(0, size, length), start=1):
                    await slots.acquire()
                    copying.create_task(copy_part(number, start))
        except BaseExceptionGroup as failed:
            raise _first(failed) from failed
        return tags

    async def _copy_part(
        self, source: str, bounds: tuple[int, int], key: str, multipart: str, number: int
    ) -> str:
        async def call(client: Client) -> str:
            try:
                with _gone():
                    response = await client.upload_part_copy(
                        Bucket=self._bucket,
                        Key=key,
                        UploadId=multipart,
                        PartNumber=number,
                        CopySource={"Bucket": self._bucket, "Key": source},
                        CopySourceRange=f"bytes={bounds[0]}-{bounds[1]}",
                    )
            except Exception as error:
                if status_of(error) in _NOT_KNOWN:
                    raise PartCopyUnsupported(f"the storage copies no parts: {error}") from error
                raise
            # `rclone serve s3` takes the request for that of an empty part.
            tag = _tag(response.get("CopyPartResult"))
            if not tag:
                raise PartCopyUnsupported("the storage copies no parts")
            return tag

        return await self._retrier.retry("copying a part", call, RETRY_TIMEOUT, attempt=PUBLISH_TIMEOUT)

    # -- conditions

    async def _honours_condition(self) -> bool:
        """Tell whether the store takes `If-None-Match` with a copy. Raises `Refusal`."""
        probing = self._probing
        if probing is None or (probing.done() and (probing.cancelled() or probing.exception())):
            probing = self._probing = asyncio.create_task(self._try_condition())
        return await asyncio.shield(probing)

    async def _try_condition(self) -> bool:
        params = {"Metadata": {UPLOAD_ID_NAME: "probe"}}
        await self._objects.put_object(self._probe, BufferedPart(), params, new=False)

        async def call(client: Client) -> bool:
            try:
                await client.copy_object(
                    Bucket=self._bucket,
                    Key=self._probe,
                    CopySource={"Bucket": self._bucket, "Key": self._probe},
                    MetadataDirective="REPLACE",
                    IfNoneMatch="*",
                    **params,
                )
            except Exception as error:
                if status_of(error) == 412:
                    return True
                if status_of(error) in _NOT_KNOWN or status_of(error) == 400:
                    return False
                raise
            return False

        return await self._retrier.retry("probing the bucket", call, REQUEST_TIMEOUT)


@contextlib.contextmanager
def _gone() -> Iterator[None]:
    """Raise `SourceGone` where the private object is gone, about which no client can do anything."""
    try:
        yield
    except Exception as error:
        if code_of(error) == "NoSuchKey":
            raise Refusal(
                "internal", "the private object of the upload is gone from the bucket"
            ) from error
        raise


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _tag(result: Mapping[str, Any] | None) -> str:
    return "" if result is None else str(result.get("ETag") or "")
