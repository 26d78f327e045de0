"""The principal of somebody whom an issuer has signed in. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from gateway.auth.jwt.claims import MAX_NAME_CHARS, InvalidToken, groups_of
from gateway.auth.principals import OIDC

MAX_GROUPS: Final = 64
"""Groups that are kept: those of the settings, then the first ones."""


def has_profile(claims: Mapping[str, Any]) -> bool:
    """Tell whether claims have a name for people, and groups."""
    return _name(claims) != claims.get("sub") and bool(groups_of(claims))


def person_of(claims: Mapping[str, Any], wanted: Collection[str]) -> dict[str, Any]:
    """Return `{"name", "kind", "groups"}`; groups that are `wanted` come first.

    Raises `InvalidToken` without a name.
    """
    name = _name(claims)
    if name is None:
        raise InvalidToken("subject")
    groups = [group for group in groups_of(claims) if len(group) <= MAX_NAME_CHARS]
    ordered = sorted(groups, key=lambda group: group not in wanted)
    return {"name": name, "kind": OIDC, "groups": ordered[:MAX_GROUPS]}


def _name(claims: Mapping[str, Any]) -> str | None:
    """Return the first usable name. An address that is not verified could be that of someone else."""
    names = [claims.get("preferred_username")]
    if claims.get("email_verified") is not False:
        names.append(claims.get("email"))
    for name in (*names, claims.get("sub")):
        if isinstance(name, str) and 0 < len(name) <= MAX_NAME_CHARS and name.isprintable():
            return name
    return None
