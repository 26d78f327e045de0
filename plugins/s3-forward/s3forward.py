"""Plugin s3-forward: sends a committed file to an S3 bucket, then removes it here.

The local file is removed only after a HEAD has shown that the object is this upload, whole. Every step
may run again after any interruption.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from botocore.exceptions import BotoCoreError, ClientError
from s3source import Part, Source, base64, part_size_for
from s3target import Target
from s3turn import turn

from gateway.errors import Superseded

MAX_METADATA_BYTES: Final = 1000
"""Largest metadata value; S3 takes 2 KB for all of them."""

Tell = Callable[[int, int], object]
log = logging.getLogger("gateway.plugin.s3Forward")


class NotVerified(Exception):
    """The object in the bucket is not the file that was sent; the file here has been kept."""


async def forward(
    event: Mapping[str, Any],
    files: Any,
    config: Mapping[str, Any],
    state: MutableMapping[str, Any],
    tell: Tell,
) -> None:
    """Store the file of an `APIGW.OnFileUploaded` event in the bucket of `config`, then remove it.

    `tell(done, total)` is called with bytes. Raises `ClientError` with the code of S3, `NotVerified`,
    `ValueError` for a bad config. A file that was replaced meanwhile is left to its own event. Uploads
    of one path are sent one after the other, the newer one last, and do not abort each other's parts.
    """
    target = Target.of(config)
    key = target.key(event["path"])
    try:
        # Opened under the lock: the second run opens the newer file, or none, never the older one.
        async with turn(state, f"s3://{target.bucket}/{key}"), target.client() as client:
            async with files.open(event) as file:
                size = int(event["bytes"])
                source = Source(file.fileno(), size, part_size_for(size, target.part_size))
                await _Forwarding(client, target, key, event, source, tell).run()
            await files.remove(event)
    except Superseded as reason:
        log.info("nothing more to do for upload %s: %s", event["upload_id"], reason)
    else:
        log.info("moved %s to s3://%s/%s: %d bytes", event["path"], target.bucket, key, event["bytes"])


@dataclass(slots=True)
class _Forwarding:
    """Sends one file to its object."""

    client: Any
    target: Target
    key: str
    event: Mapping[str, Any]
    source: Source
    tell: Tell

    @property
    def _place(self) -> dict[str, str]:
        return {"Bucket": self.target.bucket, "Key": self.key}

    async def run(self) -> None:
        """Make the object whole and verified. Does nothing if it is already."""
        await self._sweep()
        if await self._fault() is None:
            log.info("s3://%s/%s has this upload already", self.target.bucket, self.key)
            return
        self.tell(0, self.source.size)
        await (self._put() if self.source.in_one else self._put_parts())
        fault = await self._fault()
        if fault is not None:
            raise NotVerified(f"s3://{self.target.bucket}/{self.key}: {fault}")

    async def _sweep(self) -> None:
        """Abort unfinished uploads of earlier runs (a crash, a dead server); create the bucket."""
        try:
            listing = await self.client.list_multipart_uploads(
                Bucket=self.target.bucket, Prefix=self.key
            )
        except ClientError as error:
            if code_of(error) == "NoSuchBucket":
                await self._make_bucket()
            elif code_of(error) != "NoSuchUpload":  # rclone's answer for an empty list
                raise
            return
        for upload in listing.get("Uploads", ()):
            if upload["Key"] == self.key:
                await self._abort(upload["UploadId"])

    async def _make_bucket(self) -> None:
        log.info("creating the bucket %s", self.target.bucket)
        try:
            await self.client.create_bucket(Bucket=self.target.bucket, **self.target.location_constraint)
        except ClientError as error:
            if code_of(error) not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                raise

    async def _fault(self) -> str | None:
        """Say why the object is not this upload, None if it is.

        Its content is proved by the SHA-256 that AWS and SeaweedFS keep, or by the ETag: made of the
        MD5s nearly everywhere, but not where AWS encrypts with its key service.
        """
        try:
            head = await self.client.head_object(**self._place, ChecksumMode="ENABLED")
        except ClientError as error:
            if code_of(error) not in {"404", "NoSuchKey", "NotFound"}:
                raise
            return "there is no object"
        metadata = {name.lower(): value for name, value in head["Metadata"].items()}
        if metadata.get("upload-id") != self.event["upload_id"]:
            return "the object is of another upload"
        if head["ContentLength"] != self.source.size:
            return f"the object has {head['ContentLength']} bytes, the file {self.source.size}"
        if head.get("ChecksumSHA256", "").partition("-")[0] == await self.source.sha256():
            return None
        if await self.source.has_etag(head["ETag"]):
            return None
        return "neither the checksum nor the ETag of the object is that of the file"

    def _description(self) -> dict[str, Any]:
        """Return content type and metadata: ASCII only, other characters percent-encoded."""
        fields = {
            "upload-id": self.event["upload_id"],
            "path": self.event["path"],
            "principal": (self.event.get("principal") or {}).get("name"),
        }
        encoded = {name: quote(str(value)) for name, value in fields.items() if value is not None}
        short = {name: value for name, value in encoded.items() if len(value) <= MAX_METADATA_BYTES}
        return {"ContentType": self.event["mime"], "Metadata": short}

    async def _content(self, part: Part) -> dict[str, Any]:
        """Return a part with its digests: the server refuses bytes that do not have them."""
        digests = await self.source.digests(part)
        return {
            "Body": self.source.body(part),
            "ContentLength": part.size,
            "ContentMD5": base64(digests.md5),
            "ChecksumSHA256": base64(digests.sha256),
        }

    async def _put(self) -> None:
        content = await self._content(self.source.parts[0])
        await self.client.put_object(**self._place, **self._description(), **content)
        self.tell(self.source.size, self.source.size)

    async def _put_parts(self) -> None:
        upload = await self.client.create_multipart_upload(
            **self._place, **self._description(), ChecksumAlgorithm="SHA256"
        )
        whole = False
        try:
            parts = await self._send_all(upload["UploadId"])
            await self.client.complete_multipart_upload(
                **self._place, UploadId=upload["UploadId"], MultipartUpload={"Parts": parts}
            )
            whole = True
        finally:
            if not whole:
                await self._abort(upload["UploadId"])

    async def _send_all(self, upload_id: str) -> list[dict[str, Any]]:
        """Send all parts, a few at a time; return what completes them, in order."""
        sent: dict[int, dict[str, Any]] = {}
        waiting = iter(self.source.parts)
        done = 0

        async def send_parts() -> None:
            nonlocal done
            for part in waiting:
                sent[part.number] = await self._send(upload_id, part)
                done += part.size
                self.tell(done, self.source.size)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.target.parts_in_flight):
                    group.create_task(send_parts())
        except ExceptionGroup as group_error:
            raise group_error.exceptions[0] from None  # the first one: its text has the code of S3
        return [sent[number] for number in sorted(sent)]

    async def _send(self, upload_id: str, part: Part) -> dict[str, Any]:
        content = await self._content(part)
        response = await self.client.upload_part(
            **self._place, UploadId=upload_id, PartNumber=part.number, **content
        )
        return {
            "PartNumber": part.number,
            "ETag": response["ETag"],
            "ChecksumSHA256": content["ChecksumSHA256"],
        }

    async def _abort(self, upload_id: str) -> None:
        """Free the parts of an unfinished upload. If that fails, the next run does it."""
        with contextlib.suppress(ClientError, BotoCoreError, OSError):
            await self.client.abort_multipart_upload(**self._place, UploadId=upload_id)


def code_of(error: ClientError) -> str:
    """Return the error code that S3 gave."""
    return str(error.response.get("Error", {}).get("Code", ""))
