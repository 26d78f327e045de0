"""What the three protocols ask of partial uploads, and what they are told. Plain data."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from gateway.auth.request import IncomingRequest
from gateway.domain.held import Held
from gateway.domain.model import Stored
from gateway.domain.partial import ResumableProtocol
from gateway.domain.path_template import PathMatch
from gateway.endpoints.uploads.digests import ExpectedDigest
from gateway.errors import Refusal, Terminated


class UploadTarget(NamedTuple):
    """The file of a creation: what its path matches, and that path, still encoded.

    `named_by_gateway` tells that the request named a folder, and no file. `signed_only` admits nothing
    but signed URLs and gateways of the installation.
    """

    match: PathMatch
    asked_path: str
    named_by_gateway: bool = False
    signed_only: bool = False


class UploadLimits(NamedTuple):
    """What every client is told: the greatest length in bytes (None: none) and life in seconds."""

    max_size: int | None
    max_age: float


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
    `wanted` are algorithms whose digest of the whole is in `Stored.digests`, if this completes it.
    """

    completes: bool | None = None
    digests: tuple[ExpectedDigest, ...] = ()
    wanted: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True)
class Creation:
    """A request to create a partial upload.

    `length` is that of the whole file, None where it is not known yet. `body` is None where the
    request has none to be stored (an empty one has). `filename` names the file where the request
    names a folder. `metadata` is stored with the file. `digests` are of the whole file.
    `resume_key` is that of a ranged upload, whose identity consists of it, of the path that was asked
    and of the principal; "" is one too.
    """

    protocol: ResumableProtocol
    length: int | None
    body: BodyTerms | None
    filename: str | None = None
    content_type: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    metadata_text: str = ""
    digests: tuple[ExpectedDigest, ...] = ()
    resume_key: str | None = None
    part_of_concat: bool = False
    concat: Concatenation | None = None


@dataclass(slots=True, frozen=True)
class Append:
    """A request to append at `offset`.

    `length` fixes the whole length, if it is given. `digests` are of the whole file, beside those of
    its creation: they are checked if this request completes it.
    """

    offset: int
    body: BodyTerms
    length: int | None = None
    digests: tuple[ExpectedDigest, ...] = ()


@dataclass(slots=True, frozen=True)
class PartialResult:
    """What a request of a partial upload ends with, or what is told on its way.

    `url` is absolute and has the secret. `expires` is Unix seconds, None once it is complete.
    `stored` is there where this request completed it: it is stored, or held. `is_complete` stays true
    afterwards.
    """

    upload_id: str
    url: str
    offset: int
    length: int | None
    is_complete: bool
    expires: float | None = None
    stored: Stored | Held | None = None
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


def mismatch(result: PartialResult) -> PartialRefusal:
    """Return the refusal of a request at another offset than that of its upload."""
    message = f"the upload goes on at the offset {result.offset}"
    return PartialRefusal("mismatching_offset", message, result)


class PartialTerminated(PartialRefusal, Terminated):
    """A handler refused the whole file: the client gets its status and output, and what can be told."""

    def __init__(self, terminated: Terminated, result: PartialResult, *, keeps: bool) -> None:
        Terminated.__init__(self, terminated.status, terminated.body, terminated.content_type)
        self.rejected_by = terminated.rejected_by
        self.result = result
        self.keeps = keeps


Announce = Callable[[PartialResult], Awaitable[None]]
"""Called once a partial upload is created, before its body is read: a 104 of the draft."""


class PartialUploads(Protocol):
    """The operations (`service.ResumableUploads`), as the three protocols call them.

    Each authenticates the request. They raise `PartialRefusal`, or `Refusal` where nothing can be told
    of a partial upload. `announce` is called once the URL may be told, before the body is asked for.
    """

    async def create(
        self,
        incoming: IncomingRequest,
        target: UploadTarget,
        creation: Creation,
        announce: Announce | None = None,
    ) -> PartialResult:
        """Create a partial upload, and take the body of the request if it has one."""

    async def append(
        self,
        incoming: IncomingRequest,
        reference: str,
        append: Append,
        announce: Announce | None = None,
    ) -> PartialResult:
        """Append the body of the request; `reference` is the value of `upload` in the query."""

    async def describe(
        self, incoming: IncomingRequest, reference: str, *, ends_by_length: bool = False
    ) -> PartialResult:
        """End a running append, and describe the upload, after its completion too.

        With `ends_by_length` an upload that is whole is committed first: its client takes the whole
        length for the end (tus). So is one that such a client created.
        """

    async def cancel(self, incoming: IncomingRequest, reference: str) -> None:
        """End a running append, and remove the upload."""

    async def cancel_range(self, incoming: IncomingRequest, resume_key: str) -> None:
        """End and remove the ranged upload of this path, principal and key. Raises as `cancel`."""

    async def find(self, incoming: IncomingRequest, resume_key: str) -> PartialResult | None:
        """Describe the ranged upload of this path, principal and key, for a day after its completion.

        What is whole is committed first. With a key a running append is ended; without one any HEAD of
        the file comes here, and it ends none.
        """

    async def append_to_range(
        self, incoming: IncomingRequest, resume_key: str, append: Append
    ) -> PartialResult:
        """Append to the ranged upload of this path, principal and key.

        Where all bytes have come and were not committed, the last one may be sent again, if it is
        equal. Raises `mismatching_offset` without a result where there is no such upload.
        """

    def limits(self) -> UploadLimits:
        """Return what every client is told."""
