"""Events room, NATS: an event as a message, and a message as a delivery.

The rule: a message carries all that a node needs which has never heard of the event. The attempt is
what the server counts, from the base that the message itself may carry.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from nats.aio.msg import Msg

from gateway.domain.model import Delivery, Origin
from gateway.events.protocols import NewEvent

MESSAGE_ID: Final = "Nats-Msg-Id"
ATTEMPTS: Final = "Gateway-Attempts"
"""How many attempts were used up before this message was published."""

DUE: Final = "Gateway-Due"
"""Unix time before which it must not be run. Its first delivery is spent on waiting for that."""


NEVER: Final = 0.0


class ForeignMessage(ValueError):
    """A message in our streams that this project did not write."""


@dataclass(slots=True)
class ClaimedMessage:
    """What settles a claimed delivery: the message, and until when (monotonic) it is ours.

    Once it is settled that is never.
    """

    message: Msg
    until: float

    @property
    def ours(self) -> bool:
        """Whether the lease has not run out. Afterwards the delivery belongs to somebody else."""
        return time.monotonic() < self.until

    @property
    def sequence(self) -> int:
        """Where the message stands in the queue."""
        return self.message.metadata.sequence.stream


def encode(event: NewEvent, handler: str, origin: Origin | None) -> bytes:
    """Return an event for one handler as JSON."""
    written: dict[str, Any] = {
        "id": event.id,
        "type": event.type,
        "handler": handler,
        "upload_id": event.upload_id,
        "path": event.path,
        "holder": event.holder,
        "created": event.created,
        "body": event.body,
    }
    if origin is not None:
        written["origin"] = asdict(origin)
    return json.dumps(written, separators=(",", ":")).encode()


def decode(data: bytes | None) -> tuple[NewEvent, str, Origin | None]:
    """Return the event, its handler and where its file is. Raises `ForeignMessage`."""
    try:
        read = json.loads(data or b"")
        event = NewEvent(
            id=str(read["id"]),
            type=str(read["type"]),
            handlers=(str(read["handler"]),),
            body=dict(read["body"]),
            created=float(read["created"]),
            upload_id=read["upload_id"],
            path=read["path"],
            holder=read["holder"],
        )
        return event, event.handlers[0], _origin(read.get("origin"))
    except (ValueError, KeyError, TypeError) as fault:
        raise ForeignMessage(f"this is no event of the gateway ({type(fault).__name__})") from fault


def attempt_of(message: Msg) -> int:
    """Return which attempt this delivery of `message` is, from 1."""
    return used(message.headers) + message.metadata.num_delivered - (due(message.headers) is not None)


def used(headers: Mapping[str, str] | None) -> int:
    """Return how many attempts were used up before the message was published."""
    text = (headers or {}).get(ATTEMPTS, "0")
    return int(text) if text.isascii() and text.isdigit() else 0


def due(headers: Mapping[str, str] | None) -> float | None:
    """Return the Unix time before which the message must not be run, None where it says none."""
    try:
        return float((headers or {})[DUE])
    except (KeyError, ValueError):
        return None


def delivery_of(message: Msg, handler: str, lease: float) -> Delivery:
    """Return what was claimed. Raises `ForeignMessage`."""
    event, _, origin = decode(message.data)
    body = dict(event.body)
    if event.path is not None:
        body["path"] = event.path
    return Delivery(
        token=ClaimedMessage(message, time.monotonic() + lease),
        event_id=event.id,
        upload_id=event.upload_id,
        event=event.type,
        handler=handler,
        attempt=attempt_of(message),
        body=body,
        holder=event.holder,
        created=event.created,
        origin=origin,
    )


def _origin(read: Any) -> Origin | None:
    if read is None:
        return None
    return Origin(read["scheme"], read.get("etag"))
