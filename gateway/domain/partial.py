"""Partial uploads: files that arrive in several requests. Plain data and pure rules.

Sources: draft-ietf-httpbis-resumable-upload; tus 1.0.0; RFC 9110 section 14.5 (partial PUT).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from gateway.domain.model import Upload, created_at
from gateway.errors import Refusal

ResumableProtocol = Literal["draft", "tus", "ranged"]

PARTIAL_TTL: Final = 24 * 3600.0
"""Seconds from the latest byte after which a partial upload is removed."""

MAX_PARTIAL_AGE: Final = 7 * 24 * 3600.0
"""Seconds from its creation after which a partial upload is removed, whatever has come since."""

COMPLETED_TTL: Final = 24 * 3600.0
"""Seconds after its completion in which a ranged upload can still be asked for by its identity."""

ONE_TIME_TTL: Final = 24 * 3600.0
"""Seconds after the expiry of a one-time URL in which an upload that it began may still use it up."""

JOINED_TTL: Final = 3600.0
"""Seconds after which a file that was being made of parts is removed: its request died, and no client
has its URL. Its parts are kept."""

MAX_CREATION_DELAY: Final = 60.0
"""Seconds from the id of an upload to its creation in which a newer request of the same upload is told
from one of a clock that was ahead: a handler may take that long."""

UPLOAD_QUERY: Final = "upload"
"""The field of the query that has the reference to a partial upload, in its URL."""

CONCAT_FIELD: Final = "Upload-Concat"
"""The header that says that a file is made of parts (tus 1.0.0, extension "concatenation")."""

MAX_PARTIALS: Final = 10_000
"""Partial uploads of one gateway."""

MAX_PARTIALS_PER_CLIENT: Final = 100
"""Partial uploads of one client: its principal, else its address."""


@dataclass(slots=True, frozen=True)
class DigestOfWhole:
    """A digest that the whole file must have: `algorithm` of `domain.digests`, and its header's name."""

    algorithm: str
    value: bytes
    header: str


@dataclass(slots=True, frozen=True)
class PartialHead:
    """What is fixed when a partial upload is created. It is durable before the URL is told.

    `upload` is as admission left it, with redacted `params` and `headers`; its `content_length` is the
    length of the whole file. `asked_path` is the encoded path of the request that created it.
    `client` is the `client_key` that the caps count by. `digests` are of the whole file.
    `must_exist` is `If-Match: *`. `identity` names a ranged upload, see `ranged_identity`.
    `metadata_text` is `Upload-Metadata` of tus as it was sent. `part_of_concat` marks an upload whose
    bytes are a part of another file (tus, `Upload-Concat: partial`): it is never committed itself.
    `staged`: handlers of OnFileReceived will read it.
    """

    upload: Upload
    asked_path: str
    protocol: ResumableProtocol
    client: str
    digests: tuple[DigestOfWhole, ...] = ()
    must_exist: bool = False
    identity: str | None = None
    metadata_text: str = ""
    part_of_concat: bool = False
    named_by_gateway: bool = False
    staged: bool = False


@dataclass(slots=True, frozen=True)
class PartialStatus:
    """A partial upload as it can be told: `offset` bytes are durable.

    `length` is that of the whole file, None while it is not known. `latest` is the Unix time of the
    latest byte, `expires` when it is removed if no other byte comes. `appends` is how many requests have
    brought bytes.
    """

    head: PartialHead
    offset: int
    length: int | None
    latest: float
    appends: int = 0

    @property
    def expires(self) -> float:
        """Unix time at which it is removed if no other byte comes."""
        ends = [self.latest + PARTIAL_TTL, self.head.upload.created + MAX_PARTIAL_AGE]
        upload = self.head.upload
        if CONCAT_FIELD in upload.kept_headers:
            ends.append(upload.created + JOINED_TTL)
        grant = upload.grant
        if grant is not None and grant.once is not None:
            ends.append(grant.expires + ONE_TIME_TTL)
        return min(ends)

    @property
    def is_whole(self) -> bool:
        """Whether every byte of a known length has come."""
        return self.offset == self.length


def ranged_identity(asked_path: str, principal: Mapping[str, Any] | None, key: str) -> str:
    """Return the identity of a ranged upload: the SHA-256, in hex, of what tells it from others.

    `asked_path` is still encoded. Requests of one principal and path with one `key` mean one upload.
    """
    named = ("", "") if principal is None else (str(principal["kind"]), str(principal["name"]))
    texts = [f"{len(text)}:{text}" for text in (asked_path, *named, key)]
    return hashlib.sha256("".join(texts).encode("utf-8", "surrogateescape")).hexdigest()


def check_identity_order(holder: str | None, upload_id: str) -> None:
    """Refuse to let an identity pass to an upload from one that a newer request of its client created.

    A handler or the disk may delay a request while its client comes back on another connection, and
    the end of its own waits behind unread bytes. Ids begin with the time of their requests. Later ones
    by more than `MAX_CREATION_DELAY` are of a clock that was set back, or of another gateway's.
    Raises `Refusal("locked")`.
    """
    if holder is not None and 0 < created_at(holder) - created_at(upload_id) < MAX_CREATION_DELAY:
        raise Refusal("locked", "a newer request has begun this upload: try again")


def part_identity(name: str) -> str:
    """Return the identity of a part of a file that has `name`, a UUID that the gateway gave to it."""
    return hashlib.sha256(f"part {name}".encode("utf-8", "surrogateescape")).hexdigest()


def may_continue(creator: Mapping[str, Any] | None, principal: Mapping[str, Any] | None) -> bool:
    """Tell whether a principal may go on with an upload, the secret in its URL aside.

    It is the creator's, by kind and name. A signed URL stands for no principal: the secret counts alone.
    """
    if creator is None or creator["kind"] == "signed":
        return True
    return principal is not None and all(creator[key] == principal[key] for key in ("kind", "name"))
