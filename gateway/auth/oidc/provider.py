"""The issuer with which people sign in: where they do, and what a code of it stands for.

Its ID tokens are verified as JSON Web Tokens are. What it sends is bounded in size and time. Sources:
OpenID Connect Core 1.0 sections 3.1.2 and 3.1.3, RFC 6749 section 4.1.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Self
from urllib.parse import quote_plus

import aiohttp

from gateway.auth.jwt.claims import InvalidToken
from gateway.auth.jwt.issuer import (
    CALL_ERRORS,
    FETCH_TIMEOUT,
    IssuerError,
    call_error,
    read_bounded,
)
from gateway.auth.jwt.verifier import Verifier
from gateway.auth.oidc.person import has_profile
from gateway.domain.json_text import parse_json
from gateway.errors import Refusal
from gateway.settings import Settings
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.oidc")

CONFIGURATION_TTL: Final = 300.0
"""Seconds for which it is known what the issuer tells of itself."""

RETRY_INTERVAL: Final = 2.0
"""Shortest time in seconds between two tries while the issuer is away."""


class CodeExchange(NamedTuple):
    """What a browser brings back from the issuer, and what this gateway knows of its sign-in."""

    code: str
    redirect_uri: str
    verifier: str
    nonce: str


class OidcProvider:
    """The issuer of the settings. A context manager; belongs to one loop. `secret` is the client's."""

    def __init__(self, settings: Settings, secret: str | None) -> None:
        self._client = settings.oidc_client_id or ""
        self._secret = secret
        of_id_tokens = {
            "jwt_issuer": settings.oidc_issuer,
            "jwt_jwks_url": None,
            "jwt_audience": (self._client,),
            "jwt_client_ids": (),
            "jwt_token_use": "any",
        }
        self._verifier = Verifier(settings.model_copy(update=of_id_tokens))
        self._issuer = self._verifier.issuer
        self._configuration: Mapping[str, Any] | None = None
        self._until = self._retry_at = float("-inf")
        self._fetching = asyncio.Lock()
        self._is_failing = False

    async def __aenter__(self) -> Self:
        await self._verifier.__aenter__()
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=FETCH_TIMEOUT),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self._verifier.__aexit__()

    async def authorization_endpoint(self) -> str:
        """Return the URL at which people sign in. Raises `Refusal("issuer_unavailable")`."""
        try:
            return self._issuer.endpoint(await self._configured(), "authorization_endpoint")
        except IssuerError as error:
            raise self._unavailable(error) from None

    async def names_itself(self) -> bool:
        """Tell whether the issuer names itself in every answer (RFC 9207). Raises `Refusal`."""
        try:
            supported = (await self._configured()).get("authorization_response_iss_parameter_supported")
        except IssuerError as error:
            raise self._unavailable(error) from None
        return supported is True

    async def claims(self, exchange: CodeExchange) -> Mapping[str, Any]:
        """Return what the issuer says of the person whose code this is.

        Raises Refusal: `unauthorized` where it does not accept the code, or its token is not for this
        sign-in; `issuer_unavailable`.
        """
        try:
            configuration = await self._configured()
            tokens = await self._exchange(configuration, exchange)
            claims, _ = await self._verifier.claims(_text(tokens, "id_token"))
            self._check(claims, exchange.nonce)
            access_token = tokens.get("access_token")
            if "userinfo_endpoint" not in configuration or not access_token or has_profile(claims):
                return claims
            return {**await self._user_info(configuration, str(access_token), claims), **claims}
        except InvalidToken as error:
            log.warning("an ID token is rejected", extra=event("sign_in.rejected", reason=error.reason))
            raise Refusal("unauthorized", "the sign-in of the issuer is not accepted here") from None
        except IssuerError as error:
            raise self._unavailable(error) from None

    def _check(self, claims: Mapping[str, Any], nonce: str) -> None:
        """Check what an ID token has beside others (section 3.1.3.7). Raises `InvalidToken`."""
        given = claims.get("nonce")
        if not isinstance(given, str) or not hmac.compare_digest(given.encode(), nonce.encode()):
            raise InvalidToken("nonce")
        audience, party = claims.get("aud"), claims.get("azp")
        many = isinstance(audience, list) and len(audience) > 1
        if (many or party is not None) and party != self._client:
            raise InvalidToken("authorized party")
        if not isinstance(claims.get("sub"), str):
            raise InvalidToken("subject")

    async def _configured(self) -> Mapping[str, Any]:
        """Return what the issuer tells of itself. Raises `IssuerError`."""
        async with self._fetching:
            now = time.monotonic()
            if self._configuration is not None and now < self._until:
                return self._configuration
            if now < self._retry_at:
                raise IssuerError("it has been unavailable a moment ago")
            self._retry_at = now + RETRY_INTERVAL
            self._configuration = await self._issuer.configuration()
            self._until, self._retry_at, self._is_failing = now + CONFIGURATION_TTL, now, False
            return self._configuration

    async def _exchange(
        self, configuration: Mapping[str, Any], exchange: CodeExchange
    ) -> Mapping[str, Any]:
        """Return the tokens for a code. Raises `IssuerError`, `Refusal("unauthorized")`."""
        fields = {
            "grant_type": "authorization_code",
            "code": exchange.code,
            "redirect_uri": exchange.redirect_uri,
            "code_verifier": exchange.verifier,
        }
        headers: dict[str, str] = {}
        methods = configuration.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if self._secret is not None and "client_secret_basic" in methods:
            # RFC 6749 section 2.3.1: encoded as in a form, before RFC 7617.
            pair = f"{quote_plus(self._client)}:{quote_plus(self._secret)}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            fields["client_id"] = self._client
            if self._secret is not None:
                fields["client_secret"] = self._secret
        url = self._issuer.endpoint(configuration, "token_endpoint")
        status, answer = await self._call("POST", url, headers, fields)
        if status == 200:
            return answer
        code = str(answer.get("error", ""))
        if code == "invalid_grant":
            raise Refusal("unauthorized", "the issuer does not accept this sign-in: begin it again")
        raise IssuerError(f"{url} answers {status} {code:.100}")

    async def _user_info(
        self, configuration: Mapping[str, Any], access_token: str, claims: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Return the other claims of a person (section 5.3). Raises `IssuerError`, `InvalidToken`."""
        url = self._issuer.endpoint(configuration, "userinfo_endpoint")
        headers = {"Authorization": f"Bearer {access_token}"}
        status, answer = await self._call("GET", url, headers, None)
        if status != 200:
            raise IssuerError(f"{url} answers {status}")
        if answer.get("sub") != claims["sub"]:  # section 5.3.2: claims of somebody else
            raise InvalidToken("other subject")
        return answer

    async def _call(
        self, method: str, url: str, headers: Mapping[str, str], fields: Mapping[str, str] | None
    ) -> tuple[int, Mapping[str, Any]]:
        """Return the status and the JSON object of an answer. Raises `IssuerError`."""
        try:
            async with self._session.request(
                method, url, data=fields, headers=headers, allow_redirects=False
            ) as response:
                body = await read_bounded(response, url)
                status = response.status
        except CALL_ERRORS as error:
            raise call_error(url, error) from None
        try:
            answer = parse_json(body)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise IssuerError(f"{url} answers {status} without a JSON object")
        return status, answer

    def _unavailable(self, error: IssuerError) -> Refusal:
        if not self._is_failing:
            log.warning("nobody can sign in: %s", error, extra=event("oidc.unavailable"))
        self._is_failing = True
        message = "the issuer that signs people in is unavailable now: try again in a moment"
        return Refusal("issuer_unavailable", message)


def _text(tokens: Mapping[str, Any], name: str) -> str:
    token = tokens.get(name)
    if not isinstance(token, str):
        raise IssuerError(f"the issuer sends no `{name}`: is the scope `openid` allowed?")
    return token
