"""An event as a message, and a message as a delivery.

A message carries all that another node needs to run it. The attempt is what the server counts, plus the
base that the message may carry.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from nats.aio.msg import Msg

from gateway.domain.model import Delivery, Identity, Origin
from gateway.events.protocols import NewEvent

MESSAGE_ID: Final = "Nats-Msg-Id"
ATTEMPTS: Final = "Gateway-Attempts"
"""How many attempts were used up before this message was published."""

DUE: Final = "Gateway-Due"
"""Unix time before which it must not be run. Its first delivery only begins that wait."""

MAX_ENVELOPE_BYTES: Final = 8192
"""Bytes of a message beside the event's body: ids, names, the path once more."""

NEVER: Final = 0.0

_ETAG_WITH_DEVICE: Final = re.compile("[0-9a-f]{24}")


class ForeignMessage(ValueError):
    """A message in the streams that no gateway wrote."""


@dataclass(slots=True)
class ClaimedMessage:
    """The message of a claimed delivery, and when (monotonic) its lease ends: `NEVER` once settled."""

    message: Msg
    until: float

    @property
    def leased(self) -> bool:
        """Whether the lease still holds. Afterwards another process may have the delivery."""
        return time.monotonic() < self.until

    @property
    def sequence(self) -> int:
        """The sequence of the message in the queue."""
        return self.message.metadata.sequence.stream


def encode(event: NewEvent, handler: str, origin: Origin | None) -> bytes:
    """Return an event for one handler as JSON."""
    fields: dict[str, Any] = {
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
        fields["origin"] = asdict(origin)
    return json.dumps(fields, separators=(",", ":")).encode()


def decode(data: bytes | None) -> tuple[NewEvent, str, Origin | None]:
    """Return the event, its handler and where its file is. Raises `ForeignMessage`."""
    try:
        fields = json.loads(data or b"")
        origin = fields.get("origin")
        event = NewEvent(
            id=str(fields["id"]),
            type=str(fields["type"]),
            handlers=(str(fields["handler"]),),
            body=dict(fields["body"]),
            created=float(fields["created"]),
            upload_id=fields["upload_id"],
            path=fields["path"],
            holder=fields["holder"],
        )
        node = None if origin is None else Origin(origin["scheme"], _etag_of(origin))
        return event, event.handlers[0], node
    except (ValueError, KeyError, TypeError) as error:
        raise ForeignMessage(f"this is no event of the gateway ({type(error).__name__})") from error


def _etag_of(origin: Mapping[str, Any]) -> str | None:
    """Return the entity tag of a file, None where its owner is to be asked for it.

    Earlier versions name device, inode, size and mtime (zeros for an object), or a tag that covers the
    device, of 24 digits.
    """
    identity, etag = origin.get("identity"), origin.get("etag")
    if identity:
        return Identity(*identity[1:]).etag if identity[0] else None
    return None if etag is None or _ETAG_WITH_DEVICE.fullmatch(etag) else etag


def attempt_of(message: Msg) -> int:
    """Return the number of this attempt, from 1."""
    waited = due_time(message.headers) is not None
    return used_attempts(message.headers) + message.metadata.num_delivered - waited


def used_attempts(headers: Mapping[str, str] | None) -> int:
    """Return how many attempts were used up before the message was published."""
    text = (headers or {}).get(ATTEMPTS, "0")
    return int(text) if text.isascii() and text.isdigit() else 0


def due_time(headers: Mapping[str, str] | None) -> float | None:
    """Return the Unix time before which the message must not be run, None where it has none."""
    try:
        return float((headers or {})[DUE])
    except (KeyError, ValueError):
        return None


def delivery_of(message: Msg, handler: str, lease: float) -> Delivery:
    """Return a message as a claimed delivery. Raises `ForeignMessage`."""
    event, _, origin = decode(message.data)
    body = event.body if event.path is None else {**event.body, "path": event.path}
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


def redelivery(delay: float) -> bytes:
    """Return the request for a redelivery after `delay` seconds."""
    return b"-NAK " + json.dumps({"delay": int(delay * 1e9)}).encode() if delay > 0 else b"-NAK"


def fitting(fields: dict[str, Any], limit: int) -> bytes:
    """Return the fields as JSON. Where they are too long the result is left out, and the error cut."""
    payload = json.dumps(fields, separators=(",", ":")).encode()
    if len(payload) > limit and fields.pop("result", None) is not None:
        payload = json.dumps(fields, separators=(",", ":")).encode()
    while len(payload) > limit and fields["error"]:
        fields["error"] = fields["error"][: len(fields["error"]) // 2]
        payload = json.dumps(fields, separators=(",", ":")).encode()
    return payload
