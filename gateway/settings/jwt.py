"""Settings: the part of the table that tells whose JSON Web Tokens are believed.

The rule is that of `table`, whose model these fields are part of.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from gateway.settings import values
from gateway.settings.option import Option

JWT: Final = "JSON Web Tokens"


class JwtSettings(BaseModel):
    """The settings of the JWT authorizer."""

    jwt_issuer: Annotated[
        str | None,
        BeforeValidator(values.issuer),
        Option(JWT, "who issues the tokens: what their `iss` says, to the letter", "URL"),
    ] = None
    jwt_jwks_url: Annotated[
        str | None,
        BeforeValidator(values.issuer),
        Option(
            JWT,
            "where the issuer's keys are",
            "URL",
            shown="asked of ISSUER/.well-known/openid-configuration",
        ),
    ] = None
    jwt_audience: Annotated[
        tuple[str, ...],
        Option(JWT, "whom tokens are for: one of these must stand in their `aud` (repeatable)", "NAME"),
    ] = ()
    jwt_client_ids: Annotated[
        tuple[str, ...],
        Option(
            JWT,
            "for tokens without `aud` (Cognito's access tokens): what `client_id` may say (repeatable)",
            "ID",
        ),
    ] = ()
    jwt_algorithms: Annotated[
        tuple[Annotated[str, AfterValidator(values.signature_algorithm)], ...],
        Option(
            JWT,
            "signatures that are taken (repeatable); a key fixes which of them fit it",
            "NAME",
            shown=",".join(values.SIGNATURES),
        ),
    ] = ()
    jwt_token_use: Annotated[
        Literal["any", "access", "id"],
        Option(JWT, "what the claim `token_use` must say (Cognito)", "any|access|id"),
    ] = "any"  # noqa: S105  (no password)
    jwt_leeway: Annotated[
        float,
        Field(ge=0, le=300, allow_inf_nan=False),
        Option(JWT, "how far the issuer's clock may be off", "SECONDS"),
    ] = 30.0
    jwt_operators: Annotated[
        tuple[str, ...],
        Option(
            JWT,
            "groups that may read `/-/` pages and steer events; without any, every good token may"
            " (repeatable)",
            "GROUP",
        ),
    ] = ()

    @property
    def signatures(self) -> frozenset[str]:
        """The signatures that are taken."""
        return frozenset(self.jwt_algorithms or values.SIGNATURES)
