"""The setting `identity_headers`: where trusted proxies write who the user is."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from gateway.settings import values

FORMS: Final = "user=Remote-User, or user=Remote-User,groups=Remote-Groups"

_NEEDED: Final = frozenset(
    {
        "authorization", "connection", "content-length", "content-type", "cookie", "expect", "forwarded",
        "host", "origin", "referer", "te", "trailer", "transfer-encoding", "upgrade", "user-agent",
        "via", "x-auth-token",
    }
)  # fmt: skip
"""Headers that mean something else, and would be removed from requests that no trusted proxy sends."""


def _identity_header(value: str) -> str:
    if "_" in values.header_name(value):
        raise ValueError("must have no underscore: nginx drops such headers, and CGI confuses them")
    lowered = value.lower()
    if lowered in _NEEDED or lowered.startswith(("x-forwarded-for", "x-gateway-", "sec-")):
        raise ValueError(f"{value} has a meaning of its own: name another header, such as Remote-User")
    return value


HeaderName = Annotated[str, AfterValidator(_identity_header)]


class IdentityNames(BaseModel):
    """The names of headers: `user` has the name of the user, `groups` the groups, where it is given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user: HeaderName
    groups: HeaderName | None = None

    @model_validator(mode="after")
    def _differ(self) -> IdentityNames:
        if self.groups is not None and self.groups.lower() == self.user.lower():
            raise ValueError("user and groups must be different headers")
        return self


def identity_names(value: object) -> object:
    """Headers given as `user=NAME` or `user=NAME,groups=NAME`."""
    if not isinstance(value, str):
        return value
    pairs = [piece.partition("=") for piece in value.split(",")]
    names = {key.strip(): name.strip() for key, _, name in pairs}
    if "user" not in names or not {"user", "groups"}.issuperset(names) or len(names) != len(pairs):
        raise ValueError(f"must be like {FORMS}")
    return names
