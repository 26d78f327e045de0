"""`/-/session`: who calls, and what a page may offer it."""

from __future__ import annotations

from typing import Any

from aiohttp import hdrs

from gateway import __version__
from gateway.auth.authenticator import Auth
from gateway.auth.principals import JWT
from gateway.auth.request import Caller, IncomingRequest
from gateway.domain.template_segments import LITERAL, REST, Segments
from gateway.endpoints.inflight import named_principal
from gateway.http.responses import ApiHandler, Response, json_response
from gateway.settings import Settings


class SessionEndpoint:
    """Tells a caller who it is here."""

    def __init__(self, settings: Settings, auth: Auth) -> None:
        self._settings = settings
        self._auth = auth

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is served here."""
        return {"session": self._describe}

    async def _describe(self, incoming: IncomingRequest) -> Response:
        if not incoming.owner:
            self._auth.local_only.refuse_proxy(incoming.headers)
        caller = await self._auth.authenticate(incoming, jwt=self._auth.mode == JWT)
        response = json_response(self._facts(caller))
        response.headers[hdrs.CACHE_CONTROL] = "no-store"
        return response

    def _facts(self, caller: Caller) -> dict[str, Any]:
        settings = self._settings
        return {
            "principal": named_principal(caller.principal),
            "role": self._auth.role(caller),
            "signed_in": False,
            "expires": None,
            "authorization": settings.auth,
            "ways": [] if settings.auth == "none" else ["token"],
            "version": __version__,
            "uploads": _upload_facts(settings),
            "features": {
                "listing": settings.listing,
                "downloads": settings.downloads,
                "deletes": settings.deletes,
            },
        }


def _upload_facts(settings: Settings) -> dict[str, Any]:
    return {
        "template": settings.upload_template.text,
        "folder": _upload_folder(settings.upload_template.segments),
        "max_bytes": settings.max_bytes,
        "resumable": settings.resumable,
        "types": list(settings.types),
        "suffixes": list(settings.suffixes),
    }


def _upload_folder(segments: Segments) -> str | None:
    """Return the folder of upload URLs, None where variables precede the name of the file."""
    *before, last = segments
    if last.kind == LITERAL or any(segment.kind != LITERAL for segment in before):
        return None
    if last.kind != REST and last.text != "filename":
        return None
    return "".join(f"/{segment.text}" for segment in before) + "/"
