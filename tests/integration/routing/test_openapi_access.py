"""`/-/openapi.json` shows a caller what it may call, and nothing of what it may not."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.auth.api_keys import ApiKey, KeyScope, KeySecret, new_api_key
from gateway.auth.tokens import token_digest
from gateway.domain.grant import Grant
from gateway.server.app import Gateway
from tests.support.harness import RawResponse, curl, get
from tests.support.jwt.issuing import FakeIssuer, flags
from tests.support.routing.scripted import Serve, route

DOCUMENT = "/-/openapi.json"

SCHEMA = """
spec:
- method: POST
  usage: usage_of_%(name)s
  schema: {request: {body: {type: object, properties: {field_of_%(name)s:
    {$ref: "#/$defs/def_of_%(name)s"}},
    $defs: {def_of_%(name)s: {type: string}}}}}
"""

AUTHORIZATIONS = {
    "open": "none",
    "usual": "default",
    "tokens": "token",
    "users": "jwt",
    "scoped": "jwt, scopes: [read, write]",
    "grouped": "jwt, groups: [staff, board]",
}
ROUTES = {
    name: f"name: route_of_{name}\n"
    + route(f"/path_of_{name}/{{id}}", "return 1", SCHEMA % {"name": name}, auth=auth)
    for name, auth in AUTHORIZATIONS.items()
}


@pytest.fixture
async def issuer() -> AsyncIterator[FakeIssuer]:
    async with FakeIssuer().serving() as serving:
        yield serving


def shown(answer: RawResponse) -> set[str]:
    """The routes that a document has anything of: names, paths, usages, fields, definitions."""
    assert answer.status == 200, answer.json
    text = answer.body.decode()
    parts = ("path_of_", "usage_of_", "field_of_", "def_of_")
    names = {name for name in ROUTES if any(f"{part}{name}" in text for part in parts)}
    assert names == {name for name in ROUTES if all(f"{part}{name}" in text for part in parts)}
    return names


def uploads(answer: RawResponse) -> set[str]:
    """The methods of the upload path that a document shows."""
    item = answer.json["paths"].get("/upload/{filepath}", {})
    return set(item) - {"parameters"}


def bearer(token: object) -> str:
    return f"Authorization: Bearer {token}"


async def test_a_caller_without_credentials_sees_what_is_open(serve: Serve, issuer: FakeIssuer) -> None:
    gateway = await serve(*ROUTES.values(), auth="token", **flags(issuer))
    answer = await get(gateway, DOCUMENT)
    assert shown(answer) == {"open"}
    assert uploads(answer) == set()
    assert answer.json["x-gateway-caller"] is None
    assert not {"/-/metrics", "/-/status", "/-/reload"} & answer.json["paths"].keys()
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Vary"] == "Authorization, X-Auth-Token"
    wrong = await get(gateway, DOCUMENT, "X-Auth-Token: wrong")
    assert wrong.json == answer.json


@pytest.mark.parametrize("auth", ["token", "jwt"])
async def test_where_nothing_is_open_credentials_are_asked_for(
    serve: Serve, issuer: FakeIssuer, auth: str
) -> None:
    texts = [text for name, text in ROUTES.items() if name != "open"]
    gateway = await serve(*texts, auth=auth, **flags(issuer))
    answer = await get(gateway, DOCUMENT)
    assert (answer.status, answer.json["error"]) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert not any(name in answer.body.decode() for name in ROUTES)


async def test_with_auth_none_what_needs_a_credential_is_shown_to_those_who_have_it(
    serve: Serve, issuer: FakeIssuer
) -> None:
    gateway = await serve(*ROUTES.values(), auth="none", **flags(issuer))
    answer = await get(gateway, DOCUMENT)
    assert shown(answer) == {"open", "usual"}
    assert uploads(answer) == {"put", "post"}
    assert "/-/metrics" in answer.json["paths"]
    assert "/-/reload" in answer.json["paths"]
    answer = await get(gateway, DOCUMENT, bearer(issuer.token()))
    assert shown(answer) == {"open", "usual", "users"}


async def test_a_token_shows_everything(serve: Serve, issuer: FakeIssuer) -> None:
    gateway = await serve(*ROUTES.values(), auth="token", **flags(issuer))
    answer = await get(gateway, DOCUMENT, f"X-Auth-Token: {gateway.resources.base.shared.token}")
    assert shown(answer) == set(ROUTES)
    assert uploads(answer) == {"put", "post"}
    assert "/-/reload" in answer.json["paths"]
    assert answer.json["x-gateway-caller"]["kind"] == "token"


@pytest.mark.parametrize(
    ("auth", "claims", "expected", "may_upload"),
    [
        ("jwt", {}, {"open", "usual", "users"}, True),
        ("jwt", {"scope": "read"}, {"open", "usual", "users"}, True),
        ("jwt", {"scope": "write x read"}, {"open", "usual", "users", "scoped"}, True),
        ("jwt", {"groups": ["board"]}, {"open", "usual", "users", "grouped"}, True),
        ("jwt", {"groups": ["admin"]}, set(ROUTES), True),
        (
            "token",
            {"scope": "read write", "groups": ["staff"]},
            {"open", "users", "scoped", "grouped"},
            False,
        ),
    ],
)
async def test_a_json_web_token_shows_what_its_rights_allow(
    serve: Serve,
    issuer: FakeIssuer,
    auth: str,
    claims: dict[str, Any],
    expected: set[str],
    may_upload: bool,
) -> None:
    more = flags(issuer, jwt_operators=["admin"])
    gateway = await serve(*ROUTES.values(), auth=auth, **more)
    answer = await get(gateway, DOCUMENT, bearer(issuer.token(**claims)))
    assert shown(answer) == expected
    assert bool(uploads(answer)) == may_upload
    assert answer.json["x-gateway-caller"] == {"name": "ann", "kind": "jwt"}
    assert ("/-/metrics" in answer.json["paths"]) == ("admin" in claims.get("groups", ()))


async def test_a_json_web_token_that_is_not_accepted_is_refused_with_the_reason(
    serve: Serve, issuer: FakeIssuer
) -> None:
    gateway = await serve(*ROUTES.values(), auth="token", **flags(issuer))
    answer = await get(gateway, DOCUMENT, bearer(issuer.token(exp=int(time.time()) - 1000)))
    assert answer.status == 401
    assert "expired" in answer.json["message"]


@pytest.mark.parametrize(
    ("scope", "expected", "methods"),
    [
        (KeyScope(), {"open", "usual", "tokens"}, {"put", "post"}),
        (KeyScope("/upload/acme/"), set(), {"put", "post"}),
        (KeyScope("/path_of_tokens/"), {"tokens"}, set()),
        (KeyScope("/path_of_users/"), None, set()),
        (KeyScope("/path_of_tokens/7/8"), None, set()),
        (KeyScope(None, ("PUT",)), set(), {"put"}),
        (KeyScope(None, ("POST",)), {"open", "usual", "tokens"}, {"post"}),
        (KeyScope(None, ("DELETE",)), None, set()),
    ],
)
async def test_a_key_shows_what_it_is_for(
    serve: Serve, issuer: FakeIssuer, scope: KeyScope, expected: set[str] | None, methods: set[str]
) -> None:
    gateway = await serve(*ROUTES.values(), auth="token", **flags(issuer))
    secret, key = new_api_key(), ApiKey("ci", scope, None, None, 0.0, None)
    gateway.resources.base.keys.keys.replace([KeySecret(token_digest(secret), key, None)])
    answer = await get(gateway, DOCUMENT, bearer(secret))
    if expected is None:
        assert (answer.status, answer.json["error"]) == (403, "forbidden")
        return
    assert shown(answer) == expected
    assert uploads(answer) == methods
    assert "/-/uploads/{upload_id}" in answer.json["paths"]
    assert "/-/metrics" not in answer.json["paths"]


async def test_a_signed_url_of_the_document_shows_everything_until_it_expires(
    serve: Serve, issuer: FakeIssuer
) -> None:
    gateway = await serve(*ROUTES.values(), auth="token", **flags(issuer))
    grant = Grant("GET", DOCUMENT, int(time.time()) + 60)
    target = gateway.resources.base.installation.urls.target(grant)
    assert shown(await get(gateway, target)) == set(ROUTES)
    forged = await get(gateway, target[:-3] + "AAA")
    assert (forged.status, forged.json["error"]) == (403, "bad_signature")


async def test_the_owner_sees_everything_through_the_socket(serve: Serve, issuer: FakeIssuer) -> None:
    gateway: Gateway = await serve(*ROUTES.values(), auth="jwt", **flags(issuer))
    socket = gateway.resources.settings.state / "owner-0.sock"
    answer = await curl("--unix-socket", str(socket), f"http://owner{DOCUMENT}")
    assert all(f"/path_of_{name}/{{id}}" in json.loads(answer.body)["paths"] for name in ROUTES)


async def test_what_one_caller_was_shown_is_not_shown_to_the_next(
    serve: Serve, issuer: FakeIssuer
) -> None:
    gateway = await serve(*ROUTES.values(), auth="token", **flags(issuer))
    token = f"X-Auth-Token: {gateway.resources.base.shared.token}"
    for _ in range(2):
        assert shown(await get(gateway, DOCUMENT, token)) == set(ROUTES)
        assert shown(await get(gateway, DOCUMENT)) == {"open"}
        assert shown(await get(gateway, DOCUMENT, bearer(issuer.token()))) == {"open", "users"}


async def test_routes_that_refuse_the_address_of_the_caller_are_not_shown(serve: Serve) -> None:
    texts = [
        ROUTES["open"] + "deny: [127.0.0.0/8]\n",
        ROUTES["usual"] + "allow: [10.0.0.0/8]\n",
        ROUTES["tokens"] + "allow: [127.0.0.1]\n",
    ]
    gateway = await serve(*texts, auth="none", trusted_proxies=["127.0.0.1"])
    assert shown(await get(gateway, DOCUMENT)) == set()
    assert shown(await get(gateway, DOCUMENT, "X-Forwarded-For: 10.1.2.3")) == {"open", "usual"}
    assert shown(await get(gateway, DOCUMENT, "X-Forwarded-For: 192.0.2.1")) == {"open"}
