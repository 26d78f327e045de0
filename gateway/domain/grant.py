"""The terms of a signed URL, and their validation: every term must apply to the method. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Literal, get_args
from urllib.parse import quote

from gateway.domain.metadata import normalize_metadata
from gateway.domain.paths import CONTROL_CHARACTER, MAX_PATH_BYTES
from gateway.errors import Refusal

FIELD_PREFIX: Final = "X-Gateway-"
"""Prefix of the query fields of a signature."""

MAX_LIFETIME: Final = 7 * 24 * 3600
"""Seconds from signing to expiry, the limit of presigned URLs of S3."""

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
METHODS: Final = get_args(Method)
BODY_METHODS: Final = frozenset({"PUT", "POST", "PATCH"})
MAX_LENGTH: Final = 5 << 40
"""Bytes of a body: the largest object of S3."""

MAX_TEXT_LENGTH: Final = 255
"""Characters of a header value or file name."""

PCHAR: Final = "!$&'()*+,;=:@"
"""What may stand in a path segment as it is, beside the unreserved (RFC 3986 section 3.3)."""

QueryPairs = tuple[tuple[str, str], ...]

_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{16,64}")
_HEADER_VALUE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Grant:
    """One request that may be made until `expires` (Unix seconds); GET stands for HEAD too.

    `path` is decoded; `query` holds the request's own parameters in order, which are signed like all
    else. For PUT, POST and PATCH: the `content_type` and the exact `length` or greatest
    `max_length` in bytes of the body; the `metadata` that the file gets. For PUT and POST: `once`, a
    name for this very grant, which a stored upload uses up; `on_conflict` `reject` where no file may
    be replaced. For GET: the `filename` under which a browser saves the answer, and the id of the
    `link` without which it ends. `cache_control` is that of the answer, or of the object that a bucket
    keeps.
    """

    method: str
    path: str
    expires: int
    content_type: str | None = None
    length: int | None = None
    max_length: int | None = None
    metadata: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    once: str | None = None
    on_conflict: Literal["reject"] | None = None
    filename: str | None = None
    cache_control: str | None = None
    link: str | None = None
    query: QueryPairs = ()

    @property
    def max_body_bytes(self) -> int | None:
        """The maximum size of the body in bytes, None for any."""
        return self.length if self.length is not None else self.max_length

    def at(self, path: str) -> Grant:
        """Return the grant for another path."""
        return replace(self, path=path)

    def check(self, now: float) -> None:
        """Raise `ValueError` for a grant that is invalid at `now`, with a message for the signer."""
        if self.method not in METHODS:
            raise ValueError(f"the method must be one of {', '.join(sorted(METHODS))}")
        encode_path(self.path)
        if not now < self.expires <= now + MAX_LIFETIME:
            raise ValueError("a signed URL lives for at least a second and at most 7 days (604800)")
        self._check_body()
        if grant_metadata(self.metadata) != self.metadata:
            raise ValueError("metadata names of a signed URL are in lower case")
        self._check_texts()
        if any(name.lower().startswith(FIELD_PREFIX.lower()) for name, _ in self.query):
            raise ValueError(f"the names {FIELD_PREFIX}* in a query are reserved for the signature")

    def _check_body(self) -> None:
        given = (self.content_type, self.length, self.max_length)
        if self.method not in BODY_METHODS and (
            self.metadata or any(value is not None for value in given)
        ):
            raise ValueError(
                "content type, length and metadata apply to requests with a body: PUT, POST"
            )
        if self.method not in {"PUT", "POST"} and (
            self.once is not None or self.on_conflict is not None
        ):
            raise ValueError("once and overwrite apply to uploads: PUT, POST")
        if self.method not in {"GET", "HEAD"} and self.filename is not None:
            raise ValueError("a file name applies to downloads: GET")
        if self.method != "GET" and self.link is not None:
            raise ValueError("through a link files are read: GET")
        if self.length is not None and self.max_length is not None:
            raise ValueError("give the exact length or the maximum, not both")
        if any(isinstance(value, bool | float) for value in (self.length, self.max_length)):
            raise ValueError("a length is a whole number of bytes")
        if self.max_body_bytes is not None and not 0 <= self.max_body_bytes <= MAX_LENGTH:
            raise ValueError("a length is a number of bytes, at most 5 TiB")
        if self.once is not None and not _NONCE.fullmatch(self.once):
            raise ValueError("the name of a one-time URL has 16 to 64 letters, digits, - and _")
        if self.on_conflict not in {None, "reject"}:
            raise ValueError("the only conflict policy of a signed URL is reject")

    def _check_texts(self) -> None:
        for what, text in (("content type", self.content_type), ("cache control", self.cache_control)):
            if text is not None and (len(text) > MAX_TEXT_LENGTH or not _HEADER_VALUE.fullmatch(text)):
                raise ValueError(f"the {what} must be a header's value of printable ASCII")
        name = self.filename
        if name is not None and (
            not name
            or set(name) & set("/\\")
            or CONTROL_CHARACTER.search(name)
            or len(name) > MAX_TEXT_LENGTH
        ):
            raise ValueError("a file name has no slashes and no control characters")


def grant_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return metadata for a grant, names in lower case. Raises `ValueError`."""
    try:
        return normalize_metadata(metadata)
    except Refusal as refusal:
        raise ValueError(refusal.message) from None


def encode_path(path: str) -> str:
    """Return a decoded path as it stands in a signed URL (RFC 3986 section 3.3).

    Raises `ValueError` for a path that no signed URL may have: empty, `.` and `..` segments,
    backslashes, control characters, no leading slash, or more than 3500 bytes.
    """
    first, *segments = path.split("/")
    if first or not segments:
        raise ValueError("the path must start with a slash")
    for position, segment in enumerate(segments, start=1):
        if segment in {"", ".", ".."} or "\\" in segment or CONTROL_CHARACTER.search(segment):
            raise ValueError(f"segment {position} of the path is not a plain name")
    if len(path.encode()) > MAX_PATH_BYTES:
        raise ValueError(f"the path is longer than {MAX_PATH_BYTES} bytes")
    return quote(path, safe=f"/{PCHAR}")
