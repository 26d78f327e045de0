"""Whole files that are not visible yet, and what handlers of `APIGW.OnFileReceived` decide of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from gateway.domain.model import OnConflict

MAX_OUTPUT_LENGTH: Final = 2000
"""Characters of the output of a refusal that are told at `/-/uploads/<id>`."""


class Held(NamedTuple):
    """An upload that is whole and durable, and not visible before its handlers have decided."""

    upload_id: str
    path: str
    bytes: int
    mime: str
    digests: dict[str, str]


class PrivateFile(NamedTuple):
    """A whole body that nobody but handlers of `APIGW.OnFileReceived` reads: a file or an object.

    `path` is absolute, None for an object; `key` is that of the object, None for a file.
    """

    size: int
    path: Path | None = None
    key: str | None = None


@dataclass(slots=True, frozen=True)
class Decision:
    """What a handler of `APIGW.OnFileReceived` decided: a refusal, or changes; None: as it was.

    `result` is for the client, in both cases.
    """

    refusal: HandlerRefusal | None = None
    path: str | None = None
    on_conflict: OnConflict | None = None
    metadata: dict[str, str] | None = None
    result: dict[str, Any] | None = None


class HandlerRefusal(NamedTuple):
    """The `terminate(code >= 400)` of a handler: the status and the body of the response."""

    status: int
    body: bytes
    content_type: str


def shown_refusal(handler: str, refusal: HandlerRefusal) -> dict[str, Any]:
    """Return what is told of a refused file at `/-/uploads/<id>`: who refused it, and with what."""
    output = refusal.body[: 4 * MAX_OUTPUT_LENGTH].decode(errors="replace")[:MAX_OUTPUT_LENGTH]
    return {"handler": handler, "status": refusal.status, "output": output}
