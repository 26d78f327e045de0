"""Partial uploads as objects of a bucket, in `<prefix>/.gateway/partials/`.

`<id>` is the state: what has come, and the bytes of the last part that is not full (the *tail*). One PUT
replaces both at once. `<id>.json` is the head, which never changes. `<id>.part` are the bytes of a part
of a concatenation, once they can be read; those of an upload that handlers read whole are `held/<id>`.
`r-<hash>` names the upload of an identity.

The state is in the object's bytes, not in its metadata: entity tags, by which writers exclude each
other, are of the bytes alone, and equal tails would have equal ones; nor is metadata large enough for
the tags of 10 000 parts. The state is created first and removed last: what is interrupted can go on.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.domain.partial import PartialHead
from gateway.domain.partial_heads import head_from_json, head_to_json
from gateway.domain.saved_digests import check_saved
from gateway.domain.upload_fields import is_upload_id
from gateway.errors import Refusal
from gateway.storage.s3.private_objects import ChangedError, PrivateContent, PrivateObjects

FORMAT: Final = 1

HOLD_CLAIM: Final = "hold-"
"""How the claim of a held upload begins, which only the gateway that holds it ends."""

_BLOCK_BYTES: Final = 4096
"""The state without tags and digests; a status needs no more."""

_FIRST_BYTES: Final = 16 << 10
"""What is read of a state at first: its block, the tags of 300 parts, a small tail."""

_MAX_CACHED_HEADS: Final = 256


@dataclass(slots=True, frozen=True)
class PartialState:
    """How far a partial upload is.

    Of `offset` bytes all but the tail are in parts of the multipart upload `multipart`; `tags` are the
    entity tags of these. `last` is the last byte, `latest` the Unix time at which it came. `path` is
    where all of it goes. `writer` is the gateway that has it. `claim` is the commit that may publish it.
    `digests` are saved states of digests. `staged` says that the bytes go to the private object of the
    upload, `sealed` that they are in that object, or in `<id>.part`; `removed` that it is being removed.
    """

    part_bytes: int
    path: str
    writer: str
    latest: float
    length: int | None = None
    offset: int = 0
    last: int | None = None
    sequence: int = 0
    multipart: str | None = None
    claim: str | None = None
    staged: bool = False
    sealed: bool = False
    removed: bool = False
    tags: tuple[str, ...] = ()
    digests: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def tail(self) -> int:
        """Bytes that are in the state object itself."""
        if self.sealed:
            return 0
        return max(0, self.offset - len(self.tags) * self.part_bytes)


@dataclass(slots=True, frozen=True)
class StoredState:
    """A state that was read: its entity tag, where the tail begins, and the tail's first bytes."""

    state: PartialState
    etag: str
    tail_start: int
    tail: bytes


class PartialObjects:
    """The objects of all partial uploads of a bucket."""

    def __init__(self, objects: PrivateObjects) -> None:
        self.objects = objects
        self._heads: dict[str, PartialHead] = {}

    # -- states

    async def describe(self, upload_id: str) -> PartialState | None:
        """Return the state without tags and digests; None where there is none. Raises `Refusal`."""
        stored = await self.objects.get(upload_id, first=_BLOCK_BYTES)
        return None if stored is None else _block_of(stored[0])[0]

    async def read(self, upload_id: str) -> StoredState | None:
        """Return the state; None where there is none. Raises `Refusal`."""
        while (stored := await self.objects.get(upload_id, first=_FIRST_BYTES)) is not None:
            content, etag = stored
            state, details = _block_of(content)
            end = _BLOCK_BYTES + details
            if len(content) < end:
                whole = await self.objects.get(upload_id, first=end)
                if whole is None or whole[1] != etag:
                    continue
                content = whole[0]
            state = _with_details(state, content[_BLOCK_BYTES:end])
            return StoredState(state, etag, end, content[end:])
        return None

    async def write(
        self, upload_id: str, state: PartialState, tail: memoryview, replaces: str | None
    ) -> str:
        """Store state and tail; return the entity tag. Raises `ChangedError`, `Refusal`."""
        nonce = secrets.token_hex(8)
        first = _encoded(state, nonce)
        try:
            return await self.objects.put(upload_id, PrivateContent(first, tail), replaces=replaces)
        except ChangedError:
            stored = await self.objects.get(upload_id, first=len(first))
            if stored is not None and stored[0] == first:  # the answer to the first try was lost
                return stored[1]
            raise

    # -- heads and identities

    async def put_head(self, head: PartialHead) -> None:
        """Store a head. Raises `Refusal`."""
        await self.objects.put(f"{head.upload.id}.json", PrivateContent(head_to_json(head)))
        self._remember(head)

    async def head(self, upload_id: str) -> PartialHead | None:
        """Return a head; None where there is none that can be read. Raises `Refusal`."""
        if (cached := self._heads.get(upload_id)) is not None:
            return cached
        if (stored := await self.objects.get(f"{upload_id}.json")) is None:
            return None
        try:
            head = head_from_json(stored[0])
        except ValueError:
            return None
        self._remember(head)
        return head

    async def put_identity(self, identity: str, upload_id: str) -> None:
        """Let an identity name an upload. Raises `Refusal`."""
        await self.objects.put(f"r-{identity}", PrivateContent(upload_id.encode()))

    async def resolve(self, identity: str) -> str | None:
        """Return the id of the upload that an identity names. Raises `Refusal`."""
        stored = await self.objects.get(f"r-{identity}")
        name = "" if stored is None else stored[0].decode("ascii", "replace")
        return name if is_upload_id(name) else None

    async def delete(self, upload_id: str) -> None:
        """Remove the objects of a partial upload, the state last. Raises `Refusal`."""
        self._heads.pop(upload_id, None)
        await self.objects.delete(f"{upload_id}.json")
        await self.objects.delete(upload_id)

    # -- all of them

    async def ids(self) -> AsyncIterator[tuple[str, float]]:
        """Iterate over the ids of all states, and when each was stored last. Raises `Refusal`."""
        async for entry in self.objects.list():
            if is_upload_id(entry.name):
                yield entry.name, entry.modified

    def _remember(self, head: PartialHead) -> None:
        self._heads[head.upload.id] = head
        while len(self._heads) > _MAX_CACHED_HEADS:
            del self._heads[next(iter(self._heads))]


def _encoded(state: PartialState, nonce: str) -> bytes:
    """Return block and details of a state. `nonce` makes the bytes unlike those of all others."""
    fields: dict[str, Any] = {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}
    digests = {name: value.hex() for name, value in fields.pop("digests").items()}
    details = json.dumps([fields.pop("tags"), digests]).encode()
    fields = {"format": FORMAT, "nonce": nonce, "details": len(details), **fields}
    block = json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace")
    if len(block) > _BLOCK_BYTES:
        raise Refusal("bad_path", "the path is too long for an upload in several requests")
    return block.ljust(_BLOCK_BYTES) + details


def _block_of(content: bytes) -> tuple[PartialState, int]:
    """Return the state without details, and their length. Raises `Refusal` for what is none."""
    try:
        fields = json.loads(content[:_BLOCK_BYTES])
        if fields.pop("format") != FORMAT:
            raise ValueError("a newer gateway wrote this state")
        details = int(fields.pop("details"))
        del fields["nonce"]
        return PartialState(**fields), details
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Refusal("internal", f"the state of a partial upload cannot be read: {error}") from error


def _with_details(state: PartialState, content: bytes) -> PartialState:
    try:
        tags, digests = json.loads(content)
        states = {name: bytes.fromhex(value) for name, value in digests.items()}
        for name, saved in states.items():
            check_saved(name, saved)
    except (ValueError, TypeError, AttributeError) as error:
        raise Refusal("internal", f"the state of a partial upload cannot be read: {error}") from error
    return dataclasses.replace(state, tags=tuple(tags), digests=states)
