"""What it asks of the storage that was chosen at start, files or a bucket.

One rule: whatever differs between storages lies behind `UploadSink`; what a body must be is checked
here, once.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any, Protocol

from aiohttp import web

from gateway.commit.disk_space import Reservation
from gateway.domain.model import Stored, Upload
from gateway.endpoints.uploads import preconditions
from gateway.endpoints.uploads.admission import AdmittedUpload
from gateway.errors import Refusal
from gateway.storage.local import xattrs as attributes


class UploadSink(Protocol):
    """One kind of storage, as the door sees it. What `take` and `receive` return is for `commit`."""

    async def look(
        self, upload: Upload, segments: tuple[str, ...], headers: Mapping[str, str]
    ) -> Reservation:
        """Look whether the name may be given and there is room; see `Admission`. Raises `Refusal`."""
        ...

    async def take(self, request: web.BaseRequest, admitted: AdmittedUpload) -> Any:
        """Take a small body that is here. Raises `Refusal`."""
        ...

    async def receive(
        self, request: web.BaseRequest, admitted: AdmittedUpload, share: Reservation, *, waiting: bool
    ) -> Any:
        """Receive a body; `waiting` for the go-ahead. Raises `Refusal`, `ClientDisconnected`."""
        ...

    async def commit(self, order: Any) -> Stored:
        """Commit what was taken or received. Raises `Refusal`, `UnknownOutcome`."""
        ...


def mime_of(upload: Upload) -> str:
    """Return the media type: what the client says, else what the name tells."""
    return upload.content_type or attributes.guess_mime(upload.path)


def algorithms_of(admitted: AdmittedUpload) -> dict[str, str]:
    """Return the digests to compute: `hashlib`'s names by those of RFC 9530."""
    return {e.algorithm: preconditions.ALGORITHMS[e.algorithm] for e in admitted.expected}


def check_whole(upload: Upload, size: int) -> None:
    """See that a body that is here is not too large. Raises `Refusal`."""
    if upload.max_bytes is not None and size > upload.max_bytes:
        raise Refusal("too_large", f"the upload is larger than {upload.max_bytes} bytes")


def check_name(upload: Upload, headers: Mapping[str, str], *, exists: bool) -> None:
    """See that the name may be given. Raises `Refusal`."""
    preconditions.check_if_match(headers, exists=exists)
    if exists and upload.must_be_new:
        raise Refusal("already_exists", "If-None-Match: *, and the file exists")
    if exists and upload.on_conflict == "reject":
        raise Refusal("conflict", "the file exists, and existing files are not replaced here")


def verify(admitted: AdmittedUpload, computed: Mapping[str, bytes]) -> None:
    """Compare digests with those that were promised. Raises `Refusal`."""
    for expected in admitted.expected:
        if not hmac.compare_digest(computed[expected.algorithm], expected.value):
            raise Refusal(
                "digest_mismatch", f"the bytes received do not have the digest in {expected.header}"
            )
