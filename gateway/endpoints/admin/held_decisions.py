"""`POST /-/uploads/<id>/release` and `.../reject`: an operator decides about a held upload.

The process that has the upload decides; the others are asked over their owners' sockets.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, Protocol
from urllib.parse import quote

from gateway.auth.request import IncomingRequest
from gateway.endpoints.admin.processes import ProcessClients, ProcessUnreachable, this_process_only
from gateway.endpoints.admin.upload_status import UploadStatusEndpoint
from gateway.endpoints.json_changes import read_change
from gateway.errors import EventEngineUnavailable, Refusal
from gateway.http.responses import ApiHandler, Response, json_response
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.admin")

MAX_REASON_LENGTH: Final = 1000
"""Characters of the reason of a rejection."""

OWNER_NAME: Final = "owner"
"""Who decides on the command line of the gateway's own machine."""

Verb = Literal["release", "reject"]

_NEXT_STATE: Final = {"release": "committing", "reject": "rejected"}
_FIELDS: Final = frozenset({"reason", "by"})


class Decisions(Protocol):
    """Decides about the held uploads of this process.

    Both methods raise `Refusal`: `not_found` where it has no such upload, `already_decided`; and
    `EventEngineUnavailable`.
    """

    async def release(self, upload_id: str, by: str) -> None:
        """Accept an upload: it is published."""

    async def reject(self, upload_id: str, reason: str, by: str) -> None:
        """Reject an upload: it is removed."""


@dataclass(slots=True, frozen=True)
class HeldDecisionsEndpoint:
    """Serves both. `status` tells whether an upload that is held by nobody is known at all."""

    decisions: Decisions
    processes: ProcessClients
    status: UploadStatusEndpoint

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is served here."""
        return {
            "upload.release": partial(self._decide, "release"),
            "upload.reject": partial(self._decide, "reject"),
        }

    async def _decide(self, verb: Verb, incoming: IncomingRequest) -> Response:
        upload_id, alone = incoming.variables["upload_id"], this_process_only(incoming)
        try:
            reason, by = _read(await read_change(incoming.request), incoming)
        except ValueError as error:
            raise Refusal("bad_request", str(error)) from error
        try:
            await self._decide_here(verb, upload_id, reason, by)
        except Refusal as refusal:
            if refusal.code != "not_found" or alone:
                raise
            await self._decide_elsewhere(verb, upload_id, {"reason": reason, "by": by})
        except EventEngineUnavailable as error:
            raise Refusal(
                "journal_unavailable", f"held uploads cannot be decided now: {error}"
            ) from error
        return json_response({"upload_id": upload_id, "state": _NEXT_STATE[verb]})

    async def _decide_here(self, verb: Verb, upload_id: str, reason: str, by: str) -> None:
        about = {"upload_id": upload_id, "principal": by}
        if verb == "release":
            await self.decisions.release(upload_id, by)
            log.info("%s releases a held upload", by, extra=event("upload.released", **about))
        else:
            await self.decisions.reject(upload_id, reason, by)
            about["reason"] = reason
            log.info("%s rejects a held upload", by, extra=event("upload.rejected", **about))

    async def _decide_elsewhere(self, verb: Verb, upload_id: str, body: dict[str, Any]) -> None:
        """Let the process decide that has the upload. Raises `Refusal`."""
        path = f"/-/uploads/{quote(upload_id, safe='').replace('.', '%2E')}/{verb}"
        unreachable = False
        for slot in self.processes.sessions:
            try:
                status, answer = await self.processes.post(slot, path, body)
            except ProcessUnreachable:
                unreachable = True
                continue
            if status == 200:
                return
            if status == 409:
                raise Refusal("already_decided", str(answer.get("message")))
            unreachable = unreachable or status != 404
        if unreachable:
            raise Refusal(
                "process_unavailable", "the process that may hold this upload does not respond"
            )
        story = await self.status.find(upload_id)
        if story is None:
            raise Refusal("not_found", "no upload of this id is known (any more)")
        raise Refusal("already_decided", f"this upload is not held: it is {story['state']}")


def _read(body: dict[str, Any], incoming: IncomingRequest) -> tuple[str, str]:
    """Return the reason of a request and who decides. Raises `ValueError`.

    Only another process of this gateway, which has authenticated its client, may say who that was.
    """
    forwarded = incoming.owner and this_process_only(incoming)
    if unknown := body.keys() - (_FIELDS if forwarded else {"reason"}):
        raise ValueError(f"a decision has no {sorted(unknown)[0]!r}; it has a reason, or nothing")
    reason = body.get("reason", "")
    if not isinstance(reason, str) or len(reason) > MAX_REASON_LENGTH:
        raise ValueError(f"reason is a text of at most {MAX_REASON_LENGTH} characters")
    if forwarded:
        return reason, str(body.get("by", OWNER_NAME))
    if incoming.owner:
        return reason, OWNER_NAME
    return reason, "anyone" if incoming.operator is None else str(incoming.operator["name"])
