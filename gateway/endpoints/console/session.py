"""`/-/session`: who calls, what a page may offer it; signing in with a token, and signing out."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from aiohttp import hdrs

from gateway import __version__
from gateway.auth.authenticator import Auth
from gateway.auth.foreign_pages import refuse_foreign_page
from gateway.auth.principals import JWT
from gateway.auth.request import Caller, IncomingRequest, RequestHead
from gateway.auth.sessions.access import SessionAccess, oidc_source
from gateway.auth.sessions.cookie import session_of
from gateway.auth.sessions.sign_in import SignIn
from gateway.auth.tokens import token_digest
from gateway.domain.template_segments import LITERAL, REST, Segments
from gateway.domain.units import iso_time
from gateway.endpoints.inflight import named_principal
from gateway.endpoints.json_changes import read_change
from gateway.errors import ConfigError, Refusal
from gateway.http.responses import ApiHandler, Response, json_response
from gateway.settings import Settings
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.sessions")


class SessionEndpoint:
    """Tells a caller who it is here; begins and ends sessions."""

    def __init__(self, settings: Settings, auth: Auth, access: SessionAccess, sign_in: SignIn) -> None:
        self._settings = settings
        self._auth = auth
        self._access = access
        self._sign_in = sign_in

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is served here."""
        return {
            "session": self._describe,
            "session.begin": self._begin,
            "session.end": self._end,
        }

    async def _describe(self, incoming: IncomingRequest) -> Response:
        self._refuse_proxy(incoming)
        caller = await self._auth.authenticate(incoming, jwt=self._auth.mode == JWT)
        return _uncached(json_response(self._facts(caller)))

    async def _begin(self, incoming: IncomingRequest) -> Response:
        self._refuse_proxy(incoming)
        try:
            token = (await read_change(incoming.request))["token"]
        except (ValueError, KeyError):
            raise Refusal("bad_request", 'send JSON: {"token": "..."}') from None
        if not isinstance(token, str) or not token.strip():
            raise Refusal("bad_request", "the token is empty")
        address = self._auth.proxies.client_address(incoming.remote, incoming.headers)
        holder, end = await self._sign_in.holder_of(token.strip(), address)
        secure = client_is_secure(self._settings, self._auth, incoming)
        before = session_of(incoming.headers)
        replaced = None if before is None else token_digest(before)
        with sessions_are_kept():
            secret, session = await self._access.sessions.begin(
                holder, secure=secure, replaced=replaced, end=end
            )
        response = Response(status=204)
        seconds = session.expires - session.created
        response.headers[hdrs.SET_COOKIE] = self._access.cookie.issue(secret, seconds)
        return _uncached(response)

    async def _end(self, incoming: IncomingRequest) -> Response:
        refuse_foreign_page(incoming, ())
        secret, cookie = session_of(incoming.headers), self._access.cookie
        if secret is not None:
            with sessions_are_kept():
                await self._access.sessions.end(secret)
        response = Response(status=204)
        secure = client_is_secure(self._settings, self._auth, incoming)
        response.headers[hdrs.SET_COOKIE] = cookie.expire(secure=secure)
        return _uncached(response)

    def _refuse_proxy(self, incoming: IncomingRequest) -> None:
        if not incoming.owner:
            self._auth.local_only.refuse_proxy(incoming.headers)

    def _facts(self, caller: Caller) -> dict[str, Any]:
        settings, session = self._settings, caller.session
        return {
            "principal": named_principal(caller.principal),
            "role": self._auth.role(caller),
            "signed_in": session is not None,
            "expires": None if session is None else iso_time(session.expires),
            "authorization": settings.auth,
            "ways": self._ways(),
            "version": __version__,
            "uploads": _upload_facts(settings),
            "features": {
                "listing": settings.listing,
                "downloads": settings.downloads,
                "deletes": settings.deletes,
            },
        }

    def _ways(self) -> list[str]:
        """Return how one may sign in: without a default authorization, only where there are tokens."""
        needed = self._settings.auth != "none"
        token = ["token"] if needed or not self._auth.tokens.is_empty else []
        return [*token, *(["oidc"] if oidc_source(self._settings) is not None else [])]


@contextlib.contextmanager
def sessions_are_kept() -> Iterator[None]:
    """Turn what is wrong with the file of the sessions into `Refusal("sessions_unavailable")`."""
    try:
        yield
    except ConfigError as error:
        log.error("%s", error, extra=event("sessions.unavailable"))
        raise Refusal("sessions_unavailable", "sessions cannot be kept now: try again") from error


def client_is_secure(settings: Settings, auth: Auth, head: RequestHead) -> bool:
    """Tell whether the client speaks HTTPS, so that its cookies need it."""
    of_proxy = auth.proxies.client_speaks_https(head.remote, head.headers)
    if of_proxy is not None:
        return of_proxy
    return settings.tls_cert is not None or urlsplit(settings.public_url or "").scheme == "https"


def _uncached(response: Response) -> Response:
    response.headers[hdrs.CACHE_CONTROL] = "no-store"
    return response


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
