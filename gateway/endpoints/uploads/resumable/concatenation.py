"""`Upload-Concat` of tus 1.0.0: an upload is a part of a file, or a file made of parts. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from gateway.domain import paths
from gateway.domain.partial import CONCAT_FIELD, UPLOAD_QUERY
from gateway.endpoints.uploads.resumable.operations import Concatenation
from gateway.errors import Refusal

PARTIAL: Final = "partial"

MAX_CONCAT_PARTS: Final = 1000
"""Parts of one file; the header that lists them is bounded by `--max-header-bytes` too."""

_FINAL: Final = "final;"
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def read_concat(lines: Sequence[str]) -> Concatenation | None:
    """Read the lines of `Upload-Concat`; None for `partial`. Raises `Refusal("bad_request")`."""
    text = lines[0].strip() if len(lines) == 1 else ""
    if text == PARTIAL:
        return None
    if not text.startswith(_FINAL):
        raise Refusal(
            "bad_request", f"{CONCAT_FIELD} must read `partial`, or `final;` and the URLs of parts"
        )
    urls = text.removeprefix(_FINAL).split()
    if not 1 <= len(urls) <= MAX_CONCAT_PARTS:
        raise Refusal("bad_request", f"{CONCAT_FIELD}: a file has 1 to {MAX_CONCAT_PARTS} parts")
    parts = [_reference(url, position) for position, url in enumerate(urls, start=1)]
    return Concatenation(parts, text)


def _reference(url: str, position: int) -> str:
    """Return the reference of a part: that in its URL, or its name where this is a UUID of ours.

    The host is not compared: behind proxies it has many names, and the reference is a secret.
    """
    try:
        split = urlsplit(url)
        references = paths.parse_query(split.query).get(UPLOAD_QUERY, [])
    except (ValueError, Refusal):
        raise _no_upload(position) from None
    name = split.path.rpartition("/")[2]
    if len(references) == 1 and references[0]:
        return references[0]
    if not references and is_part_name(name):
        return name
    raise _no_upload(position)


def is_part_name(reference: str) -> bool:
    """Tell whether a reference is a name that the gateway gave to a part, without a secret.

    122 of its bits are random.
    """
    return _UUID.fullmatch(reference) is not None


def _no_upload(position: int) -> Refusal:
    return Refusal("bad_request", f"{CONCAT_FIELD}: URL {position} is not the `Location` of an upload")
