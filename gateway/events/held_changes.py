"""What a decision makes of a held upload, and how a refusal is kept. Pure."""

from __future__ import annotations

from typing import Any

from gateway.domain import paths
from gateway.domain.held import Decision, HandlerRefusal, shown_refusal
from gateway.domain.links import is_of_link
from gateway.errors import Refusal


def changed_upload(fields: dict[str, Any], decision: Decision, handler: str) -> dict[str, Any]:
    """Return the fields of an upload after a decision; where nothing is decided they stay.

    The conflict policy of a signed URL, or of a link, counts more than that of a handler.
    """
    changed = dict(fields)
    if decision.path is not None:
        changed["path"] = "/" + decision.path.removeprefix("/")
    if decision.metadata is not None:
        changed["metadata"] = decision.metadata
    granted = (fields.get("grant") or {}).get("on_conflict")
    is_fixed = granted is not None or is_of_link(fields.get("principal"))
    if decision.on_conflict is not None and not is_fixed:
        changed["on_conflict"] = decision.on_conflict
    if decision.result is not None:
        changed["results"] = {**fields["results"], handler: decision.result}
    return changed


def check_decision(decision: Decision) -> Refusal | None:
    """Return why a file can never have the path that a decision gives it, None where it can."""
    try:
        if decision.path is not None:
            paths.check_path(decision.path)
    except Refusal as refusal:
        return refusal
    return None


def refusal_fields(
    *,
    handler: str | None = None,
    refusal: HandlerRefusal | None = None,
    code: str | None = None,
    reason: str | None = None,
    by: str | None = None,
) -> dict[str, Any]:
    """Return what is kept of a rejection: by a `handler`, by an operator (`by`), or by the commit."""
    fields: dict[str, Any] = {"handler": handler, "code": code, "reason": reason, "by": by}
    if refusal is not None and handler is not None:
        fields |= shown_refusal(handler, refusal) | {"content_type": refusal.content_type}
    return {name: value for name, value in fields.items() if value is not None}


def failure_reason(refusal: dict[str, Any] | None) -> str:
    """Return the code that handlers of OnFileUploadFailed get of a rejection."""
    return str((refusal or {}).get("code") or "rejected")
