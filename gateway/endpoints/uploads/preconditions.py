"""Parses and checks the headers of a PUT. Pure.

Conditions that are not supported are refused, never ignored: a client that sends one relies on it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.errors import Refusal

_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")
_DIGEST: Final = re.compile(r"([a-z][a-z0-9*_.-]*)=:([A-Za-z0-9+/=]*):(?:;.*)?")

ALGORITHMS: Final[Mapping[str, str]] = {"sha-256": "sha256", "sha-512": "sha512", "md5": "md5"}
"""Digest algorithms: the names of RFC 9530 (section 5), and those of `hashlib`."""

_SIZES: Final[Mapping[str, int]] = {"sha-256": 32, "sha-512": 64, "md5": 16}


@dataclass(slots=True, frozen=True)
class ExpectedDigest:
    """A digest that the client sent: `algorithm` as RFC 9530 names it, and the name of the header."""

    algorithm: str
    value: bytes
    header: str


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


def check_range(headers: Mapping[str, str], length: int | None) -> None:
    """Accept `Content-Range` only for the whole file (what `curl -C -` sends at first).

    Raises `Refusal("bad_range")`: a part must never be stored as a whole (RFC 9110 section 14.5).
    """
    text = headers.get("Content-Range")
    if text is None:
        return
    parsed = _CONTENT_RANGE.fullmatch(text.strip())
    if parsed is None:
        raise Refusal("bad_range", "Content-Range must read `bytes FIRST-LAST/TOTAL`")
    first, last, total = map(int, parsed.groups())
    whole = first == 0 and last + 1 == total
    if not whole or (length is not None and length != total):
        raise Refusal("bad_range", "only a whole file can be uploaded, not a part of one")


def expected_digests(headers: Mapping[str, str]) -> tuple[ExpectedDigest, ...]:
    """Return every digest that the body must have: Content-MD5 (RFC 1864) and RFC 9530's fields.

    Raises `Refusal("bad_digest")` for a malformed one, or when no algorithm is supported (an
    unsupported one beside a supported one may be ignored, RFC 9530 section 2).
    """
    digests = [
        ExpectedDigest("md5", _decoded(line, "md5", "Content-MD5"), "Content-MD5")
        for line in _lines(headers, "Content-MD5")
    ]
    for header in ("Content-Digest", "Repr-Digest"):
        if lines := _lines(headers, header):
            digests.extend(_members(", ".join(lines), header))
    return tuple(digests)


def _lines(headers: Mapping[str, str], name: str) -> list[str]:
    """Return every line of a field: together they are one list (RFC 9110 section 5.3)."""
    if name not in headers:
        return []
    return [value for field, value in headers.items() if field.lower() == name.lower()]


def _members(text: str, header: str) -> list[ExpectedDigest]:
    digests = []
    for member in text.split(","):
        parsed = _DIGEST.fullmatch(member.strip())
        if parsed is None:
            raise Refusal("bad_digest", f"{header} must read `sha-256=:BASE64:`")
        algorithm, encoded = parsed.groups()
        if algorithm in ALGORITHMS:
            digests.append(ExpectedDigest(algorithm, _decoded(encoded, algorithm, header), header))
    if not digests:
        raise Refusal("bad_digest", f"{header}: supported algorithms are {', '.join(ALGORITHMS)}")
    return digests


def _decoded(encoded: str, algorithm: str, header: str) -> bytes:
    try:
        value = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        value = b""
    if len(value) != _SIZES[algorithm]:
        raise Refusal("bad_digest", f"{header}: not a base64 {algorithm} digest")
    return value


def must_be_new(headers: Mapping[str, str]) -> bool:
    """Tell whether `If-None-Match: *` forbids replacing. Entity tags never match: PUT compares none."""
    return any(line.strip() == "*" for line in _lines(headers, "If-None-Match"))


def must_exist(headers: Mapping[str, str]) -> bool:
    """Tell whether `If-Match: *` requires a file (RFC 9110 section 13.1.1).

    Raises `Refusal("precondition_failed")` for an entity tag: none ever matches.
    """
    conditions = _lines(headers, "If-Match")
    if any(line.strip() != "*" for line in conditions):
        raise Refusal("precondition_failed", "If-Match is not met")
    return bool(conditions)


def digest_field(digests: Mapping[str, str]) -> str:
    """Return digests (base64 by algorithm) as one RFC 9530 field value."""
    return ", ".join(f"{name}=:{value}:" for name, value in digests.items())
