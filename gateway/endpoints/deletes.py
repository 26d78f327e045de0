"""`DELETE` of an upload path: the file is removed, and `OnFileDeleted` told of it.

Nothing is removed before the request is authorized. Conditions that are not compared are refused: a
client that sends one relies on it.
"""

from __future__ import annotations

import logging
from typing import Final

from gateway.auth.authenticator import Auth
from gateway.auth.jwt.claims import truncated_principal
from gateway.auth.request import IncomingRequest
from gateway.commit.deletion import FileRemover, read_if_match
from gateway.domain.model import DELETING, FileRequest
from gateway.domain.path_template import PathMatch
from gateway.endpoints.file_requests import FileAuthorizer
from gateway.errors import Refusal
from gateway.http.responses import GatewayResponse, Response
from gateway.limits import FairShare
from gateway.plugins.hooks import Hooks
from gateway.settings import Settings
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.deletes")

MAX_DELETES: Final = 1000
"""Files that one process removes at the same time, of which each client gets its share."""

_NOT_COMPARED: Final = ("If", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since")


class DeleteHandler:
    """Handles removals. One object per process; `slot` goes into event ids."""

    def __init__(
        self, settings: Settings, auth: Auth, hooks: Hooks, remover: FileRemover, slot: int
    ) -> None:
        self.enabled = settings.deletes
        self._requests = FileAuthorizer(auth, hooks, slot, DELETING)
        self._remover = remover
        self._deletes = FairShare("removals of files", MAX_DELETES)

    async def delete(self, incoming: IncomingRequest, match: PathMatch) -> GatewayResponse:
        """Respond to a DELETE of an upload path. Raises `Refusal` (the file stays), `UnknownOutcome`."""
        requests = self._requests
        etags = expected_etags(incoming)
        deletion = await requests.authorize(incoming, match, requests.hooks.admit_deletion)
        return await self.remove(incoming, deletion, etags)

    async def remove(
        self, incoming: IncomingRequest, deletion: FileRequest, etags: frozenset[str] | None
    ) -> GatewayResponse:
        """Remove the file of an authorized request. Raises as `delete` does."""
        deletion.principal = truncated_principal(deletion.principal)
        with self._deletes.acquire(self._requests.auth.client_of(incoming)):
            await self._remover.remove(deletion, etags)
        log.info("removed %s", deletion.path, extra=event("file.removed", event_id=deletion.id))
        return Response(status=204)


def expected_etags(incoming: IncomingRequest) -> frozenset[str] | None:
    """Return the entity tags that `If-Match` allows, None for any. Raises `Refusal`."""
    headers = incoming.request.headers
    for name in _NOT_COMPARED:
        if name in headers:
            raise Refusal(
                "precondition_failed", f"the condition {name} is not supported here: use If-Match"
            )
    return read_if_match(headers.getall("If-Match", []))
