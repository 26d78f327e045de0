"""The IETF draft, Resumable Uploads for HTTP: requests to operations, results to responses. Pure.

Source: draft-ietf-httpbis-resumable-upload, interop versions 5 (-03) to 10 (-13). One response serves
all of them; what differs is in `Interop`. A request without a known version is served as the newest
draft says. Earlier versions are not served: their clients send the whole file in one request.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Final

from gateway.auth.signed_urls import StoredUrls
from gateway.domain.digests import digest_field
from gateway.endpoints.uploads.digests import NAMES, ExpectedDigest, expected_digests
from gateway.endpoints.uploads.resumable.operations import (
    Append,
    BodyTerms,
    Creation,
    PartialRefusal,
    PartialResult,
    UploadLimits,
)
from gateway.endpoints.uploads.stored_response import stored_response
from gateway.errors import Refusal
from gateway.http.header_fields import Lines, filename_of
from gateway.http.responses import Response, problem_response, refusal_response
from gateway.http.structured_fields import parse_boolean, parse_integer, parse_integers

INTEROP_FIELD: Final = "Upload-Draft-Interop-Version"
INTEROP_VERSIONS: Final = range(5, 11)
LAST_IMPLICIT: Final = 6
"""Up to this version an upload may complete by its length, and an append without `Upload-Complete`
is the last one; an incomplete append is answered 201."""

ANY_TYPE: Final = 5
"""The version that has no media type of its own for appends."""

PARTIAL_TYPE: Final = "application/partial-upload"
RESOURCE_METHODS: Final = "HEAD, GET, PATCH, DELETE, OPTIONS"
"""The methods of an upload resource."""

_PROBLEMS: Final[Mapping[str, tuple[str, str]]] = {
    "mismatching_offset": ("mismatching-upload-offset", "offset from request does not match"),
    "inconsistent_length": ("inconsistent-upload-length", "inconsistent upload length values"),
}
"""The problem types of the draft, and their titles, by the codes of our table."""

_PROBLEM_TYPES: Final = "https://iana.org/assignments/http-problem-types#"
_OPEN_ENDED: Final = frozenset({"length_exceeded", "inconsistent_length"})
"""Refusals of ours, not of the target: the upload does not count as complete."""

_OF_WHOLE: Final = ("repr-digest", "digest", "etag", "x-checksum-", "oc-checksum")
"""Fields, or their beginnings, whose digest is that of the file. Others are of the request's content
(RFC 9530 sections 2 and 3; RFC 3230)."""


@dataclass(slots=True, frozen=True)
class Interop:
    """The version that a client speaks; None where it says none that is known."""

    version: int | None

    @classmethod
    def read(cls, lines: Lines) -> Interop:
        """Return the version of a request."""
        version = parse_integer(lines.get(INTEROP_FIELD.lower(), ()))
        return cls(version if version in INTEROP_VERSIONS else None)

    @property
    def is_implicit(self) -> bool:
        """Whether the length alone may complete an upload."""
        return self.version is not None and self.version <= LAST_IMPLICIT

    @property
    def takes_any_type(self) -> bool:
        """Whether an append may have any media type."""
        return self.version == ANY_TYPE


def creates_upload(lines: Lines) -> bool:
    """Tell whether a POST or PUT creates an upload. A value that is no Boolean is ignored (4.1.1)."""
    return parse_boolean(lines.get("upload-complete", ())) is not None


def read_creation(lines: Lines, interop: Interop, content_length: int | None) -> Creation:
    """Return what a POST or PUT with `Upload-Complete` asks for (section 4.2). Raises `Refusal`.

    `content_length` is None for a chunked body.
    """
    if "upload-offset" in lines:
        raise Refusal("bad_request", "Upload-Offset is for PATCH: a new upload begins at 0")
    _refuse_range(lines)
    completes = parse_boolean(lines.get("upload-complete", ()))
    of_whole, of_body = split_digests(expected_digests(lines))
    terms = BodyTerms(_completion(completes, interop), of_body, wanted_digests(lines))
    length, filename = read_length(lines), filename_of(lines)
    if length is None and completes:
        length = content_length
    return Creation("draft", length, terms, filename=filename, digests=of_whole)


def check_lengths(creation: Creation, content_length: int, limits: UploadLimits) -> None:
    """Check a body against the length of the file, before anything is created (section 4.2.2).

    What is too large is left to the admission, which says so. Raises `Refusal`.
    """
    length, body = creation.length, creation.body
    if length is None or (limits.max_size is not None and max(length, content_length) > limits.max_size):
        return
    ends = body is not None and body.completes
    if content_length > length or (ends and content_length != length):
        raise Refusal("inconsistent_length", "Upload-Length and Content-Length contradict each other")


def read_append(lines: Lines, interop: Interop) -> Append:
    """Return what a PATCH asks for (section 4.4). Raises `Refusal`."""
    media_type = lines.get("content-type", ("",))[0].partition(";")[0].strip().lower()
    if media_type != PARTIAL_TYPE and not interop.takes_any_type:
        raise Refusal("unsupported_media_type", f"append with Content-Type: {PARTIAL_TYPE}")
    _refuse_range(lines)
    offset = parse_integer(lines.get("upload-offset", ()))
    if offset is None or offset < 0:
        raise Refusal("bad_request", "append with Upload-Offset: a number of bytes")
    completes = parse_boolean(lines.get("upload-complete", ()))
    if completes is None:
        if not interop.is_implicit:
            raise Refusal("bad_request", "append with Upload-Complete: ?1 if it is the end, else ?0")
        completes = True
    of_whole, of_body = split_digests(expected_digests(lines))
    terms = BodyTerms(_completion(completes, interop), of_body, wanted_digests(lines))
    if of_whole and not completes:
        raise Refusal("bad_digest", f"{of_whole[0].header}: send it at the creation or with the end")
    return Append(offset, terms, read_length(lines), of_whole)


def _refuse_range(lines: Lines) -> None:
    """Refuse what says in another way too which part of a file the body is. Raises `Refusal`."""
    if "content-range" in lines:
        raise Refusal("bad_range", "Content-Range and Upload-Complete do not go together")


def is_last(lines: Lines, interop: Interop) -> bool:
    """Tell whether a request says that it brings the end of the file."""
    completes = parse_boolean(lines.get("upload-complete", ()))
    return interop.is_implicit if completes is None else completes


def _completion(completes: bool | None, interop: Interop) -> bool | None:
    """Return whether a body is the last one; None where that follows from the length.

    tus-js-client (4.3.1, versions 5 and 6) sends `?0` with the last chunk of a stream too.
    """
    return None if completes is not True and interop.is_implicit else completes


def check_resource_request(lines: Lines) -> None:
    """Check a HEAD, GET or DELETE of an upload resource (-05, section 5). Raises `Refusal`."""
    for name in ("upload-offset", "upload-complete"):
        if name in lines:
            raise Refusal("bad_request", f"{name.title()} is for requests with content")


def read_length(lines: Lines) -> int | None:
    """Return the length of the whole file; None where it is not told (section 4.1.3)."""
    length = parse_integer(lines.get("upload-length", ()))
    return length if length is not None and length >= 0 else None


def split_digests(
    digests: tuple[ExpectedDigest, ...],
) -> tuple[tuple[ExpectedDigest, ...], tuple[ExpectedDigest, ...]]:
    """Return the digests of the whole file, and those of the content of this request."""
    of_whole: list[ExpectedDigest] = []
    of_body: list[ExpectedDigest] = []
    for digest in digests:
        group = of_whole if digest.header.lower().startswith(_OF_WHOLE) else of_body
        group.append(digest)
    return tuple(of_whole), tuple(of_body)


def wanted_digests(lines: Lines) -> tuple[str, ...]:
    """Return the algorithms of `Want-Repr-Digest` that are computed here (RFC 9530 section 4)."""
    wanted = parse_integers(lines.get("want-repr-digest", ()))
    return tuple(NAMES[name] for name, weight in wanted.items() if weight > 0 and name in NAMES)


# -- responses


@dataclass(slots=True, frozen=True)
class DraftResponses:
    """Writes the responses to the requests of one client: its version, and what all are told."""

    interop: Interop
    limits: UploadLimits
    urls: StoredUrls

    def interim_fields(self, result: PartialResult) -> dict[str, str]:
        """Return the fields of a 104 (section 5)."""
        fields = {"Location": result.url, "Upload-Limit": limit_field(self.limits, result)}
        self._set_version(fields)
        return fields

    def created(self, result: PartialResult) -> Response:
        """Return the response to a creation."""
        response = self._stored(result) if result.is_complete else Response(status=201)
        response.headers["Location"] = result.url
        return self._with_state(response, result)

    def appended(self, result: PartialResult) -> Response:
        """Return the response to an append."""
        if result.is_complete:
            return self._with_state(self._stored(result), result)
        return self._with_state(Response(status=201 if self.interop.is_implicit else 204), result)

    def described(self, result: PartialResult) -> Response:
        """Return the response to an offset retrieval."""
        return self._with_state(Response(status=204), result)

    def cancelled(self) -> Response:
        """Return the response to a cancellation."""
        response = Response(status=204)
        self._set_version(response.headers)
        return response

    def refused_creation(self, refusal: Refusal) -> Response:
        """Return the response to a creation that is refused; what is kept of it can go on."""
        response = self.refused(refusal)
        if isinstance(refusal, PartialRefusal) and refusal.keeps and refusal.result is not None:
            response.headers["Location"] = refusal.result.url
        return response

    def refused(self, refusal: Refusal, append: Append | None = None) -> Response:
        """Return the response to a refused request, as a problem where the draft has a type for it."""
        result = refusal.result if isinstance(refusal, PartialRefusal) else None
        response = _refused(refusal, result, append)
        if refusal.code == "too_large":
            response.headers["Upload-Limit"] = limit_field(self.limits, result)
        if result is None:
            if refusal.code in _OPEN_ENDED:
                response.headers["Upload-Complete"] = "?0"
            self._set_version(response.headers)
            return response
        self._with_state(response, result)
        ends = isinstance(refusal, PartialRefusal) and not refusal.keeps
        if ends and refusal.code not in _OPEN_ENDED:
            # From -12 on this says that the response is that of the target, and the last one.
            response.headers["Upload-Complete"] = "?1"
        return response

    def _stored(self, result: PartialResult) -> Response:
        if result.stored is None:
            return Response(status=204)
        status, headers, content = stored_response(result.stored, self.urls)
        response = Response(status=status, headers=headers, body=content)
        if result.stored.digests:
            response.headers["Repr-Digest"] = digest_field(result.stored.digests)
        return response

    def _with_state(self, response: Response, result: PartialResult) -> Response:
        headers = response.headers
        headers["Upload-Offset"] = str(result.offset)
        headers["Upload-Complete"] = "?1" if result.is_complete else "?0"
        if result.length is not None:
            headers["Upload-Length"] = str(result.length)
        headers["Upload-Limit"] = limit_field(self.limits, result)
        headers["Cache-Control"] = "no-store"
        self._set_version(headers)
        return response

    def _set_version(self, fields: MutableMapping[str, str]) -> None:
        if self.interop.version is not None:
            fields[INTEROP_FIELD] = str(self.interop.version)


def limit_field(limits: UploadLimits, result: PartialResult | None = None) -> str:
    """Return `Upload-Limit`, of a resource or of what is to be created (section 4.1.4)."""
    members = [] if limits.max_size is None else [f"max-size={limits.max_size}"]
    if result is None:
        members.append(f"max-age={int(limits.max_age)}")
    elif result.expires is not None:
        members.append(f"max-age={max(0, int(result.expires - time.time()))}")
    return ", ".join(members) or "min-size=0"


def _refused(refusal: Refusal, result: PartialResult | None, append: Append | None) -> Response:
    if refusal.code not in _PROBLEMS:
        return refusal_response(refusal)
    name, title = _PROBLEMS[refusal.code]
    members: dict[str, object] = {}
    if refusal.code == "mismatching_offset" and result is not None and append is not None:
        members = {"expected-offset": result.offset, "provided-offset": append.offset}
    return problem_response(refusal, _PROBLEM_TYPES + name, title, members)
