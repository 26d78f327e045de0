"""Requests of tus 1.0.0 as operations on partial uploads. Pure.

Source: tus.io/protocols/resumable-upload, version 1.0.0. A header that the protocol has once is refused
where it is there twice: intermediaries might read the other one.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from gateway.domain.digests import SIZES
from gateway.endpoints.uploads.digests import TUS_CHECKSUM, ExpectedDigest, expected_digests
from gateway.endpoints.uploads.resumable import concatenation
from gateway.endpoints.uploads.resumable.draft import split_digests
from gateway.endpoints.uploads.resumable.operations import Append, BodyTerms, Creation
from gateway.endpoints.uploads.resumable.tus_metadata import read_tus_metadata
from gateway.errors import Refusal
from gateway.http.header_fields import Lines

VERSION: Final = "1.0.0"
PATCH_TYPE: Final = "application/offset+octet-stream"

CHECKSUM_ALGORITHMS: Final = ("sha1", *(name for name in SIZES if name != "sha1"))
"""The protocol requires sha1; its names are those of `domain.digests`."""

_METHOD_OVERRIDE: Final = "x-http-method-override"
_OVERRIDES: Final = frozenset({"PATCH", "DELETE"})

_NUMBER: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_DIGITS: Final = re.compile(r"[0-9]+", re.ASCII)
_CHECKSUM: Final = re.compile(r"([!-~]+) ([A-Za-z0-9+/=]+)")


def check_version(lines: Lines) -> None:
    """Refuse another version of the protocol. Raises `Refusal("unsupported_version")`."""
    if any(line.strip() != VERSION for line in lines.get("tus-resumable", ("",))):
        raise Refusal(
            "unsupported_version", f"the supported version of tus is {VERSION}", {"Tus-Version": VERSION}
        )


def effective_method(method: str, lines: Lines, *, is_upload: bool) -> str:
    """Return the method that a request stands for: only a POST to an upload stands for another one.

    Authorization and signatures are of the method that was sent. Raises `Refusal("bad_request")`.
    """
    override = _single(lines, _METHOD_OVERRIDE)
    if override is None or override == method:
        return method
    if method != "POST" or not is_upload or override not in _OVERRIDES:
        raise Refusal(
            "bad_request",
            "X-HTTP-Method-Override stands for PATCH or DELETE, in a POST to the URL of an upload",
        )
    return override


def read_creation(lines: Lines) -> Creation:
    """Read a request that creates an upload, with the first bytes of it or without. Raises `Refusal`."""
    length = _length(lines)
    is_final, concat = False, None
    if concat_lines := lines.get("upload-concat"):
        concat = concatenation.read_concat(concat_lines)
        is_final = concat is not None
    defers = _single(lines, "upload-defer-length")
    if defers not in {None, "1"}:
        raise Refusal("bad_request", "Upload-Defer-Length can only be 1")
    if (length is not None) + (defers is not None) + is_final != 1:
        raise Refusal(
            "bad_request",
            "send Upload-Length, or Upload-Defer-Length: 1; neither of them with Upload-Concat: final",
        )
    has_body = has_content(lines)
    if has_body:
        if is_final:
            raise Refusal("bad_request", "a file that is made of parts has no body of its own")
        _check_media_type(lines)
    metadata = read_tus_metadata(lines.get("upload-metadata", ()))
    of_body, of_file = _digests(lines)
    # Without bytes an empty file is whole at once, and a checksum is compared with nothing.
    terms = BodyTerms(digests=of_body) if has_body or length == 0 or of_body else None
    return Creation(
        protocol="tus",
        length=length,
        body=terms,
        filename=metadata.filename,
        content_type=metadata.content_type,
        metadata=metadata.file_metadata,
        metadata_text=metadata.text,
        digests=of_file,
        part_of_concat=bool(concat_lines) and not is_final,
        concat=concat,
    )


def read_append(lines: Lines) -> Append:
    """Read a request that appends to an upload. Raises `Refusal`."""
    _check_media_type(lines)
    offset = _number(lines, "upload-offset")
    if offset is None:
        raise Refusal("bad_request", "Upload-Offset must be the number of bytes that are here")
    of_body, of_file = _digests(lines)
    return Append(offset, BodyTerms(digests=of_body), _length(lines), of_file)


def has_content(lines: Lines) -> bool:
    """Tell whether a request has a body, or one whose length is not known (RFC 9112 section 6.3)."""
    return "transfer-encoding" in lines or any(
        line.strip() != "0" for line in lines.get("content-length", ())
    )


def _single(lines: Lines, name: str) -> str | None:
    values = lines.get(name, ())
    if len(values) > 1:
        raise Refusal("bad_request", f"{name} is there more than once")
    return values[0].strip() if values else None


def _length(lines: Lines) -> int | None:
    """Return the length of the whole file, if it is given. Raises `Refusal`."""
    text = _single(lines, "upload-length")
    if text is not None and _DIGITS.fullmatch(text) and not _NUMBER.fullmatch(text):
        raise Refusal("too_large", "Upload-Length has more digits than a file can have bytes")
    return _number(lines, "upload-length")


def _number(lines: Lines, name: str) -> int | None:
    text = _single(lines, name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise Refusal("bad_request", f"{name.title()} must be a number of bytes")
    return int(text)


def _check_media_type(lines: Lines) -> None:
    text = (_single(lines, "content-type") or "").partition(";")[0].strip().lower()
    if text != PATCH_TYPE:
        raise Refusal(
            "unsupported_media_type", f"the bytes of an upload need Content-Type: {PATCH_TYPE}"
        )
    if "content-encoding" in lines:
        raise Refusal(
            "unsupported_media_type",
            "the bytes of an upload are stored as they are: no Content-Encoding",
        )


def _digests(lines: Lines) -> tuple[tuple[ExpectedDigest, ...], tuple[ExpectedDigest, ...]]:
    """Return the digests of the body of this request, and those of the whole file. Raises `Refusal`."""
    of_file, of_body = split_digests(
        expected_digests({name: lines[name] for name in lines if name != TUS_CHECKSUM.lower()})
    )
    text = _single(lines, TUS_CHECKSUM.lower())
    return of_body if text is None else (*of_body, _checksum(text)), of_file


def _checksum(text: str) -> ExpectedDigest:
    parsed = _CHECKSUM.fullmatch(text)
    if parsed is None:
        raise Refusal("bad_digest", f"{TUS_CHECKSUM} must read `sha1 BASE64`")
    name = parsed[1]
    if name not in SIZES:
        raise Refusal(
            "bad_digest", f"{TUS_CHECKSUM}: the algorithms are {', '.join(CHECKSUM_ALGORITHMS)}"
        )
    try:
        value = base64.b64decode(parsed[2], validate=True)
    except binascii.Error:
        value = b""
    if len(value) != SIZES[name]:
        raise Refusal("bad_digest", f"{TUS_CHECKSUM}: not a {name} digest in base64")
    return ExpectedDigest(name, value, TUS_CHECKSUM)
