"""Begins and ends a sign-in with OpenID Connect. Each answer of the issuer counts once.

An answer is only looked at in the browser that has begun (its cookie), with the state of that sign-in.
Sources: OpenID Connect Core 1.0 section 3.1.2, RFC 9207 (mix-up), RFC 9700 section 2.1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import urlencode

from gateway.auth.oidc.pending import PendingSigner, PendingSignIn, challenge_of
from gateway.auth.oidc.person import person_of
from gateway.auth.oidc.provider import CodeExchange, OidcProvider
from gateway.auth.principals import OIDC
from gateway.auth.sessions.access import SessionAccess, oidc_source
from gateway.auth.sessions.session import SessionHolder
from gateway.auth.sessions.sign_in import FailureLimit
from gateway.errors import Refusal
from gateway.settings import Settings

DEFAULT_SCOPES: Final = ("profile", "email")

MAX_SHOWN_CHARS: Final = 500
"""Characters of an error of the issuer that are shown."""


class BegunSignIn(NamedTuple):
    """Where the browser goes, and the cookie with which it comes back."""

    url: str
    cookie: str


class EndedSignIn(NamedTuple):
    """Who has signed in, and the sign-in that has ended."""

    holder: SessionHolder
    pending: PendingSignIn


class OidcFlow:
    """Signs people in with the issuer of the settings."""

    def __init__(
        self,
        settings: Settings,
        provider: OidcProvider,
        signer: PendingSigner,
        access: SessionAccess,
        limit: FailureLimit,
    ) -> None:
        self._provider = provider
        self._signer = signer
        self._access = access
        self._limit = limit
        self._issuer = settings.oidc_issuer or ""
        self._source = oidc_source(settings) or ""
        self._wanted = frozenset({*settings.jwt_operators, *settings.oidc_groups})
        scopes = dict.fromkeys(("openid", *(settings.oidc_scopes or DEFAULT_SCOPES)))
        self._query = {
            "response_type": "code",
            "client_id": settings.oidc_client_id or "",
            "scope": " ".join(scopes),
            "code_challenge_method": "S256",
        }

    async def begin(self, path: str, replaced: str | None, redirect_uri: str) -> BegunSignIn:
        """Begin a sign-in that goes on to `path`; it ends the session with the digest `replaced`.

        Raises `Refusal("issuer_unavailable")`.
        """
        endpoint = await self._provider.authorization_endpoint()
        pending = self._signer.begin(path, replaced)
        query = urlencode(
            {
                **self._query,
                "redirect_uri": redirect_uri,
                "state": self._signer.state(pending),
                "nonce": self._signer.nonce(pending),
                "code_challenge": challenge_of(self._signer.verifier(pending)),
            }
        )
        mark = "&" if "?" in endpoint else "?"
        return BegunSignIn(f"{endpoint}{mark}{query}", self._signer.encode(pending))

    async def end(
        self, cookie: str | None, answer: Mapping[str, str], redirect_uri: str, address: str | None
    ) -> EndedSignIn:
        """Return who has signed in, by the answer that a browser brings from the issuer.

        Raises Refusal: `bad_request` where it is no answer to a sign-in of this browser; `forbidden`
        where the issuer, or the settings, do not let the person in; `unauthorized`,
        `too_many_requests`, `issuer_unavailable`. Raises `ConfigError`.
        """
        self._limit.check(address)
        pending = None if cookie is None else self._signer.decode(cookie)
        if pending is None:
            raise Refusal(
                "bad_request",
                "no sign-in has begun in this browser, or it took longer than 10 minutes: begin again",
            )
        if not self._signer.has_state(pending, answer.get("state", "")):
            raise Refusal("bad_request", "this is the answer to another sign-in: begin again")
        await self._check_issuer(answer.get("iss"))
        if not await self._access.sessions.spend(pending.secret, pending.end):
            raise Refusal("bad_request", "this sign-in has ended already: begin again")
        if "error" in answer:
            reason = f"{answer['error']} {answer.get('error_description', '')}".strip()
            raise Refusal("forbidden", f"the issuer says: {reason[:MAX_SHOWN_CHARS]}")
        if not (code := answer.get("code")):
            raise Refusal("bad_request", "the issuer sends no code: begin again")
        exchange = CodeExchange(
            code, redirect_uri, self._signer.verifier(pending), self._signer.nonce(pending)
        )
        try:
            return EndedSignIn(await self._holder(exchange), pending)
        except Refusal as refusal:
            if refusal.status in {401, 403}:
                self._limit.count(address)
            raise

    async def _holder(self, exchange: CodeExchange) -> SessionHolder:
        claims = await self._provider.claims(exchange)
        person = person_of(claims, self._wanted)
        if not self._access.may_sign_in(person):
            raise Refusal("forbidden", "you are in none of the groups that may sign in here")
        return SessionHolder(OIDC, person["name"], json.dumps(person), self._source)

    async def _check_issuer(self, named: str | None) -> None:
        """Refuse the answer of another issuer (RFC 9207 section 2.4)."""
        if named is None and not await self._provider.names_itself():
            return
        if named != self._issuer:
            raise Refusal("bad_request", "this is the answer of another issuer: begin again")
