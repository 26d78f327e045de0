"""From a request that carries a session to its caller, for as long as what it came from counts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from gateway.auth.api_keys import ApiKey, ApiKeys
from gateway.auth.principals import API_KEY, JWT, OIDC, TOKEN
from gateway.auth.request import RequestHead
from gateway.auth.sessions.cookie import SessionCookie, session_of
from gateway.auth.sessions.session import Session
from gateway.auth.sessions.sessions import Sessions
from gateway.auth.tokens import AcceptedTokens
from gateway.settings import Settings


class SessionCaller(NamedTuple):
    """Who has signed in: the principal, and its API key where that was the way."""

    session: Session
    principal: dict[str, Any]
    key: ApiKey | None = None


class SessionAccess:
    """The sessions of one process, as requests use them."""

    def __init__(
        self, settings: Settings, sessions: Sessions, cookie: SessionCookie, keys: ApiKeys
    ) -> None:
        self.sessions = sessions
        self.cookie = cookie
        self._keys = keys
        self._mode = settings.auth
        self._jwt_issuer = settings.jwt_issuer
        self._oidc = oidc_source(settings)
        self._oidc_groups = frozenset(settings.oidc_groups)

    def find(self, head: RequestHead, tokens: AcceptedTokens) -> SessionCaller | None:
        """Return the caller of a request's session, None where it has ended. Nothing is read."""
        secret = session_of(head.headers)
        session = None if secret is None else self.sessions.find(secret)
        if session is None:
            return None
        holder = session.holder
        if holder.kind == API_KEY:
            key = self._keys.find_digest(holder.source)
            return None if key is None else SessionCaller(session, key.principal, key)
        principal: dict[str, Any] = json.loads(holder.principal)
        return SessionCaller(session, principal) if self._counts(session, principal, tokens) else None

    def _counts(self, session: Session, principal: Mapping[str, Any], tokens: AcceptedTokens) -> bool:
        """Tell whether what a session came from counts now."""
        holder = session.holder
        if holder.kind == TOKEN:
            token = tokens.find_digest(holder.source)
            return token is not None and token.name == holder.name
        if holder.kind == JWT:
            return self._mode == JWT and holder.source == self._jwt_issuer
        if holder.kind == OIDC:
            return self._oidc == holder.source and self.may_sign_in(principal)
        return False

    def may_sign_in(self, principal: Mapping[str, Any]) -> bool:
        """Tell whether someone whom the issuer has signed in may upload here."""
        return not self._oidc_groups or bool(self._oidc_groups.intersection(principal["groups"]))


def oidc_source(settings: Settings) -> str | None:
    """Return what stands for the issuer of OpenID Connect, None where it signs nobody in."""
    if settings.auth == "none" or settings.oidc_issuer is None:
        return None
    return f"{settings.oidc_issuer} {settings.oidc_client_id}"
