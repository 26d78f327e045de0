"""`/-/session/oidc`: a person signs in with OpenID Connect, in a browser.

The way back from the issuer is a navigation that another site began, on which a browser sends no Strict
cookie. So the callback answers with a page of this gateway, from where the browser goes on.
"""

from __future__ import annotations

import logging
from html import escape
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from aiohttp import hdrs

from gateway.auth.authenticator import Auth
from gateway.auth.oidc.pending import PENDING_TTL
from gateway.auth.request import IncomingRequest
from gateway.auth.sessions.access import SessionAccess
from gateway.auth.sessions.cookie import pending_of, session_of
from gateway.auth.tokens import token_digest
from gateway.domain.addresses import host_name
from gateway.endpoints.console.handler import PAGE_HEADERS
from gateway.endpoints.console.session import client_is_secure, sessions_are_kept
from gateway.endpoints.console.static_files import THEME
from gateway.errors import Refusal
from gateway.http.accept import prefers_html
from gateway.http.responses import ApiHandler, Response
from gateway.settings import Settings
from gateway.telemetry.logs import event

if TYPE_CHECKING:
    from gateway.auth.oidc.flow import OidcFlow

log = logging.getLogger("gateway.sessions")

PENDING_PATH: Final = "/-/session/oidc"
CALLBACK_PATH: Final = f"{PENDING_PATH}/callback"

_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{refresh}<title>{title} · Upload Gateway</title>
<link rel="stylesheet" href="{base}pages/gateway.css">
<link rel="stylesheet" href="{base}pages/console.css">
<link rel="stylesheet" href="{base}pages/console/sign-in.css">
{theme}<main id="main">
<section class="card sign-in">
<h1>{title}</h1>
<p>{text}</p>
<p><a class="button" href="{link}">{label}</a></p>
</section>
</main>
</html>
"""


class OidcEndpoint:
    """Begins and ends sign-ins; without a `flow` nobody can sign in this way."""

    def __init__(
        self, settings: Settings, auth: Auth, access: SessionAccess, flow: OidcFlow | None
    ) -> None:
        self._settings = settings
        self._auth = auth
        self._access = access
        self._flow = flow

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is served here."""
        return {"session.oidc": self._begin, "session.oidc.callback": self._end}

    async def _begin(self, incoming: IncomingRequest) -> Response:
        secret = session_of(incoming.headers)
        replaced = None if secret is None else token_digest(secret)
        path = incoming.params.get("return", [""])[0]
        try:
            begun = await self._required_flow().begin(path, replaced, self._redirect_uri(incoming))
        except Refusal as refusal:
            return self._refuse(incoming, refusal, "../")
        response = Response(status=303, headers={hdrs.LOCATION: begun.url})
        self._set_pending(incoming, response, begun.cookie, PENDING_TTL)
        return _private(response)

    async def _end(self, incoming: IncomingRequest) -> Response:
        try:
            response = await self._signed_in(incoming)
        except Refusal as refusal:
            response = self._refuse(incoming, refusal, "../../")
        self._set_pending(incoming, response, "", 0)
        return response

    async def _signed_in(self, incoming: IncomingRequest) -> Response:
        flow, params = self._required_flow(), incoming.params
        answer = {name: values[0] for name, values in params.items() if len(values) == 1}
        address = self._auth.proxies.client_address(incoming.remote, incoming.headers)
        secure = self._is_secure(incoming)
        cookie = pending_of(incoming.headers, secure=secure)
        with sessions_are_kept():
            holder, pending = await flow.end(cookie, answer, self._redirect_uri(incoming), address)
            secret, session = await self._access.sessions.begin(
                holder, secure=secure, replaced=pending.replaced or None
            )
        text = f"You are {holder.name}."
        response = self._page(200, "Signed in", text, (pending.path, "Go on"), "../../")
        seconds = session.expires - session.created
        response.headers.add(hdrs.SET_COOKIE, self._access.cookie.issue(secret, seconds))
        log.info("%s has signed in", holder.name, extra=event("session.begun", kind=holder.kind))
        return response

    def _required_flow(self) -> OidcFlow:
        if self._flow is None:
            raise Refusal("not_found", "nobody can sign in with OpenID Connect here: --oidc-issuer")
        return self._flow

    def _redirect_uri(self, incoming: IncomingRequest) -> str:
        """Return where the issuer sends the browser back to; it compares that with its own list."""
        if self._settings.public_url is not None:
            return self._settings.public_url + CALLBACK_PATH
        host = incoming.headers.get(hdrs.HOST, "")
        if not host_name(host):
            raise Refusal("bad_request", "the request has no valid Host")
        return f"{'https' if self._is_secure(incoming) else 'http'}://{host}{CALLBACK_PATH}"

    def _is_secure(self, incoming: IncomingRequest) -> bool:
        return client_is_secure(self._settings, self._auth, incoming)

    def _set_pending(
        self, incoming: IncomingRequest, response: Response, value: str, max_age: float
    ) -> None:
        path = urlsplit(self._settings.public_url or "").path + PENDING_PATH
        cookie = self._access.cookie.issue_pending(
            value, path, max_age, secure=self._is_secure(incoming)
        )
        response.headers.add(hdrs.SET_COOKIE, cookie)

    def _refuse(self, incoming: IncomingRequest, refusal: Refusal, base: str) -> Response:
        """Return the page that tells a person why it did not work. Raises `Refusal` for a program."""
        if not prefers_html(incoming.headers):
            raise refusal
        text = refusal.message[:1].upper() + refusal.message[1:] + "."
        link = f"{base}session", "Back to the sign-in"
        response = self._page(refusal.status, "The sign-in did not work", text, link, base)
        response.headers.update(refusal.headers)
        return response

    def _page(self, status: int, title: str, text: str, link: tuple[str, str], base: str) -> Response:
        """Return a page; a browser that has signed in goes on to the link by itself."""
        path, label = link
        refresh = f'<meta http-equiv="refresh" content="0; url={escape(path)}">\n'
        theme = f'<link rel="stylesheet" href="{base}pages/{THEME}">\n'
        body = _PAGE.format(
            refresh=refresh if status == 200 else "",
            theme="" if self._settings.web_theme is None else theme,
            title=escape(title),
            text=escape(text),
            link=escape(path),
            label=escape(label),
            base=base,
        )
        response = Response(status=status, text=body, content_type="text/html", charset="utf-8")
        response.headers.update(PAGE_HEADERS)
        return _private(response)


def _private(response: Response) -> Response:
    """Let no cache keep a response, and no other page learn its address, which has a code."""
    response.headers[hdrs.CACHE_CONTROL] = "no-store"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
