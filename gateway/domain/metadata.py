"""Metadata of a stored file: short texts under names, as object stores have them.

One check serves request headers, signed URLs and scripts, so that every storage can keep what passes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from gateway.domain.paths import CONTROL_CHARACTER
from gateway.errors import Refusal

METADATA_PREFIX: Final = "x-amz-meta-"
"""Lower-case prefix of request headers that are metadata. Source: Amazon S3 API reference, PutObject."""

MAX_METADATA_BYTES: Final = 2048
"""Names and values together, as UTF-8. Source: Amazon S3 user guide, "Working with object metadata"."""

MAX_METADATA_NAME: Final = 100
"""Characters of one name."""

_NAME: Final = re.compile(rf"[a-z0-9-]{{1,{MAX_METADATA_NAME}}}")
_NOT_PLAIN_NAME: Final = re.compile(r"[^A-Za-z0-9 !#$&'()+,.;=@^_`{}~\[\]-]")


def normalize_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return metadata with names in lower case. Raises `Refusal("bad_request")`."""
    normalized: dict[str, str] = {}
    for name, value in metadata.items():
        lowered = name.lower()
        if not _NAME.fullmatch(lowered):
            raise Refusal(
                "bad_request",
                f"metadata names have 1 to {MAX_METADATA_NAME} of a-z, 0-9 and hyphens,"
                f" not {name[:MAX_METADATA_NAME]!r}",
            )
        if lowered in normalized:
            raise Refusal("bad_request", f"the metadata {lowered!r} is given twice")
        if not isinstance(value, str) or not _is_plain_text(value):
            raise Refusal(
                "bad_request",
                f"the metadata {lowered!r} must be one line of Unicode text without control characters",
            )
        normalized[lowered] = value
    size = sum(len(name) + len(value.encode()) for name, value in normalized.items())
    if size > MAX_METADATA_BYTES:
        raise Refusal(
            "bad_request",
            f"metadata has {size} bytes, names and values together; at most {MAX_METADATA_BYTES}"
            " are allowed",
        )
    return normalized


def can_be_metadata(name: str, value: str) -> bool:
    """Tell whether a pair may be metadata, apart from its size."""
    return _NAME.fullmatch(name.lower()) is not None and _is_plain_text(value)


def _is_plain_text(value: str) -> bool:
    return CONTROL_CHARACTER.search(value) is None


def metadata_of_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata among request headers. Raises `Refusal("bad_request")`."""
    if METADATA_PREFIX not in "\n".join(headers).lower():
        return {}  # nearly all requests
    length = len(METADATA_PREFIX)
    metadata = {
        name[length:]: headers[name] for name in headers if name[:length].lower() == METADATA_PREFIX
    }
    return normalize_metadata(metadata)


def content_disposition(filename: str) -> str:
    """Return the `Content-Disposition` that makes a browser save under a name (RFC 6266, RFC 8187).

    Clients without `filename*` get the name in plain ASCII.
    """
    plain = _NOT_PLAIN_NAME.sub("_", filename)
    exact = quote(filename, safe="", errors="replace")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}"
