"""Parses and checks the conditions of a PUT and the length of its body. Pure.

Conditions that are not supported are refused, never ignored: a client that sends one relies on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.errors import Refusal
from gateway.http.header_fields import Lines

_NOT_COMPARED: Final = (
    "if",  # RFC 4918 section 10.4: locks, which nobody has here
    "if-unmodified-since",  # RFC 9110 section 13.1.4
    "x-goog-if-generation-match",  # Google Cloud Storage, XML API
    "x-goog-if-metageneration-match",
)
"""Conditions that are never met. `If-Modified-Since` and `If-Range` mean nothing on a PUT (RFC 9110
sections 13.1.3 and 13.1.5)."""

_CONDITIONS: Final = frozenset({*_NOT_COMPARED, "if-none-match", "if-match"})


def declared_length(headers: Mapping[str, str]) -> int | None:
    """Return the declared size in bytes, None for a chunked body.

    Raises `Refusal("length_required")` where there is neither: an empty file would be a guess
    (RFC 9110 section 15.5.12); `bad_request` for another transfer coding, which would have to be
    decoded first (RFC 9112 section 6.1).
    """
    coding = headers.get("Transfer-Encoding")
    if coding is not None:
        if coding.strip().lower() != "chunked":
            raise Refusal("bad_request", "the only supported transfer coding is chunked")
        return None
    length = headers.get("Content-Length")
    if length is None:
        raise Refusal("length_required", "send Content-Length, or Transfer-Encoding: chunked")
    return int(length)


def check_conditions(lines: Lines) -> None:
    """Refuse conditions that are not compared here. Raises `Refusal("precondition_failed")`."""
    if _CONDITIONS.isdisjoint(lines):
        return  # nearly all uploads
    for name in _NOT_COMPARED:
        if name in lines:
            raise Refusal(
                "precondition_failed",
                f"the condition {name.title()} is not supported here: send the request without it",
            )
    if any(line.strip() != "*" for line in lines.get("if-none-match", ())):
        # The entity tag of a file is not compared before it is replaced.
        raise Refusal("precondition_failed", "the only supported If-None-Match of an upload is *")
    if any(line.strip() != "*" for line in lines.get("if-match", ())):
        raise Refusal("precondition_failed", "If-Match is not met")
