"""What is kept of a file beside its bytes: small texts under names, as object stores have.

One rule: whoever brings metadata in (headers, signed URLs, scripts) has it checked here, so that
every storage can keep it. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from gateway.errors import Refusal

HEADER: Final = "x-amz-meta-"
"""How request headers that are metadata begin. Source: Amazon S3 API reference, PutObject."""

MAX_BYTES: Final = 2048
"""Names and values together, as UTF-8. Source: Amazon S3 user guide, "Working with object metadata"."""

_NAME: Final = re.compile(r"[a-z0-9-]+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def check(said: Mapping[str, str]) -> dict[str, str]:
    """Return metadata with names in lower case. Raises `Refusal("bad_request")`."""
    found: dict[str, str] = {}
    for name, value in said.items():
        lowered = name.lower()
        if not _NAME.fullmatch(lowered):
            raise Refusal("bad_request", "names of metadata are made of a-z, 0-9 and hyphens")
        if lowered in found:
            raise Refusal("bad_request", f"the metadata {lowered!r} is given twice")
        if _CONTROL.search(value):
            raise Refusal("bad_request", f"the metadata {lowered!r} holds a control character")
        found[lowered] = value
    try:
        size = sum(len(name) + len(value.encode()) for name, value in found.items())
    except UnicodeEncodeError:
        raise Refusal("bad_request", "metadata must be Unicode text") from None
    if size > MAX_BYTES:
        raise Refusal("bad_request", f"there are {size} bytes of metadata, {MAX_BYTES} are allowed")
    return found


def of_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata among request headers, each name given once. Raises `Refusal`."""
    length = len(HEADER)
    said = {n[length:]: headers[n] for n in headers if n[:length].lower() == HEADER}
    return check(said) if said else {}
