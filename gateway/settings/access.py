"""Settings of access: authorization, tokens, CORS and JSON Web Tokens. See `table`."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from gateway.settings import values
from gateway.settings.identity import IdentityNames, identity_names
from gateway.settings.option import Option, Seconds

ACCESS: Final = "Access"
JWT: Final = "JSON Web Tokens"


class Token(BaseModel):
    """A token that is accepted: the name of its principal, and its SHA-256 (64 hex digits)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, AfterValidator(values.token_name)]
    sha256: Annotated[str, AfterValidator(values.hex_digest), Field(repr=False)]


class AccessSettings(BaseModel):
    """The groups of access and of JSON Web Tokens."""

    auth: Annotated[
        Literal["none", "token", "jwt"],
        Option(
            ACCESS,
            "default authorization; required where HOST is not loopback",
            "none|token|jwt",
            "none on loopback",
        ),
    ] = "none"
    hosts: Annotated[
        tuple[Annotated[str, AfterValidator(values.host_name)], ...],
        Option(
            ACCESS,
            "names in `Host` under which the gateway answers, beside localhost, IP addresses and its"
            " advertised and public ones; checked if given, and while --auth is not set (repeatable)",
            "NAME",
        ),
    ] = ()
    tokens: Annotated[
        tuple[Annotated[Token, BeforeValidator(values.token_fields)], ...],
        Option(
            ACCESS,
            "accepted tokens, as `gateway token` prints them (repeatable)",
            "NAME:SHA256",
            secret=True,
        ),
    ] = ()
    identity_headers: Annotated[
        IdentityNames | None,
        BeforeValidator(identity_names),
        Option(
            ACCESS,
            "headers in which --trusted-proxies tell who the user is, and the groups; removed from all"
            " other requests",
            "user=NAME,groups=NAME",
            page="behind-an-identity-proxy",
        ),
    ] = None
    redact: Annotated[
        tuple[Annotated[str, AfterValidator(values.header_name)], ...],
        Option(ACCESS, "further headers whose values are never logged or stored (repeatable)", "HEADER"),
    ] = ()
    cors_origins: Annotated[
        tuple[Annotated[str, AfterValidator(values.origin)], ...],
        Option(
            ACCESS,
            "origins whose pages may upload, download, ask what became of an upload, and call routes"
            " without a `cors` key (repeatable)",
            "ORIGIN",
        ),
    ] = ()

    jwt_issuer: Annotated[
        str | None,
        BeforeValidator(values.issuer),
        Option(JWT, "issuer URL; must equal the token's `iss` claim exactly", "URL"),
    ] = None
    jwt_jwks_url: Annotated[
        str | None,
        BeforeValidator(values.issuer),
        Option(
            JWT,
            "URL of the issuer's keys (JWKS)",
            "URL",
            shown="read from ISSUER/.well-known/openid-configuration",
        ),
    ] = None
    jwt_audience: Annotated[
        tuple[str, ...], Option(JWT, "accepted `aud` claim (repeatable)", "NAME")
    ] = ()
    jwt_client_ids: Annotated[
        tuple[str, ...],
        Option(
            JWT,
            "accepted `client_id` claim of tokens without `aud` (Cognito access tokens; repeatable)",
            "ID",
        ),
    ] = ()
    jwt_algorithms: Annotated[
        tuple[Annotated[str, AfterValidator(values.signature_algorithm)], ...],
        Option(
            JWT,
            "accepted signature algorithms (repeatable); a key accepts only those of its type",
            "NAME",
            shown=",".join(values.SIGNATURES),
        ),
    ] = ()
    jwt_token_use: Annotated[
        Literal["any", "access", "id"],
        Option(JWT, "required `token_use` claim (Cognito)", "any|access|id"),
    ] = "any"  # noqa: S105  (no password)
    jwt_leeway: Annotated[
        Seconds,
        Field(ge=0, le=300, allow_inf_nan=False),
        Option(JWT, "tolerated difference between the clocks of the gateway and of the issuer", "TIME"),
    ] = 30.0
    jwt_operators: Annotated[
        tuple[str, ...],
        Option(
            JWT,
            "groups whose members may read `/-/` pages and manage events, by a JSON Web Token,"
            " --identity-headers or OpenID Connect; if none is given, none of them may (repeatable)",
            "GROUP",
        ),
    ] = ()

    @property
    def signatures(self) -> frozenset[str]:
        """The accepted signature algorithms."""
        return frozenset(self.jwt_algorithms or values.SIGNATURES)
