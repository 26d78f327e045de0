"""What the answer of a deciding webhook means: accepted, changed or refused, else failed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from gateway.domain.model import DELETING, DOWNLOADING, LISTING, RECEIVED, UPLOADING
from gateway.plugins.scripting.decision import JSON, TEXT, Handle, InvalidResult, Verdict
from gateway.plugins.scripting.values import Event
from gateway.plugins.webhooks.sending import WebhookAnswer, failure_of

KEYS: Final[Mapping[str, frozenset[str]]] = {
    UPLOADING: frozenset({"path", "max_bytes", "on_conflict", "metadata", "result"}),
    RECEIVED: frozenset({"path", "on_conflict", "metadata", "result"}),
    DOWNLOADING: frozenset({"path", "filename", "cache_control", "allow_archive"}),
    LISTING: frozenset({"path"}),
    DELETING: frozenset({"path"}),
}
"""The keys of an answer that accepts, by event. Their values are checked as those of a script."""


def take_decision(event_name: str, answer: WebhookAnswer, event: Event, handle: Handle) -> None:
    """Write what a receiver decided to `event` and `handle`.

    2xx accepts, 4xx refuses. Raises `InvalidResult` for an answer that is not understood, which never
    accepts, and `WebhookFailed` for another status.
    """
    if 400 <= answer.status < 500:
        handle.verdict = _refusal(answer)
        return
    if not 200 <= answer.status < 300:
        raise failure_of(answer)
    try:
        changes = _changes(event_name, answer.body)
        if "result" in changes:
            handle.result(changes.pop("result"))
    except InvalidResult as error:
        handle.invalid = error
        raise
    for key, value in changes.items():
        dict.__setitem__(event, key, value)


def _changes(event_name: str, body: bytes) -> dict[str, Any]:
    """Return the keys of an answer that accepts. Raises `InvalidResult`."""
    if not body.strip():
        return {}
    try:
        changes = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidResult("the answer is neither empty nor JSON") from None
    if not isinstance(changes, dict):
        raise InvalidResult("the answer is no JSON object")
    if unknown := changes.keys() - KEYS[event_name]:
        keys = ", ".join(sorted(KEYS[event_name]))
        raise InvalidResult(f"the answer has an unknown key {min(unknown)[:40]!r}: the keys are {keys}")
    return changes


def _refusal(answer: WebhookAnswer) -> Verdict:
    media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    content_type = JSON if media_type == JSON else TEXT
    body = answer.body.decode("utf-8", "replace").encode()
    return Verdict(answer.status, body, content_type, _output(body, content_type))


def _output(body: bytes, content_type: str) -> Any:
    """Return the body as tests compare it."""
    if not body:
        return None
    try:
        return json.loads(body) if content_type == JSON else body.decode()
    except (ValueError, RecursionError):
        return body.decode()
