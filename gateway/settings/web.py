"""Settings of the console, and of signing in to it. See `table`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, Field

from gateway.settings import values
from gateway.settings.option import Option, Seconds

CONSOLE: Final = "Console"
OIDC: Final = "Signing in with OpenID Connect"


class WebSettings(BaseModel):
    """The groups of the console and of OpenID Connect."""

    web: Annotated[
        bool,
        BeforeValidator(values.truth),
        Option(CONSOLE, "pages for people: `/` to upload, `/-/` to operate", "on|off"),
    ] = True
    web_theme: Annotated[
        Path | None,
        Option(
            CONSOLE,
            "style sheet that the pages load behind their own: colours, fonts, a logo",
            "FILE",
            path=True,
            page="theme",
        ),
    ] = None
    web_translations: Annotated[
        Path | None,
        Option(
            CONSOLE,
            "folder of further languages of the pages, such as fr.json",
            "DIR",
            path=True,
            page="translate",
        ),
    ] = None
    session_ttl: Annotated[
        Seconds,
        Field(ge=60, le=30 * 86_400),
        Option(CONSOLE, "how long a person stays signed in", "TIME", page="sign-in"),
    ] = 43_200.0

    oidc_issuer: Annotated[
        str | None,
        BeforeValidator(values.issuer),
        Option(OIDC, "issuer URL; must equal the ID token's `iss` claim exactly", "URL", page="sign-in"),
    ] = None
    oidc_client_id: Annotated[
        str | None, Option(OIDC, "client id that the issuer knows this gateway by", "ID")
    ] = None
    oidc_client_secret_file: Annotated[
        Path | None,
        Option(OIDC, "file with the secret of the client, where the issuer gave one", "FILE", path=True),
    ] = None
    oidc_scopes: Annotated[
        tuple[str, ...],
        Option(
            OIDC,
            "scopes to ask for, beside `openid` (repeatable)",
            "NAME",
            shown="profile,email",
        ),
    ] = ()
    oidc_groups: Annotated[
        tuple[str, ...],
        Option(
            OIDC,
            "groups whose members may sign in and upload; if none is given, everyone whom the issuer"
            " signs in (repeatable). Operators are those of --jwt-operators",
            "GROUP",
        ),
    ] = ()
