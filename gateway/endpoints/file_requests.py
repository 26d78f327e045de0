"""Authorizes requests for stored files: by default, or by the handlers of an event that decide.

Whatever fails refuses. Nothing of a file is disclosed before its request is authorized.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from gateway.auth.authenticator import Auth
from gateway.auth.principals import JWT
from gateway.auth.request import IncomingRequest
from gateway.domain import paths
from gateway.domain.grant import Grant
from gateway.domain.model import FileRequest, new_id
from gateway.domain.path_template import PathMatch
from gateway.errors import Refusal
from gateway.http.header_fields import headers_as_dict
from gateway.plugins.hooks import Hooks
from gateway.telemetry import tracing
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.files")


class Asker(NamedTuple):
    """Who sends a request, and what its signed URL allows."""

    principal: dict[str, Any] | None
    grant: Grant | None


class FileAuthorizer:
    """Authorizes the requests of one event. `slot` goes into event ids."""

    def __init__(self, auth: Auth, hooks: Hooks, slot: int, event_name: str) -> None:
        self.auth = auth
        self.hooks = hooks
        self._slot = slot
        self._event = event_name

    async def authenticate(self, incoming: IncomingRequest) -> Asker:
        """Return who sends a request. Raises `Refusal` for a signed URL of another request.

        And for a link: what one shares has signed URLs, what was uploaded through one is not shown.
        """
        replaced = self.hooks.replaces_authorization(self._event)
        caller = await self.auth.authenticate(incoming, jwt=self.auth.mode == JWT and not replaced)
        if caller.link is not None:
            raise Refusal("forbidden", "this link does not allow that: it shows no files here")
        return Asker(caller.principal, caller.grant)

    def authorize_default(self, request: FileRequest) -> None:
        """Apply the default authorization, where no handler decides instead. Raises `Refusal`."""
        if self.hooks.replaces_authorization(self._event):
            return
        try:
            self.auth.authorize(request.principal)
        except Refusal as refusal:
            self.hooks.shadows.beside_default(self._event, request, refusal)
            raise

    def fields(
        self, incoming: IncomingRequest, match: PathMatch, principal: dict[str, Any] | None
    ) -> dict[str, Any]:
        """Return the fields of the `FileRequest` that handlers see."""
        request, headers = incoming.request, incoming.request.headers
        return {
            "id": new_id(self._slot),
            "path": match.path,
            "resources": match.resources,
            "params": incoming.params,
            "headers": headers_as_dict(headers),
            "method": request.method,
            "remote": self.auth.proxies.client_address(request.remote, headers),
            "principal": principal,
            "traceparent": tracing.current().traceparent,
        }

    async def authorize(
        self,
        incoming: IncomingRequest,
        match: PathMatch,
        decide: Callable[[FileRequest], Awaitable[str | None]],
    ) -> FileRequest:
        """Authorize a request; `decide` runs the handlers, which may change its path.

        Raises `Refusal`.
        """
        asker = await self.authenticate(incoming)
        incoming.reject_unenforceable_grant()
        request = FileRequest(**self.fields(incoming, match, asker.principal))
        self.authorize_default(request)
        path = await decide(request)
        if path is not None:
            check_rewritten_path(request.path, path)
            request.path = path
        return request


def check_rewritten_path(requested: str, path: str) -> None:
    """Raise `Refusal("hook_failed")`: a bad path that a handler wrote is no client's mistake.

    The path of a folder ends with a slash, and stays one.
    """
    if path == requested:
        return
    is_folder = requested.endswith("/")
    try:
        if is_folder and not path.endswith("/"):
            raise Refusal("bad_path", "a folder ends with a slash")
        paths.check_path(path.removesuffix("/") if is_folder else path)
    except Refusal as refusal:
        message = "a handler rewrote the path to one that is not allowed"
        log.error("%s: %s", message, refusal, extra=event("hook.failed", path=path))
        raise Refusal("hook_failed", message) from refusal
