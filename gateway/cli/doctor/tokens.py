"""Doctor: the issuer of JSON Web Tokens: is it there, are its keys of use, is the way to it safe.

The rule: the issuer is asked once, as the server asks it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from urllib.parse import urlsplit

from gateway.cli.doctor.finding import Finding
from gateway.settings import Settings, is_loopback


def issuer(settings: Settings) -> Iterator[Finding]:
    """The issuer's keys can be had, and nobody on the way can put others in their place."""
    name = settings.jwt_issuer
    if name is None:
        return
    place = urlsplit(settings.jwt_jwks_url or name)
    if place.scheme == "http" and not is_loopback(place.hostname or ""):
        advice = "whoever is on the way can put keys of their own there: use https"
        yield Finding("warn", f"the keys of {name} come unencrypted", advice)
    yield from asyncio.run(_ask(settings))


async def _ask(settings: Settings) -> list[Finding]:
    from gateway.auth.jwt.issuer import Issuer, IssuerError

    try:
        async with Issuer(settings) as asked:
            _, keys, seconds = await asked.fetch()
    except IssuerError as fault:
        advice = "until it answers, tokens get 503: check --jwt-issuer and --jwt-jwks-url"
        return [Finding("FAIL", f"issuer: {fault}", advice)]
    usable = sorted({name for key in keys.keys for name in key.algorithms})
    what = f"issuer {settings.jwt_issuer}: {len(keys.keys)} keys for {', '.join(usable)}, asked again"
    found = [Finding("ok", f"{what} after {seconds:g} s")]
    return [
        *found,
        *(Finding("warn", f"issuer: {one}", "it is passed over") for one in keys.passed_over),
    ]
