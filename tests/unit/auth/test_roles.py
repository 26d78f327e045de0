"""Roles: operators see everything, uploaders what is their own, others nothing."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.auth.roles import Roles
from gateway.settings import Settings

TOKEN = {"name": "ops", "kind": "token"}
KEY = {"name": "backup", "kind": "key"}
CERTIFICATE = {"name": "printer", "kind": "certificate"}


def member(kind: str, *groups: str) -> dict[str, Any]:
    return {"name": "alice", "kind": kind, "groups": list(groups)}


@pytest.mark.parametrize(
    ("auth", "principal", "role"),
    [
        ("token", None, None),
        ("token", TOKEN, "operator"),
        ("token", KEY, "uploader"),
        ("token", CERTIFICATE, "uploader"),
        ("token", member("jwt", "admins"), None),
        ("token", member("oidc", "admins"), "operator"),
        ("token", member("oidc", "staff"), "uploader"),
        ("token", member("proxy", "admins"), "operator"),
        ("token", member("proxy"), "uploader"),
        ("jwt", None, None),
        ("jwt", member("jwt", "admins"), "operator"),
        ("jwt", member("jwt"), "uploader"),
        ("none", None, "operator"),
        ("none", TOKEN, "operator"),
        ("none", KEY, "uploader"),
        ("none", CERTIFICATE, "operator"),
        ("none", member("proxy"), "uploader"),
    ],
)
def test_the_role_of_a_caller_is_that_of_its_kind_and_groups(
    auth: str, principal: dict[str, Any] | None, role: str | None
) -> None:
    issuer = {"jwt_issuer": "https://issuer.example", "jwt_audience": ("gateway",)}
    settings = {"auth": auth, "jwt_operators": ("admins",), **(issuer if auth == "jwt" else {})}
    assert Roles(Settings.model_validate(settings)).role(principal) == role
