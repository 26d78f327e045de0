"""Refuses requests whose body is not the file itself: a part, an envelope, a copy. Pure.

Stored as they come, such bodies would be answered with a 2xx that is not true. All headers by which
clients say so stand here, with their sources.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from gateway.errors import Refusal
from gateway.http.header_fields import Lines
from gateway.http.structured_fields import parse_boolean

_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,19})-(-1|\d{1,19})/(\d{1,19})", re.ASCII)
"""The last byte of an empty file is -1 for curl."""
_LENGTH: Final = re.compile(r"\d{1,19}", re.ASCII)

PART_FIELDS: Final = frozenset(
    {
        # tus 1.0.0, with its extensions "creation" and "concatenation"
        "tus-resumable",
        "upload-offset",  # draft-ietf-httpbis-resumable-upload section 4.4, too
        "upload-defer-length",
        "upload-metadata",
        "upload-concat",
        "oc-chunked",  # ownCloud, "Chunked file upload"
        "x-content-range",  # nginx-upload-module, "Resumable uploads"
        "x-amz-write-offset-bytes",  # Amazon S3, PutObject in directory buckets
        "x-goog-upload-protocol",  # Google resumable uploads
        "x-goog-upload-command",
        "x-goog-upload-offset",
    }
)
"""Headers that only a request has whose body is a part of a file, or the beginning of one."""

PART_QUERIES: Final[Sequence[tuple[str, str]]] = (("uploadId", "partNumber"), ("comp", "blockid"))
"""Fields of a query that together mean a part: Amazon S3, UploadPart; Azure Blob Storage, Put Block."""

PART_TYPES: Final = frozenset({"application/partial-upload", "application/offset+octet-stream"})
"""Media types of parts: draft-ietf-httpbis-resumable-upload section 6, tus 1.0.0."""

COMPLETE_FIELDS: Final[Mapping[str, str]] = {"upload-complete": "?1", "upload-incomplete": "?0"}
"""Fields whose one value says that the body is the whole file: draft-ietf-httpbis-resumable-upload
section 4.2, and its version -01."""

LENGTH_FIELDS: Final = (
    "upload-length",  # draft-ietf-httpbis-resumable-upload section 4.1.3, tus 1.0.0
    "oc-total-length",  # ownCloud, "Chunked file upload"
    "x-expected-entity-length",  # WebDAV by macOS, for chunked bodies
    "x-amz-decoded-content-length",  # Amazon S3, "Signature Version 4": length without the framing
)
"""Fields that have the length of the whole file."""

UNSUPPORTED_FIELDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        (
            "x-amz-copy-source",  # Amazon S3, CopyObject
            "x-goog-copy-source",  # Google Cloud Storage, XML API
            "x-ms-copy-source",  # Azure Blob Storage, Copy Blob
            "x-copy-from",  # OpenStack Swift
            "x-object-manifest",
            "x-symlink-target",
            "x-checksum-deploy",  # Artifactory: the file by its checksum, without its bytes
        ),
        "files are not copied here: send the bytes",
    ),
    "x-amz-server-side-encryption-customer-key": "files are not encrypted with a client's key",
}
"""Headers of a PUT that asks for something else than to store its body as it is."""

RESUMABLE_FIELDS: Final = frozenset(
    {
        "tus-resumable",
        "upload-offset",
        "upload-defer-length",
        "upload-metadata",
        "upload-concat",
        "upload-complete",
        "upload-length",
        "content-range",
    }
)
"""Fields that a protocol of resumable uploads has read."""

AWS_CHUNKED: Final = "aws-chunked"
_PLAIN_TRANSFER: Final = frozenset({"7bit", "8bit", "binary"})
_CODING_FIELDS: Final = (
    "content-encoding",
    "x-amz-content-sha256",
    "x-amz-trailer",
    "x-ms-structured-body",
    "content-transfer-encoding",
)
_SIGNS: Final = frozenset(
    (
        *PART_FIELDS,
        *COMPLETE_FIELDS,
        *LENGTH_FIELDS,
        *UNSUPPORTED_FIELDS,
        *_CODING_FIELDS,
        "content-range",
    )
)


def check_resumable(lines: Lines, params: Mapping[str, list[str]], length: int | None) -> None:
    """Check that the body is the whole file or, as far as `RESUMABLE_FIELDS` say so, a part of it.

    `length` is that of the whole file, None if it is not known. Raises as `check_whole_file` does.
    """
    others = {name: texts for name, texts in lines.items() if name not in RESUMABLE_FIELDS}
    if any(
        text.partition(";")[0].strip().lower() in PART_TYPES for text in lines.get("content-type", ())
    ):
        del others["content-type"]
    check_whole_file(others, params, length)


def check_whole_file(lines: Lines, params: Mapping[str, list[str]], length: int | None) -> int | None:
    """Check that the body is the whole file; return the length that it must have in the end, if told.

    `length` is that of the body, None if it is chunked. Raises `Refusal`: `bad_range` for a part (RFC
    9110 section 14.5), `unsupported_media_type` for an envelope, `not_implemented` for a
    copy.
    """
    _check_type(lines)
    for pair in PART_QUERIES:
        if params and all(name in params for name in pair):
            raise _part(" and ".join(pair))
    if _SIGNS.isdisjoint(lines):
        return length  # nearly all uploads
    _check_coding(lines)
    for name in lines.keys() & UNSUPPORTED_FIELDS.keys():
        raise Refusal("not_implemented", f"{name}: {UNSUPPORTED_FIELDS[name]}")
    for name in lines.keys() & PART_FIELDS:
        raise _part(name)
    for name in lines.keys() & COMPLETE_FIELDS.keys():
        if name == "upload-complete" and len(lines[name]) == 1 and parse_boolean(lines[name]) is None:
            continue  # no Boolean: as if it were not sent (section 4.1 of the draft)
        if any(text.partition(";")[0].strip() != COMPLETE_FIELDS[name] for text in lines[name]):
            raise _part(name)
    return _whole_length(lines, length)


def _check_type(lines: Lines) -> None:
    for text in lines.get("content-type", ()):
        media_type = text.partition(";")[0].strip().lower()
        if media_type in PART_TYPES:
            raise _part(f"Content-Type: {media_type}")
        # Without a boundary it is no envelope of this request (RFC 2046 section 5.1.1).
        if media_type == "multipart/form-data" or (
            media_type.startswith("multipart/") and "boundary=" in text.lower()
        ):
            raise Refusal(
                "unsupported_media_type",
                "the body is a form (multipart), not the file itself: a form is posted"
                " (`curl -F file=@FILE URL`, in Python `requests.post(url, files=...)`), a PUT sends the"
                " file (`curl -T FILE URL`, `requests.put(url, data=file)`)",
            )


def _check_coding(lines: Lines) -> None:
    codings = ",".join(lines.get("content-encoding", ())).lower().split(",")
    hashes = [text.strip().upper() for text in lines.get("x-amz-content-sha256", ())]
    if (
        AWS_CHUNKED in map(str.strip, codings)
        or "x-amz-trailer" in lines
        or any(text.startswith("STREAMING-") for text in hashes)
    ):
        raise Refusal(
            "unsupported_media_type",
            "the body is framed as aws-chunked, which is not decoded here: set"
            " AWS_REQUEST_CHECKSUM_CALCULATION=when_required (rclone:"
            " --s3-use-data-integrity-protections=false), or use `curl -T FILE URL`",
        )
    if "x-ms-structured-body" in lines:
        raise Refusal(
            "unsupported_media_type", "structured bodies are not decoded: send the file itself"
        )
    for text in lines.get("content-transfer-encoding", ()):
        if text.strip().lower() not in _PLAIN_TRANSFER:
            raise Refusal(
                "unsupported_media_type",
                "Content-Transfer-Encoding is not decoded: send the file itself, in binary",
            )


def _whole_length(lines: Lines, length: int | None) -> int | None:
    """Return the length of the whole file where a header has it. Raises `Refusal("bad_range")`."""
    whole = length
    for text in lines.get("content-range", ()):
        whole = _length_of_range(text, whole)
    for name in LENGTH_FIELDS:
        for text in lines.get(name, ()):
            if not _LENGTH.fullmatch(text.strip()):
                raise Refusal("bad_range", f"{name} must be a number of bytes")
            whole = _same_length(name, int(text), whole)
    return whole


def _length_of_range(text: str, length: int | None) -> int:
    """Accept `Content-Range` only for the whole file (what `curl -C -` sends at first)."""
    parsed = _CONTENT_RANGE.fullmatch(text.strip())
    if parsed is None:
        raise Refusal(
            "bad_range", "Content-Range must read `bytes FIRST-LAST/TOTAL` (curl: leave `-C` out)"
        )
    first, last, total = map(int, parsed.groups())
    if first != 0 or last + 1 != total:
        raise _part("Content-Range")
    return _same_length("Content-Range", total, length)


def _same_length(name: str, whole: int, length: int | None) -> int:
    if length is not None and whole != length:
        raise Refusal(
            "bad_range", f"{name} has another length than the body: only a whole file is taken"
        )
    return whole


def _part(sign: str) -> Refusal:
    return Refusal(
        "bad_range", f"only a whole file can be uploaded, not a part of one or its beginning ({sign})"
    )
