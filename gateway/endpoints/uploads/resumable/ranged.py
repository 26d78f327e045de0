"""PUT that goes on after a break: `Content-Range`, `?resume=KEY`, and HEAD that tells the offset. Pure.

RFC 9110 section 14.5 leaves partial PUT to an agreement; this is ours. A range is relative to what the
same client has sent of the file, never to a published one. Without a key it reaches the end of the file:
other agreements write into the file that is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.auth.signed_urls import StoredUrls
from gateway.endpoints.uploads.digests import expected_digests
from gateway.endpoints.uploads.resumable.draft import split_digests, wanted_digests
from gateway.endpoints.uploads.resumable.operations import (
    Append,
    BodyTerms,
    Creation,
    PartialRefusal,
    PartialResult,
    mismatch,
)
from gateway.endpoints.uploads.stored_response import stored_response
from gateway.errors import Refusal
from gateway.http.header_fields import Lines
from gateway.http.responses import Response, json_response, refusal_response

KEY_PARAMETER: Final = "resume"
MIN_KEY_CHARACTERS: Final = 16
MAX_KEY_CHARACTERS: Final = 64
BEGIN_PARAMETER: Final = "begin"
BEGIN_ONCE: Final = "once"
"""What the key has begun is not begun anew by this request.

An HTTP client may send a request again by itself (RFC 9110 section 9.2.2). Browsers do it where a
connection that they have used before ends without a response: two processes stored the file twice."""
NO_KEY: Final = ""
"""The key of requests that have none."""

_RANGE: Final = re.compile(r"bytes (\d{1,15})-(-1|\d{1,15})/(\d{1,15})", re.ASCII)
"""The last byte of an empty file is -1 for curl (7.88)."""

_OTHER_PROTOCOLS: Final = frozenset(
    {"upload-complete", "upload-concat", "upload-defer-length", "upload-metadata", "upload-offset"}
)
"""Fields by which other protocols say which part of a file a body is."""


@dataclass(slots=True, frozen=True)
class SentRange:
    """The bytes from `first` up to `end`, exclusive, of a file of `length` bytes."""

    first: int
    end: int
    length: int

    @property
    def reaches_end(self) -> bool:
        """Whether nothing follows."""
        return self.end == self.length


def resumes(lines: Lines, params: Mapping[str, Sequence[str]]) -> bool:
    """Tell whether a PUT may go on after a break."""
    return "content-range" in lines or KEY_PARAMETER in params


def read_key(params: Mapping[str, Sequence[str]]) -> str:
    """Return the key that tells uploads of one client to one path apart. Raises `Refusal`."""
    if KEY_PARAMETER not in params:
        return NO_KEY
    keys = params[KEY_PARAMETER]
    if len(keys) != 1 or not MIN_KEY_CHARACTERS <= len(keys[0]) <= MAX_KEY_CHARACTERS:
        raise Refusal(
            "bad_request",
            f"{KEY_PARAMETER} is one text of {MIN_KEY_CHARACTERS} to {MAX_KEY_CHARACTERS} characters",
        )
    return keys[0]


def begins_once(params: Mapping[str, Sequence[str]], key: str) -> bool:
    """Tell whether a PUT begins no upload where its key has one already. Raises `Refusal`."""
    if key == NO_KEY or BEGIN_PARAMETER not in params:
        return False
    if list(params[BEGIN_PARAMETER]) != [BEGIN_ONCE]:
        raise Refusal("bad_request", f"{BEGIN_PARAMETER} of an upload with a key is {BEGIN_ONCE}")
    return True


def check_not_begun(begun: PartialResult | None) -> None:
    """Refuse to begin anew what a key has begun already. Raises `PartialRefusal`."""
    if begun is not None and (begun.is_complete or begun.offset > 0):
        raise mismatch(begun)


def read_put(lines: Lines, key: str, content_length: int | None) -> Creation | Append:
    """Return what a PUT asks for: a new upload, or to go on with one.

    `content_length` is None for a chunked body. Raises `Refusal`.
    """
    for name in lines.keys() & _OTHER_PROTOCOLS:
        raise Refusal("bad_range", f"{name.title()} does not go together with a range or with a key")
    sent = _read_range(lines)
    if sent is not None and not sent.reaches_end and key == NO_KEY:
        raise _bad_range()
    length = content_length if sent is None else sent.length
    of_whole, of_body = split_digests(expected_digests(lines))
    # Where the length is known it says what is the end: a chunked body may stop before.
    terms = BodyTerms(True if length is None else None, of_body, wanted_digests(lines))
    if sent is not None and content_length not in {None, sent.end - sent.first}:
        raise Refusal("bad_range", "Content-Range and Content-Length contradict each other")
    if sent is None or sent.first == 0:
        return Creation("ranged", length, terms, digests=of_whole, resume_key=key)
    return Append(sent.first, terms, sent.length, of_whole)


def is_piece(lines: Lines) -> bool:
    """Tell whether a PUT brings a range behind which more follows."""
    sent = _read_range(lines)
    return sent is not None and not sent.reaches_end


def _read_range(lines: Lines) -> SentRange | None:
    if "content-range" not in lines:
        return None
    texts = lines["content-range"]
    match = _RANGE.fullmatch(texts[0].strip()) if len(texts) == 1 else None
    if match is None:
        raise Refusal("bad_range", "Content-Range must read `bytes FIRST-LAST/LENGTH`")
    first, last, length = map(int, match.groups())
    # curl -C N -T -, which does not know the length, says N-(N-2)/(N-1).
    if last >= length or first > last + 1 or (first == last + 1 and first != length):
        raise _bad_range()
    return SentRange(first, last + 1, length)


def _bad_range() -> Refusal:
    return Refusal(
        "bad_range",
        "Content-Range must reach the end of the file: `bytes FIRST-LAST/LENGTH`, LAST being"
        " LENGTH - 1 (with curl: `tail -c +N FILE | curl -T - -H 'Content-Range: ...'`); with a key"
        " (`?resume=KEY`) it may end before",
    )


# -- responses


def offset_fields(result: PartialResult, key: str) -> dict[str, str]:
    """Return what HEAD tells of an upload, beside the fields of the file.

    The offset is less than the length: curl has no request for a file of which nothing is missing. A
    complete upload without a key has none: the same client may mean another file of this size.
    """
    fields = {
        "Upload-Complete": "?1" if result.is_complete else "?0",
        "Cache-Control": "no-store",
        "Link": f'</-/uploads/{result.upload_id}>; rel="status"',
    }
    if result.length is not None:
        fields["Upload-Length"] = str(result.length)
    if not result.is_complete or key != NO_KEY:
        fields["Upload-Offset"] = str(_offset_before_end(result))
    return fields


def _offset_before_end(result: PartialResult) -> int:
    return result.offset if result.length is None else max(0, min(result.offset, result.length - 1))


def put_response(result: PartialResult, urls: StoredUrls) -> Response:
    """Return the response to a PUT: as to any other, and that the upload is complete."""
    if not result.is_complete:
        raise PartialRefusal("incomplete_body", "the body ended before the end of the file", result)
    if result.stored is not None:
        status, headers, content = stored_response(result.stored, urls)
        response = Response(status=status, headers=headers, body=content)
    else:  # an earlier request completed it, and its response was lost
        response = json_response({"upload_id": result.upload_id, "bytes": result.offset})
        response.headers["Location"] = f"/-/uploads/{result.upload_id}"
    response.headers["Upload-Complete"] = "?1"
    return response


def piece_response(result: PartialResult, key: str) -> Response:
    """Return the response to a range behind which more follows: it is on stable storage."""
    response = Response(status=204)
    response.headers.update(offset_fields(result, key))
    return response


def repeated_end(refusal: Refusal, append: Append, key: str) -> PartialResult | None:
    """Return the result of an upload that an earlier request completed, if this one repeats its end.

    Its answer may be lost. Only a key says that it is the same file.
    """
    result = refusal.result if isinstance(refusal, PartialRefusal) else None
    if result is None or not result.is_complete or key == NO_KEY or append.length != result.length:
        return None
    return result if append.offset in {result.offset - 1, result.offset} else None


def as_mismatch(refusal: Refusal) -> Refusal:
    """Return 409 for another length than that of the upload: the range is of another file."""
    if not isinstance(refusal, PartialRefusal) or refusal.code != "inconsistent_length":
        return refusal
    return PartialRefusal("mismatching_offset", refusal.message, refusal.result, keeps=refusal.keeps)


def refused_response(refusal: Refusal, key: str) -> Response:
    """Return the response to a refused PUT, with what can be told of its upload."""
    response = refusal_response(refusal)
    if isinstance(refusal, PartialRefusal) and refusal.result is not None and refusal.keeps:
        response.headers.update(offset_fields(refusal.result, key))
    return response
