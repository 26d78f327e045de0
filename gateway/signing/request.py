"""Compares the headers of a request with what its signed URL allows. Pure.

What was signed and not sent is refused, and so is what was sent and contradicts what was signed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from gateway.domain.grant import BODY_METHODS, Grant
from gateway.domain.metadata import METADATA_PREFIX
from gateway.errors import Refusal

_LENGTH: Final = re.compile(r"[0-9]{1,18}", re.ASCII)


def reject_mismatch(grant: Grant, headers: Mapping[str, str]) -> None:
    """Raise Refusal `not_granted` for another request than the URL was signed for.

    The Content-Type is the very text that was signed, once. An exact length needs that Content-Length;
    a greatest one admits a body without a length, which is counted while it is received.
    """
    lengths = _values(headers, "content-length")
    if grant.content_type is not None and _values(headers, "content-type") != [grant.content_type]:
        raise _not_granted(f"its Content-Type must be {grant.content_type}")
    if grant.length is not None and lengths != [str(grant.length)]:
        raise _not_granted(f"its Content-Length must be {grant.length}")
    if grant.max_length is not None and any(_above(text, grant.max_length) for text in lengths):
        raise _not_granted(f"its body may have {grant.max_length} bytes")
    if grant.method not in BODY_METHODS:
        return
    for name, value in headers.items():
        lowered = name.lower()
        if lowered.startswith(METADATA_PREFIX):
            signed = grant.metadata.get(lowered.removeprefix(METADATA_PREFIX))
            if signed is None or _text(value) != signed.strip(" \t"):
                raise _not_granted("its metadata is that of the URL, and no other")


def reject_unenforceable(grant: Grant, headers: Mapping[str, str]) -> None:
    """Raise Refusal `not_granted` for terms that only an endpoint that stores files can enforce."""
    uncounted = grant.max_body_bytes is not None and not _values(headers, "content-length")
    if uncounted or grant.once is not None or grant.on_conflict is not None or grant.metadata:
        raise _not_granted("its terms apply to stored files only")


def _above(length: str, limit: int) -> bool:
    return not _LENGTH.fullmatch(length) or int(length) > limit


def _values(headers: Mapping[str, str], name: str) -> list[str]:
    """Return every line of a header: a second one must not hide the first."""
    return [value.strip(" \t") for key, value in headers.items() if key.lower() == name]


def _text(value: str) -> str:
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace").strip(" \t")


def _not_granted(reason: str) -> Refusal:
    return Refusal("not_granted", f"this URL was signed for another request: {reason}")
