"""Authenticates requests and applies the default authorization.

A token is compared as a SHA-256 with every known token in constant time; it is never stored, logged or
quoted. An API key is looked up, and counts where a token does, for what it is for alone. JSON Web Tokens
count only where the settings name an issuer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gateway.auth.api_keys import KEY_PREFIX, ApiKey, ApiKeys
from gateway.auth.foreign_pages import refuse_foreign_page
from gateway.auth.identity_headers import IdentityHeaders
from gateway.auth.installation import Installation
from gateway.auth.links.access import LinkAccess
from gateway.auth.links.link import LINK_PREFIX
from gateway.auth.local_only import LocalOnly
from gateway.auth.presented import presented_tokens, web_token
from gateway.auth.principals import CERTIFICATE, INTERNAL, SIGNED, TOKEN
from gateway.auth.request import Caller, RequestHead
from gateway.auth.roles import Role, Roles
from gateway.auth.sessions.access import SessionAccess
from gateway.auth.sessions.cookie import session_of
from gateway.auth.tokens import AcceptedTokens
from gateway.auth.trusted_proxies import Proxies
from gateway.domain.grant import Grant
from gateway.domain.method_overrides import named_methods
from gateway.errors import Refusal
from gateway.limits import client_key
from gateway.settings import Settings, Token
from gateway.signing.targets import carries_signature
from gateway.signing.urls import reject_mismatch
from gateway.telemetry.redaction import INTERNAL_HEADER


class TokenVerifier(Protocol):
    """Verifies JSON Web Tokens."""

    def cached_principal(self, token: str) -> dict[str, Any] | None:
        """Return the principal of a token that was verified lately, else None. Never waits."""

    async def verify(self, token: str) -> dict[str, Any]:
        """Return the principal of a token. May wait.

        Raises Refusal: `unauthorized` where it is not accepted, another code where that cannot be
        decided now.
        """


class Auth:
    """The default authorization, as the settings choose it."""

    def __init__(
        self,
        settings: Settings,
        tokens: Sequence[Token],
        installation: Installation | None = None,
        verifier: TokenVerifier | None = None,
        keys: ApiKeys | None = None,
    ) -> None:
        self._installation = installation
        self._verifier = verifier
        self._keys = keys
        self._roles = Roles(settings)
        self.mode = self._roles.mode
        """`none`, `token` or `jwt`: who authorizes where no handler does."""
        self.local_only = LocalOnly(settings)
        self.proxies = Proxies(settings.trusted_proxies)
        self.tokens = AcceptedTokens(tokens)
        """The tokens in force."""
        self._origins = settings.cors_origins
        self.identity = IdentityHeaders(settings, self.proxies)
        self.sessions: SessionAccess | None = None
        """The sessions of people, once there may be any."""
        self.links: LinkAccess | None = None
        """The links of this gateway, once there may be any."""

    async def authenticate(self, head: RequestHead, *, jwt: bool = False) -> Caller:
        """Return who sends a request, in every mode. The first call decides, later calls repeat it.

        A signed URL comes first, then a link. Then a known token in `Authorization: Bearer T` (RFC
        6750 section 2.1) or `X-Auth-Token: T`, then an API key there, then a JSON Web Token in the
        former, then the internal credential of a gateway of this installation, which is valid for
        exactly one method and target. The token precedes the credential: a script that passes on its
        user's token acts for that user. Last come the session of a browser, and what a proxy or a
        certificate says. A key or a link is nobody's for a request that it is not for, whatever else
        decides about it: that is refused (`forbidden`), and so is a key above its rate
        (`too_many_requests`).

        With `jwt` a JSON Web Token that is not accepted is refused with the reason (Refusal
        `unauthorized`), else its sender is unknown. Waits only where the issuer's keys are not here,
        which may raise `issuer_unavailable`, and where sessions have changed. Raises Refusal (403) for
        a signature that is not valid for exactly this request: `bad_signature`, `expired`,
        `not_granted`.
        """
        caller = self.authenticate_now(head, jwt=jwt)
        if caller is not None:
            return caller
        caller = head.caller = await self._verified_caller(head)
        return _accepted(caller) if jwt else caller

    def authenticate_now(self, head: RequestHead, *, jwt: bool = False) -> Caller | None:
        """Return the same at once, None for a JSON Web Token that was not verified lately.

        None also for a key with a rate: what asks here may leave the request, which counts once; and
        for a session where sessions have changed. Raises as `authenticate`, but `issuer_unavailable`.
        """
        caller = head.caller
        if caller is None:
            caller = head.caller = self._known_caller(head)
        return caller if caller is None or not jwt else _accepted(caller)

    def authenticate_form(self, head: RequestHead, fields: Mapping[str, str]) -> Caller:
        """Authenticate a form by its signed fields, in place of what its headers say.

        Raises Refusal (403): `bad_signature`, `expired`.
        """
        if self._installation is None:
            raise Refusal("bad_signature", "signed forms are not accepted here")
        grant = self._installation.urls.verify_form(head.raw_path, head.raw_query, fields)
        head.caller = Caller(dict(SIGNED), grant)
        return head.caller

    def client_of(self, head: RequestHead) -> str:
        """Return the client that a request counts for; until it is authenticated that is its address."""
        principal = None if head.caller is None else head.caller.principal
        return client_key(principal, self.proxies.client_address(head.remote, head.headers))

    def _known_caller(self, head: RequestHead) -> Caller | None:
        grant = self._verified_grant(head)
        if grant is not None:
            return Caller(dict(SIGNED), grant)
        if self.links is not None and (link := self.links.link_of(head)) is not None:
            return Caller(link.principal, link=link)
        principal = None if self.tokens.is_empty else self._bearer(head.headers)
        if principal is None and (key := self._key(head)) is not None:
            _check_scope(key, head)
            return None if key.rate is not None else Caller(key.principal, key=key)
        if principal is None and self._verifier is not None and (token := web_token(head.headers)):
            principal = self._verifier.cached_principal(token)
            if principal is None:
                return None
        principal = principal or self._peer(head)
        return self._implied_caller(head) if principal is None else Caller(principal)

    async def _verified_caller(self, head: RequestHead) -> Caller:
        """Return the sender of a key that counts requests, of a JSON Web Token, or of a session.

        The latter two may wait.
        """
        principal, rejected = None, None
        key = self._key(head)
        if key is not None and self._keys is not None:
            self._keys.count_request(key)
            return Caller(key.principal, key=key)
        if self._verifier is not None and (token := web_token(head.headers)):
            try:
                principal = await self._verifier.verify(token)
            except Refusal as refusal:
                if refusal.code != "unauthorized":
                    raise
                rejected = refusal
        principal = principal or self._peer(head)
        if principal is not None:
            return Caller(principal, None, rejected)
        if self.sessions is not None and session_of(head.headers) is not None:
            await self.sessions.sessions.refresh()
        caller = self._session_caller(head) or self._ambient_caller(head)
        if caller.key is not None and self._keys is not None:
            self._keys.count_request(caller.key)
        return caller._replace(rejected=rejected)

    def _verified_grant(self, head: RequestHead) -> Grant | None:
        """Return what the URL of a request was signed for, None where it has no signature."""
        if not head.raw_query or not carries_signature(head.raw_query):
            return None
        if self._installation is None:
            raise Refusal("bad_signature", "signed URLs are not accepted here")
        grant = self._installation.urls.verify(head.method, head.raw_path, head.raw_query)
        reject_mismatch(grant, head.headers, head.whole_lengths)
        if grant.link is not None:
            if self.links is None:
                raise Refusal("bad_signature", "links are not served here")
            self.links.check_grant(grant.link)
        return grant

    def confine(self, head: RequestHead) -> None:
        """Refuse a request with a link that it is not for, whoever else decides about its path.

        Raises `Refusal`.
        """
        if head.caller is None and self.presents_link(head.headers):
            self.authenticate_now(head)

    def presents_link(self, headers: Mapping[str, str]) -> bool:
        """Tell whether a request has what looks like a link."""
        return self.links is not None and self.links.is_presented(headers)

    def holds_token(self, headers: Mapping[str, str]) -> bool:
        """Tell whether a line of these headers has a known token, any key or link: those are ours."""
        if any(token.startswith((KEY_PREFIX, LINK_PREFIX)) for token in presented_tokens(headers)):
            return True
        return self._bearer(headers) is not None

    def _key(self, head: RequestHead) -> ApiKey | None:
        if self._keys is None or self._keys.is_empty:
            return None
        return self._keys.find(presented_tokens(head.headers))

    def _implied_caller(self, head: RequestHead) -> Caller | None:
        """Return who sends a request without a credential of its own for us.

        None where sessions have to be read, or the request counted. Raises `Refusal`.
        """
        if self.sessions is not None and session_of(head.headers) is not None:
            if not self.sessions.sessions.are_current:
                return None
            if (caller := self._session_caller(head)) is not None:
                return None if caller.key is not None and caller.key.rate is not None else caller
        return self._ambient_caller(head)

    def _session_caller(self, head: RequestHead) -> Caller | None:
        """Return who has signed in, None where no session counts. Raises `Refusal`."""
        signed_in = None if self.sessions is None else self.sessions.find(head, self.tokens)
        if signed_in is None:
            return None
        self._refuse_foreign_page(head)
        if signed_in.key is not None:
            _check_scope(signed_in.key, head)
        return Caller(signed_in.principal, key=signed_in.key, session=signed_in.session)

    def _ambient_caller(self, head: RequestHead) -> Caller:
        """Return whom a proxy or a certificate names, if any. Raises `Refusal`."""
        principal = self._ambient(head)
        if principal is not None:
            self._refuse_foreign_page(head)
        return Caller(principal)

    def _refuse_foreign_page(self, head: RequestHead) -> None:
        refuse_foreign_page(head, self._origins if head.origins is None else head.origins)

    def _ambient(self, head: RequestHead) -> dict[str, Any] | None:
        """Return the user that a trusted proxy names, else the holder of the client's certificate.

        That of a trusted proxy is none of its clients'.
        """
        if head.certificate is None and not self.identity.are_set:
            return None
        if self.proxies.trusts(head.remote):
            return self.identity.principal(head.remote, head.headers)
        return None if head.certificate is None else {"name": head.certificate, "kind": CERTIFICATE}

    def _peer(self, head: RequestHead) -> dict[str, Any] | None:
        credential = head.headers.get(INTERNAL_HEADER)
        if credential is None or self._installation is None:
            return None
        genuine = self._installation.verify_credential(credential, head.method, head.raw_target)
        return dict(INTERNAL) if genuine else None

    def _bearer(self, headers: Mapping[str, str]) -> dict[str, Any] | None:
        token = self.tokens.find(presented_tokens(headers))
        return None if token is None else {"name": token.name, "kind": TOKEN}

    def authorize(self, principal: Mapping[str, Any] | None) -> None:
        """Apply the default authorization; see `Roles.authorize`. Raises `Refusal`."""
        self._roles.authorize(principal)

    def operator(self, principal: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Return the principal of an operator, None: everyone is one; see `Roles.operator`.

        Raises `Refusal`.
        """
        return self._roles.operator(principal)

    def role(self, caller: Caller) -> Role | None:
        """Return whether a caller is an operator or an uploader; None: it must identify itself."""
        return self._roles.role(caller.principal)


def _accepted(caller: Caller) -> Caller:
    """Return a caller, unless its JSON Web Token is all that it has and is not accepted."""
    if caller.principal is None and caller.rejected is not None:
        raise caller.rejected
    return caller


def _check_scope(key: ApiKey, head: RequestHead) -> None:
    """Refuse a request that a key is not for, whichever of its methods counts. Raises `Refusal`."""
    methods = [head.method]
    if key.scope.methods:
        methods += (named.method for named in named_methods(head.headers, head.params))
    key.scope.check(methods, head.raw_path)
