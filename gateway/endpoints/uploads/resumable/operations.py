"""What the three protocols ask of partial uploads, and what they are told. Plain data."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.domain.model import Stored
from gateway.domain.partial import ResumableProtocol
from gateway.endpoints.uploads.digests import ExpectedDigest
from gateway.errors import Refusal


@dataclass(slots=True, frozen=True)
class Concatenation:
    """The parts of a file, in order (tus): ids of partial uploads with their secrets.

    A part is a UUID alone where the client gives no query: the name that the gateway gave to it.
    `text` is the header as it was sent, for the answers to HEAD.
    """

    parts: Sequence[str]
    text: str = ""


@dataclass(slots=True, frozen=True)
class BodyTerms:
    """How the body of one request counts.

    `completes` says whether it is the last one: None where that follows from the length (tus, and the
    draft up to interop 6). `digests` are of this body: a mismatch, or a cut, drops all of it.
    """

    completes: bool | None = None
    digests: tuple[ExpectedDigest, ...] = ()


@dataclass(slots=True, frozen=True)
class Creation:
    """A request to create a partial upload.

    `length` is that of the whole file, None where it is not known yet. `body` is None where the
    request has none to be stored (an empty one has). `filename` names the file where the request
    names a folder. `metadata` is stored with the file. `digests` are of the whole file.
    `identity` is that of a ranged upload.
    """

    protocol: ResumableProtocol
    length: int | None
    body: BodyTerms | None
    filename: str | None = None
    content_type: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    metadata_text: str = ""
    digests: tuple[ExpectedDigest, ...] = ()
    identity: str | None = None
    part_of_concat: bool = False
    concat: Concatenation | None = None


@dataclass(slots=True, frozen=True)
class Append:
    """A request to append at `offset`. `length` fixes the whole length, if it is given."""

    offset: int
    body: BodyTerms
    length: int | None = None


@dataclass(slots=True, frozen=True)
class PartialResult:
    """What a request of a partial upload ends with, or what is told on its way.

    `url` is absolute and has the secret. `expires` is Unix seconds, None once it is complete.
    `stored` is there where this request completed it. `is_complete` stays true afterwards.
    """

    upload_id: str
    url: str
    offset: int
    length: int | None
    is_complete: bool
    expires: float | None = None
    stored: Stored | None = None
    metadata_text: str = ""
    part_of_concat: bool = False
    concat: Concatenation | None = None


class PartialRefusal(Refusal):
    """A request of an existing partial upload is refused; `result` is what can be told of it.

    `keeps` says whether the upload can go on: else it is over, and its bytes are gone.
    """

    def __init__(
        self,
        code: str,
        message: str,
        result: PartialResult | None,
        *,
        keeps: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code, message, headers)
        self.result = result
        self.keeps = keeps


Announce = Callable[[PartialResult], Awaitable[None]]
"""Called once a partial upload is created, before its body is read: a 104 of the draft."""
