"""S3 room: into which parts a body is cut, where it goes, and what the object says of itself.

One rule: all parts but the last are of one size (some stores demand it), and the declared length
fits into as many as S3 takes. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.errors import Refusal
from gateway.storage.s3.header_encoding import encoded

OWNER: Final = "gateway-upload-id"
"""The metadata name under which an object says which upload it is."""

MARK: Final = "gateway-upload-mark"
"""That of the signature by which every gateway of the installation knows that it is true."""

PART_BYTES: Final = 8 << 20
"""A part, unless the declared length needs larger ones; what is smaller is stored in one request."""

MAX_PARTS: Final = 10_000
MAX_PART_BYTES: Final = 5 << 30
"""Amazon S3 user guide, "Multipart upload limits"."""

MAX_BUFFERED_PART_BYTES: Final = 16 << 20
"""Larger parts, those of files beyond 156 GiB, always stream."""

UNRESERVED_BYTES: Final = 64 << 10
"""What a body may hold without asking: small ones are never kept waiting by large ones."""

_MIB: Final = 1 << 20


def part_bytes(size: int | None) -> int:
    """Return the size of the parts of a body of `size` bytes; None: not declared.

    Raises `Refusal("too_large")` for what no multipart upload takes.
    """
    if size is None:
        return PART_BYTES
    part = max(PART_BYTES, -(-size // (MAX_PARTS * _MIB)) * _MIB)
    if part > MAX_PART_BYTES:
        raise Refusal("too_large", f"the storage takes {MAX_PARTS * MAX_PART_BYTES} bytes at the most")
    return part


@dataclass(slots=True, frozen=True)
class ObjectTarget:
    """Where a body goes: its path, its key, what the object is to say, the upload that it is."""

    path: str
    key: str
    upload_id: str
    said: Mapping[str, Any]


def put_object_params(
    upload_id: str, mark: str, mime: str, metadata: Mapping[str, str], headers: Mapping[str, str]
) -> dict[str, Any]:
    """Return what an object is to say of itself, as the client names it.

    `headers` are the request's, in lower case; of them `cache-control` and `content-encoding` stay.
    """
    own = {OWNER: upload_id, MARK: mark}
    said: dict[str, Any] = {"ContentType": mime, "Metadata": {**encoded(metadata), **own}}
    if "cache-control" in headers:
        said["CacheControl"] = headers["cache-control"]
    if "content-encoding" in headers:
        said["ContentEncoding"] = headers["content-encoding"]
    return said


def user_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return what somebody gave an object for metadata: without what the gateway says of its own."""
    return {name: value for name, value in metadata.items() if name not in {OWNER, MARK}}
