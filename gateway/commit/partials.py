"""How partial uploads are kept: one protocol, on disk and in a bucket.

A partial upload is private. It belongs to no process: each request opens it exclusively, appends,
and lets go. An offset that `settle` returned is durable and never falls. The contract suite
`tests/contract/test_partials.py` runs over every implementation.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from gateway.commit.writer import ThreadedWrite
from gateway.domain.held import Held, PrivateFile
from gateway.domain.model import Stored
from gateway.domain.partial import PartialHead, PartialStatus
from gateway.errors import GatewayError


class PartialBusy(GatewayError):
    """Another request has the partial upload open: of this process, of another one, or elsewhere."""


class PartialLost(GatewayError):
    """A newer request took the partial upload over. What it has not taken from this one is void."""


class OpenPartial(Protocol):
    """A partial upload that one request has open, exclusively. One task uses it at a time.

    It ends with exactly one `commit` or `hold` that succeeds, `remove` or `close`. Whatever fails,
    `close` keeps what is settled.
    """

    @property
    def head(self) -> PartialHead:
        """What was fixed at its creation."""

    @property
    def offset(self) -> int:
        """Bytes that are durable: what may be told."""

    @property
    def received(self) -> int:
        """Bytes that have been taken, settled or not."""

    @property
    def length(self) -> int | None:
        """The length of the whole file, None while it is not known."""

    @property
    def threaded(self) -> ThreadedWrite | None:
        """As `PendingWrite.threaded`; None where all bytes go through the event loop."""

    async def set_length(self, length: int) -> None:
        """Fix, durably, a length that was not known."""

    async def begin(self, declared: int | None, *, all_or_nothing: bool = False) -> None:
        """Begin the body of one request, of `declared` bytes (None: unknown); reserve its space.

        With `all_or_nothing` nothing of it counts before `settle`: a crash, `revert` and `close` drop
        it. Such a body is to be verified (tus checksum, Content-Digest). Raises `Refusal`.
        """

    async def write(self, chunk: bytes) -> None:
        """Take the next bytes; waits while too many are on their way.

        Raises `Refusal`, `PartialLost`.
        """

    async def finish(self) -> None:
        """Bring the rest of the bytes to the storage; then `digest` is of all. Raises `Refusal`."""

    def digest(self, algorithm: str) -> bytes:
        """Return the digest of the body of this request, once it is finished."""

    def expect_body_digests(self, algorithms: Sequence[str]) -> None:
        """Say, before the first byte of a body, of which algorithms `digest` will be asked."""

    async def settle(self) -> int:
        """Make every byte taken durable (`durability full`); return the offset, which may be told.

        Raises `Refusal`, `PartialLost`; then `offset` is still true.
        """

    async def revert(self) -> None:
        """Drop the bytes taken since `settle`."""

    async def append_parts(self, parts: Sequence[OpenPartial]) -> None:
        """Append all bytes of other, open partial uploads, in order, durably. Raises `Refusal`."""

    async def last_byte(self) -> bytes | None:
        """Return the last byte of all that came, None where the storage returns none before a commit."""

    def can_digest(self, algorithm: str) -> bool:
        """Tell whether `digest_of_whole` has this digest: some storages return no bytes before a commit.

        They have those of `PartialHead.digests`, and the one of `--digest`.
        """

    async def digest_of_whole(self, algorithms: Sequence[str]) -> Mapping[str, bytes]:
        """Return digests of all bytes: the running ones, or read back in a thread.

        Raises `Refusal("bad_digest")` where `can_digest` says no.
        """

    async def stage(self) -> PrivateFile:
        """See `PendingWrite.stage`. Raises `Refusal("not_implemented")` where it did not begin so."""

    async def hold(self, digests: Mapping[str, str], handlers: Sequence[str]) -> Held:
        """Let the whole file become a held upload, see `PendingWrite.hold`. Raises as `commit`."""

    async def commit(self, digests: Mapping[str, str]) -> Stored:
        """Publish the whole file by the one commit; OnFileUploaded is emitted.

        `digests` are base64 by RFC 9530 name, kept as in `PendingWrite.commit`. Raises `Refusal`:
        nothing was stored, and the partial upload is as before, still open here; `UnknownOutcome`.
        """

    async def remove(self) -> bool:
        """Remove it for good, durably: cancelled, expired, or refused for good; tell whether it is.

        Does not raise where the storage is unavailable: it expires later.
        """

    async def close(self) -> None:
        """Let go of it, settling nothing more. A second call, or one after `commit`, does nothing."""


class PartialStore(Protocol):
    """The partial uploads of a gateway. Runs on the server's event loop."""

    async def create(self, head: PartialHead) -> OpenPartial:
        """Create a partial upload, durably, and open it.

        An identity that another one has passes to this one. Raises `Refusal`: `locked` where a newer
        request has that identity; a target that may not be replaced, `precondition_failed`,
        `no_space` (the whole length is checked), `storage_unavailable`, `too_many_requests` or
        `overloaded` where a cap is reached.
        """

    async def status(self, upload_id: str) -> PartialStatus | None:
        """Describe a partial upload without opening it; None where there is none (any more)."""

    async def open(self, upload_id: str) -> OpenPartial:
        """Open a partial upload. Raises `PartialBusy`, `Refusal("not_found")`.

        On a store that others may append to as well it takes over from them: they get `PartialLost`.
        """

    async def resolve(self, identity: str) -> str | None:
        """Return the id of the upload of an identity, for a day after its completion too."""

    def list(self) -> AsyncIterator[PartialStatus]:
        """Iterate over all partial uploads, in bounded memory."""

    def remove_expired(self, now: float) -> AsyncIterator[PartialStatus]:
        """Remove what is expired at `now` and not open; yield what was removed."""
