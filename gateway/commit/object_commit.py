"""One upload on its way into a bucket: what is known of it, and what it may not do.

One rule: plain data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from gateway.commit.writer import WriteMetadata
from gateway.domain import paths
from gateway.domain.model import Upload
from gateway.errors import Refusal
from gateway.events.pending_uploads import PendingUpload
from gateway.storage.s3.parts import put_object_params
from gateway.storage.s3.upload import MultipartUpload

Mark = Callable[[str, str], str]
"""Gives an upload id and a path the mark by which the gateways know what they stored."""

_NOTHING: Final = PendingUpload("", "", {}, ())


@dataclass(slots=True)
class ObjectCommit:
    """One upload that is being committed."""

    upload: Upload
    body: MultipartUpload
    deed: WriteMetadata
    pending: PendingUpload = _NOTHING

    @property
    def new(self) -> bool:
        """Whether it may replace nothing."""
        return self.upload.must_be_new or self.upload.on_conflict != "replace"

    @property
    def asked(self) -> str:
        """The path that was asked for."""
        return "/" + "/".join(paths.check(self.upload.path))


def said(upload: Upload, mime: str, mark: str) -> dict[str, Any]:
    """Return what the object says of itself; a signed URL alone may have said how long it is fresh."""
    headers = {name.lower(): value for name, value in upload.headers.items()}
    if upload.grant is not None:
        headers.pop("cache-control", None)
        if upload.grant.cache_control:
            headers["cache-control"] = upload.grant.cache_control
    return put_object_params(upload.id, mark, mime, upload.metadata, headers)


def taken(upload: Upload) -> Refusal:
    """Return why there is something that may not be replaced."""
    if upload.must_be_new:
        return Refusal("already_exists", "If-None-Match: *, and the file exists")
    return Refusal("conflict", "the file exists, and existing files are not replaced here")
