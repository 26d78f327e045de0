"""Whole files that are not visible yet, and what handlers of `APIGW.OnFileReceived` decide of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from gateway.domain.links import is_of_link
from gateway.domain.model import OnConflict, Stored, Upload
from gateway.domain.quotas import QuotaLeft

MAX_OUTPUT_LENGTH: Final = 2000
"""Characters of the output of a refusal that are told at `/-/uploads/<id>`."""


class Held(NamedTuple):
    """An upload that is whole and durable, and not visible before its handlers have decided.

    `result`, `quotas` and `tells_path` are as in `Stored`.
    """

    upload_id: str
    path: str
    bytes: int
    mime: str
    digests: dict[str, str]
    result: dict[str, Any] | None = None
    quotas: tuple[QuotaLeft, ...] = ()
    tells_path: bool = True


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


Outcome = TypeVar("Outcome", Stored, Held)


def merge_results(results: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return what handlers left for the client, in their order, as one object; None if nothing."""
    merged: dict[str, Any] = {}
    for result in results:
        merged |= result
    return merged or None


def add_result(outcome: Outcome, upload: Upload) -> Outcome:
    """Return an outcome of an upload with what its handlers left for the client.

    Who has a link is not told where the file is: its name may say that another one was taken.
    """
    if is_of_link(upload.principal):
        outcome = outcome._replace(tells_path=False)
    return outcome._replace(result=merge_results(upload.results.values())) if upload.results else outcome


def limit_to_credential(upload: Upload) -> None:
    """Limit an upload to what its URL was signed for, or its link is for; no handler can allow more.

    Through a link nothing is replaced, and nobody learns which names are taken.
    """
    if is_of_link(upload.principal):
        upload.on_conflict, upload.must_be_new = "rename", False
    grant = upload.grant
    if grant is None:
        return
    limits = [limit for limit in (grant.max_body_bytes, upload.max_bytes) if limit is not None]
    upload.max_bytes = min(limits, default=None)
    upload.on_conflict = grant.on_conflict or upload.on_conflict


def shown_refusal(handler: str, refusal: HandlerRefusal) -> dict[str, Any]:
    """Return what is told of a refused file at `/-/uploads/<id>`: who refused it, and with what."""
    output = refusal.body[: 4 * MAX_OUTPUT_LENGTH].decode(errors="replace")[:MAX_OUTPUT_LENGTH]
    answer = {"status": refusal.status, "content_type": refusal.content_type, "output": output}
    return {"handler": handler, **answer}
