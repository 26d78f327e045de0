"""`POST /-/links/open`: what a link is for; and a credential in exchange for its password.

Links that never were, were revoked, or have expired get one and the same answer.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any, Final

from gateway.auth.authenticator import Auth
from gateway.auth.links.access import LinkAccess
from gateway.auth.links.creation import upload_folder
from gateway.auth.links.holders import LinkBearer
from gateway.auth.links.link import Link, link_unavailable
from gateway.auth.links.passwords import LinkPasswords
from gateway.auth.presented import presented_tokens
from gateway.auth.request import IncomingRequest
from gateway.domain.units import iso_time
from gateway.endpoints.links.counts import LinkCounts
from gateway.errors import Refusal
from gateway.http.request_body import read_small_body
from gateway.http.responses import ApiHandler, Response, json_response
from gateway.limits.clients import client_network
from gateway.settings import Settings
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.links")

MAX_BODY_BYTES: Final = 16 << 10


@dataclass(frozen=True, slots=True)
class LinkOpening:
    """Serves the request of a person's page, and of a program, that got a link."""

    settings: Settings
    auth: Auth
    access: LinkAccess
    passwords: LinkPasswords
    counts: LinkCounts

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is served here."""
        return {"links.open": self._open}

    async def _open(self, incoming: IncomingRequest) -> Response:
        self.auth.local_only.refuse_proxy(incoming.headers)
        holder = self.access.holders.find(presented_tokens(incoming.headers))
        if holder is None:
            raise link_unavailable()
        link, bearer = holder.link, None
        if not holder.is_open:
            password = await _read_password(incoming)
            if password is None:
                return _answer(_common_fields(link, needs_password=True))
            remote = self.auth.proxies.client_address(incoming.remote, incoming.headers)
            await self.passwords.check(link, password, client_network(remote or ""))
            bearer = self.access.holders.exchange(self.access.holders.in_force(link.id))
        log.info("link %s: opened", link.id, extra=event("link.opened", link=link.id))
        body = _common_fields(link, needs_password=False) | {"folder": link.folder_name}
        return _answer(body | _shown_bearer(bearer) | await self._drop_fields(link))

    async def _drop_fields(self, link: Link) -> dict[str, Any]:
        """Return where uploads go, and what may come. Raises `Refusal("records_unavailable")`."""
        if link.kind != "drop":
            return {}
        used = (await self.counts.of([link]))[link.id]
        left = {
            "files": None if link.max_files is None else max(link.max_files - used.files, 0),
            "bytes": None if link.max_bytes is None else max(link.max_bytes - used.bytes, 0),
        }
        settings = self.settings
        limits = [limit for limit in (settings.max_bytes, left["bytes"]) if limit is not None]
        return {
            "upload": upload_folder(settings.upload_template, link.folder),
            "left": left,
            "max_bytes": min(limits, default=None),
            "resumable": settings.resumable,
            "types": list(settings.types),
            "suffixes": list(settings.suffixes),
        }


def _common_fields(link: Link, *, needs_password: bool) -> dict[str, Any]:
    """Return what is told before the password, too."""
    return {
        "id": link.id,
        "kind": link.kind,
        "expires": None if link.expires is None else iso_time(link.expires),
        "needs_password": needs_password,
    }


def _shown_bearer(bearer: LinkBearer | None) -> dict[str, Any]:
    if bearer is None:
        return {}
    return {"bearer": bearer.token, "bearer_expires": iso_time(bearer.expires)}


def _answer(body: dict[str, Any]) -> Response:
    response = json_response(body)
    response.headers["Cache-Control"] = "no-store"
    return response


async def _read_password(incoming: IncomingRequest) -> str | None:
    """Return the password of a request, None where it has none. Raises `Refusal`."""
    content = await read_small_body(incoming.request, MAX_BODY_BYTES)
    if not content.strip():
        return None
    try:
        body = json.loads(content)
        password = body.get("password")
    except (ValueError, AttributeError, RecursionError):
        raise Refusal("bad_request", 'send JSON: {"password": "..."}') from None
    if password is not None and not isinstance(password, str):
        raise Refusal("bad_request", "password: must be a text")
    return password
