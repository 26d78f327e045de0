"""API keys: what they are for, that no spelling of a path escapes it, where they count."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from gateway.auth.api_keys import (
    KEY_PREFIX,
    ApiKey,
    ApiKeys,
    KeyScope,
    KeySecret,
    check_prefix,
    new_api_key,
)
from gateway.auth.authenticator import Auth
from gateway.auth.request import RequestHead
from gateway.auth.tokens import token_digest
from gateway.domain.path_template import RouteTemplate
from gateway.domain.units import RequestRate
from gateway.errors import Refusal
from gateway.limits import FixedWindowCounters
from gateway.settings import Settings
from tests.support.incoming import head_of

SECRET = new_api_key()
KEY = ApiKey("ci", KeyScope(), None, None, 0.0, None)
ACME = KeyScope("/upload/acme/")


def auth(key: ApiKey = KEY, until: float | None = None, **settings: Any) -> Auth:
    keys = ApiKeys(FixedWindowCounters())
    keys.replace([KeySecret(token_digest(SECRET), key, until)])
    return Auth(Settings.model_validate({"auth": "token", **settings}), (), keys=keys)


def asked(method: str = "PUT", target: str = "/upload/a", secret: str = SECRET) -> RequestHead:
    return head_of({"X-Auth-Token": secret}, method, target)


@pytest.mark.parametrize("mode", ["none", "token", "jwt"])
async def test_a_key_counts_where_a_token_does(mode: str) -> None:
    guard = auth(auth=mode)
    for headers in ({"X-Auth-Token": SECRET}, {"Authorization": f"Bearer {SECRET}"}):
        caller = await guard.authenticate(head_of(headers, "PUT", "/upload/a"), jwt=mode == "jwt")
        assert caller.principal == {"name": "ci", "kind": "key"}
        guard.authorize(caller.principal)


async def test_unknown_revoked_and_expired_keys_are_refused_alike() -> None:
    now = time.time()
    refusals = set()
    for key, until, secret in (
        (KEY, None, new_api_key()),
        (replace(KEY, revoked=now), None, SECRET),
        (replace(KEY, expires=now - 1), None, SECRET),
        (KEY, now - 1, SECRET),
    ):
        guard = auth(key, until)
        caller = await guard.authenticate(asked(secret=secret))
        with pytest.raises(Refusal) as refused:
            guard.authorize(caller.principal)
        refusals.add((refused.value.code, refused.value.message))
    assert len(refusals) == 1
    assert refusals.pop()[0] == "unauthorized"


async def test_a_key_whose_end_is_to_come_counts() -> None:
    later = time.time() + 60
    caller = await auth(replace(KEY, expires=later), later).authenticate(asked())
    assert caller.principal is not None


@pytest.mark.parametrize(
    "path",
    [
        "/upload/acme/a", "/upload/acme/a/b.bin", "/upload/acme/", "/upload/%61cme/a",
        "/upload/acme/100%25", "/-/objects/upload/acme/a", "/upload/acme/caf%C3%A9",
    ],
)  # fmt: skip
async def test_a_key_with_a_prefix_is_for_what_is_below_it(path: str) -> None:
    key = replace(KEY, scope=ACME)
    caller = await auth(key).authenticate(asked("GET", path))
    assert caller.key == key


@pytest.mark.parametrize(
    "path",
    [
        "/upload/acme", "/upload/acme2/a", "/upload/", "/", "/upload/other/a", "/UPLOAD/acme/a",
        "/upload/acme/../other/a", "/upload/acme/%2e%2e/other/a", "/upload/acme/.%2E/other",
        "/upload/acme/..", "/upload/acme/./a", "/upload/acme//a", "/upload//acme/a", "//upload/acme/a",
        "/upload/acme%2Fa", "/upload%2Facme/a", "/upload/acme/..%2Fother", "/upload/acme/..;/other",
        "/upload/acme/..;x=1/other", "/upload/acme/a%5C..%5Cb", "/upload/acme/%00",
        "/upload/acme/%252e%252e/other", "/upload/acme/%zz", "/upload/acme/%FF",
        "/upload/acme/..%252Fother", "/-/objects/upload/other/a",
        "/-/objects/upload/acme/../other/a", "/upload/acme/a;/../../other",
    ],
)  # fmt: skip
async def test_no_spelling_of_a_path_escapes_the_prefix(path: str) -> None:
    guard = auth(replace(KEY, scope=ACME))
    with pytest.raises(Refusal, match="other paths"):
        guard.authenticate_now(asked("PUT", path))
    with pytest.raises(Refusal) as refused:
        await guard.authenticate(asked("PUT", path))
    assert refused.value.code == "forbidden"


async def test_a_prefix_without_a_slash_at_its_end_is_a_name_and_what_is_below_it() -> None:
    guard = auth(replace(KEY, scope=KeyScope("/api/items")))
    for path in ("/api/items", "/api/items/", "/api/items/7"):
        assert await guard.authenticate(asked("GET", path))
    with pytest.raises(Refusal):
        await guard.authenticate(asked("GET", "/api/items2"))


async def test_a_key_with_methods_is_for_no_others() -> None:
    guard = auth(replace(KEY, scope=KeyScope(methods=("PUT", "GET"))))
    for method in ("PUT", "GET", "HEAD"):
        assert await guard.authenticate(asked(method))
    for method in ("POST", "DELETE", "PATCH", "put"):
        with pytest.raises(Refusal, match="other methods"):
            await guard.authenticate(asked(method))


@pytest.mark.parametrize(
    ("headers", "target"),
    [
        ({"X-HTTP-Method-Override": "DELETE"}, "/upload/a"),
        ({"x-http-method": " delete "}, "/upload/a"),
        ({"X-Method-Override": "PATCH, POST"}, "/upload/a"),
        ({}, "/upload/a?_method=POST&_method=DELETE"),
    ],
)
async def test_another_method_that_a_request_names_must_be_one_of_the_keys_too(
    headers: dict[str, str], target: str
) -> None:
    scope = KeyScope(methods=("POST", "PATCH"))
    head = head_of({"X-Auth-Token": SECRET, **headers}, "POST", target)
    with pytest.raises(Refusal, match="other methods"):
        await auth(replace(KEY, scope=scope)).authenticate(head)
    allowed = head_of({"X-Auth-Token": SECRET, "X-HTTP-Method-Override": "PATCH"}, "POST", "/upload/a")
    assert await auth(replace(KEY, scope=scope)).authenticate(allowed)


async def test_a_key_is_no_operators() -> None:
    for mode in ("none", "token"):
        guard = auth(auth=mode)
        caller = await guard.authenticate(asked("GET", "/-/metrics"))
        with pytest.raises(Refusal) as refused:
            guard.operator(caller.principal)
        assert refused.value.code == "forbidden"


async def test_a_rate_counts_each_request_once_and_never_where_it_may_be_left() -> None:
    guard = auth(replace(KEY, rate=RequestRate(2, 60.0)))
    for _ in range(2):
        head = asked()
        assert guard.authenticate_now(head) is None
        assert guard.authenticate_now(head) is None
        caller = await guard.authenticate(head)
        assert await guard.authenticate(head) == caller == guard.authenticate_now(head)
    with pytest.raises(Refusal, match="at most 2/m requests") as refused:
        await guard.authenticate(asked())
    assert refused.value.code == "too_many_requests"
    assert 1 <= int(refused.value.headers["Retry-After"]) <= 60


def test_what_looks_like_a_key_is_never_forwarded() -> None:
    guard = auth()
    for secret in (SECRET, new_api_key()):
        assert guard.holds_token({"Authorization": f"Bearer {secret}"})
    assert not guard.holds_token({"Authorization": "Bearer theirs"})


def test_a_scanner_can_find_a_key() -> None:
    assert SECRET.startswith(KEY_PREFIX)
    assert len(SECRET) == len(KEY_PREFIX) + 43
    assert SECRET not in repr(KeySecret(token_digest(SECRET), KEY, None))


@pytest.mark.parametrize(
    "prefix", ["upload/", "", "/-/", "/-/objects/", "/-", "/.gateway/", "/a/../b", "/a//b", "/a\\b"]
)
def test_a_prefix_that_no_request_has_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        check_prefix(prefix)


def test_prefixes_that_requests_have_are_kept() -> None:
    for prefix in ("/", "/upload/acme/", "/api/v1"):
        assert check_prefix(prefix) == prefix


@pytest.mark.parametrize(
    ("prefix", "template", "reaches"),
    [
        (None, "/a", True),
        ("/", "/a", True),
        ("/a", "/a", True),
        ("/a/", "/a", False),
        ("/a/", "/a/{x}", True),
        ("/a/b", "/a/{x}", True),
        ("/a/b/", "/a/{x}", False),
        ("/a/b/c", "/a/{x}", False),
        ("/a/b/c", "/a/{x:path}", True),
        ("/a/b/", "/a/{x:path}", True),
        ("/b", "/a/{x:path}", False),
        ("/a/b", "/{x}/c", False),
        ("/upload/acme/", "/upload/{x:path}", True),
        ("/a/", "/{x:path}", True),
    ],
)
def test_a_key_reaches_the_templates_that_have_a_path_below_its_prefix(
    prefix: str | None, template: str, reaches: bool
) -> None:
    scope = KeyScope(prefix, ("GET",))
    segments = RouteTemplate.parse(template).segments
    assert scope.may_reach("GET", segments) == scope.may_reach("HEAD", segments) == reaches
    assert not scope.may_reach("PUT", segments)
