"""Commit room: what is ordered, what became of it, and what is known of it in between.

Plain data; the steps are in `batch`. May import events, storage, model, errors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.errors import Refusal, Unanswered
from gateway.events.outbox import Record
from gateway.model import UPLOADED, Identity, Stored, Upload
from gateway.storage.incoming import Body
from gateway.storage.parent import Parent


@dataclass(slots=True)
class Order:
    """A received body to be committed: what it is, and what its handlers will be told.

    `tell` is called only where there are handlers. `looked` is False where nobody has looked yet
    whether the disk has room for it.
    """

    upload: Upload
    body: Body
    mime: str
    digests: dict[str, str]
    tell: Callable[[], dict[str, Any]]
    looked: bool = True


@dataclass(slots=True)
class Verdicts:
    """What became of a batch's orders, by upload id, and the events that may now be delivered.

    Filled as the steps go, so that it holds what is known even if a step breaks down.
    """

    outcomes: dict[str, Stored | Refusal | Unanswered] = field(default_factory=dict)
    event_ids: list[str] = field(default_factory=list)


_UNKNOWN: Final = Identity(0, 0, 0, 0)


@dataclass(slots=True)
class Staged:
    """An order whose bytes are in its file, with the folder it goes to, held open."""

    order: Order
    parent: Parent
    segments: tuple[str, ...]
    handlers: tuple[str, ...]
    event_id: str
    replaced: bool
    identity: Identity = _UNKNOWN

    @property
    def upload(self) -> Upload:
        """The upload that was ordered."""
        return self.order.upload

    @property
    def path(self) -> str:
        """The path as clients and handlers know it, with the name that was chosen."""
        return "/" + "/".join([*self.segments[:-1], self.parent.name])


def record_of(item: Staged) -> Record:
    """Return what the journal keeps of a sealed upload."""
    upload, order = item.upload, item.order
    return Record(
        upload_id=upload.id,
        path=item.path,
        identity=item.identity,
        mime=order.mime,
        digests=order.digests,
        principal=upload.principal,
        remote=upload.remote,
        created=upload.created,
        event_id=item.event_id,
        event_type=UPLOADED,
        event_body={**order.tell(), "bytes": item.identity.size} if item.handlers else {},
        handlers=item.handlers,
    )
