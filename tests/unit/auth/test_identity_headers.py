"""Identity headers: believed from trusted proxies only, in one spelling and one line."""

from __future__ import annotations

from typing import Any

import pytest
from multidict import CIMultiDict

from gateway.auth.authenticator import Auth
from gateway.auth.identity_headers import MAX_GROUPS, IdentityHeaders
from gateway.auth.request import RequestHead
from gateway.auth.tokens import token_digest
from gateway.errors import ConfigError, Refusal
from gateway.settings import Settings, Token, load

PROXY = "10.0.0.1"
OTHER = "192.0.2.9"
NAMES = "user=Remote-User,groups=Remote-Groups"
ANN = [("Remote-User", "ann"), ("Remote-Groups", "staff,admins")]


def auth(**settings: Any) -> Auth:
    named = {"identity_headers": NAMES, "trusted_proxies": ["10.0.0.0/8"], **settings}
    return Auth(Settings.model_validate(named), (Token(name="ci", sha256=token_digest("secret")),))


def identity(**settings: Any) -> IdentityHeaders:
    return auth(**settings).identity


def head(
    pairs: list[tuple[str, str]], peer: str | None = PROXY, method: str = "PUT", target: str = "/x"
) -> RequestHead:
    return RequestHead(method, target, CIMultiDict(pairs), peer)


async def principal_of(guard: Auth, request: RequestHead) -> dict[str, Any] | None:
    return (await guard.authenticate(request)).principal


async def test_a_trusted_proxy_names_the_user_and_the_groups() -> None:
    expected = {"name": "ann", "kind": "proxy", "groups": ["staff", "admins"]}
    assert await principal_of(auth(), head(ANN)) == expected
    assert await principal_of(auth(), head(ANN, "::ffff:10.0.0.1")) == expected


@pytest.mark.parametrize("peer", [OTHER, None, ""])
async def test_all_others_name_nobody(peer: str | None) -> None:
    assert await principal_of(auth(), head(ANN, peer)) is None
    assert identity().removed(peer, CIMultiDict(ANN)) == {"remote-user", "remote-groups"}


async def test_the_peer_counts_and_not_the_client_that_it_reports() -> None:
    told = [*ANN, ("X-Forwarded-For", OTHER)]
    assert await principal_of(auth(), head(told)) is not None
    told = [*ANN, ("X-Forwarded-For", PROXY)]
    assert await principal_of(auth(), head(told, OTHER)) is None


@pytest.mark.parametrize(
    "name",
    ["remote_user", "REMOTE_USER", "Remote_Groups", "Remote.User", "remote~groups"],
)
def test_other_spellings_are_removed_whoever_sends_them(name: str) -> None:
    sent = CIMultiDict([*ANN, (name, "root")])
    assert identity().removed(PROXY, sent) == {name.lower()}
    assert identity().removed(OTHER, sent) >= {name.lower()}


def test_names_that_only_look_alike_stay() -> None:
    sent = CIMultiDict([("Remote-Users", "1"), ("X-Remote-User", "2"), ("RemoteUser", "3")])
    assert identity().removed(OTHER, sent) == frozenset()


@pytest.mark.parametrize(
    "pairs",
    [
        [("Remote-User", "ann"), ("Remote-User", "root")],
        [("Remote-User", "ann"), ("remote-user", "ann")],
        [*ANN, ("Remote-Groups", "admins")],
        [("Remote-User", "root, ann")],
        [("Remote-User", "a" * 256)],
        [("Remote-User", "a\x7f")],
        [("Remote-User", "a\udcff")],
    ],
)
async def test_a_proxy_that_contradicts_itself_names_nobody(pairs: list[tuple[str, str]]) -> None:
    assert identity().fault(PROXY, CIMultiDict(pairs)) is not None
    assert await principal_of(auth(), head(pairs)) is None


@pytest.mark.parametrize("pairs", [[], [("Remote-User", "")], [("Remote-User", "  ")]])
def test_without_a_user_the_groups_are_nobodys(pairs: list[tuple[str, str]]) -> None:
    sent = CIMultiDict([*pairs, ("Remote-Groups", "admins")])
    assert identity().principal(PROXY, sent) is None
    assert "remote-groups" in identity().removed(PROXY, sent)


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("", []),
        ("a", ["a"]),
        (" a , b c,,a", ["a", "b c"]),
        ("a|b", ["a", "b"]),
        ("a" * 256 + ",b", ["b"]),
        (",".join(map(str, range(100))), [str(number) for number in range(MAX_GROUPS)]),
    ],
)
def test_groups_are_a_list_with_bounds(text: str, groups: list[str]) -> None:
    sent = CIMultiDict([("Remote-User", "ann"), ("Remote-Groups", text)])
    principal = identity().principal(PROXY, sent)
    assert principal is not None
    assert principal["groups"] == groups


async def test_without_the_setting_the_headers_mean_nothing() -> None:
    guard = auth(identity_headers=None)
    assert not guard.identity.are_set
    assert await principal_of(guard, head(ANN)) is None
    assert guard.identity.removed(OTHER, CIMultiDict(ANN)) == frozenset()


async def test_a_token_comes_first() -> None:
    assert await principal_of(auth(), head([*ANN, ("X-Auth-Token", "secret")])) == {
        "name": "ci",
        "kind": "token",
    }
    unknown = await principal_of(auth(), head([*ANN, ("Authorization", "Bearer other")]))
    assert unknown is not None
    assert unknown["kind"] == "proxy"


@pytest.mark.parametrize("mode", ["none", "token", "jwt"])
def test_a_user_is_enough_for_the_default_authorization(mode: str) -> None:
    auth(auth=mode).authorize({"name": "ann", "kind": "proxy", "groups": []})


@pytest.mark.parametrize("mode", ["none", "token", "jwt"])
def test_operators_are_the_members_of_their_groups(mode: str) -> None:
    guard = auth(auth=mode, jwt_operators=["admins"])
    member = {"name": "ann", "kind": "proxy", "groups": ["admins"]}
    assert guard.operator(member) == member
    with pytest.raises(Refusal) as caught:
        guard.operator({"name": "bob", "kind": "proxy", "groups": ["staff"]})
    assert caught.value.code == "forbidden"


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "PATCH", "PROPFIND"])
@pytest.mark.parametrize(
    "told",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example", "Host": "files.example"},
        {"Origin": "null", "Host": "files.example"},
    ],
)
async def test_a_page_of_another_origin_does_not_act_for_the_user(
    method: str, told: dict[str, str]
) -> None:
    with pytest.raises(Refusal) as caught:
        await auth().authenticate(head([*ANN, *told.items()], method=method))
    assert caught.value.code == "forbidden"


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://other.example"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://files.example", "Host": "files.example"},
    ],
)
async def test_our_own_pages_and_programs_act_for_the_user(told: dict[str, str]) -> None:
    assert await principal_of(auth(), head([*ANN, *told.items()])) is not None


async def test_reading_is_left_to_the_browser_unless_it_names_another_method() -> None:
    foreign = [*ANN, ("Sec-Fetch-Site", "cross-site")]
    assert await principal_of(auth(), head(foreign, method="GET")) is not None
    for request in (
        head(foreign, method="GET", target="/x?_method=DELETE"),
        head([*foreign, ("X-HTTP-Method-Override", "DELETE")], method="GET"),
    ):
        with pytest.raises(Refusal):
            await auth().authenticate(request)


async def test_a_named_origin_acts_for_the_user_and_any_origin_does_not() -> None:
    foreign = [*ANN, ("Sec-Fetch-Site", "cross-site"), ("Origin", "https://App.example")]
    allowed = auth(cors_origins=["https://app.example"])
    assert await principal_of(allowed, head(foreign)) is not None
    for origins in (["*"], ["https://other.example"]):
        with pytest.raises(Refusal):
            await auth(cors_origins=origins).authenticate(head(foreign))
    own_policy = head(foreign)
    own_policy.origins = ()
    with pytest.raises(Refusal):
        await allowed.authenticate(own_policy)


async def test_a_token_in_the_request_of_a_foreign_page_is_that_of_the_page() -> None:
    request = head([*ANN, ("Sec-Fetch-Site", "cross-site"), ("X-Auth-Token", "secret")])
    assert await principal_of(auth(), request) == {"name": "ci", "kind": "token"}


async def test_a_certificate_is_a_principal_but_not_that_of_a_trusted_proxy() -> None:
    request = head([], OTHER)
    request.certificate = "device-7"
    assert await principal_of(auth(), request) == {"name": "device-7", "kind": "certificate"}
    request = head([])
    request.certificate = "nginx"
    assert await principal_of(auth(), request) is None
    request = head([("Sec-Fetch-Site", "cross-site")], OTHER)
    request.certificate = "device-7"
    with pytest.raises(Refusal):
        await auth().authenticate(request)


def test_a_certificate_is_no_operators_where_others_need_a_credential() -> None:
    device = {"name": "device-7", "kind": "certificate"}
    for mode in ("token", "jwt"):
        guard = auth(auth=mode, auth_explicit=True)
        guard.authorize(device)
        with pytest.raises(Refusal) as caught:
            guard.operator(device)
        assert caught.value.code == "forbidden"
    assert auth(auth="none").operator(device) == device


# -- settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Remote-User", "must be like user=Remote-User"),
        ("groups=Remote-Groups", "must be like user=Remote-User"),
        ("user=Remote-User,mail=Remote-Email", "must be like user=Remote-User"),
        ("user=Remote-User,user=Other", "must be like user=Remote-User"),
        ("user=Remote_User", "no underscore"),
        ("user=Remote User", "must be the name of a header"),
        ("user=Authorization", "has a meaning of its own"),
        ("user=X-Gateway-User", "has a meaning of its own"),
        ("user=Remote-User,groups=remote-user", "must be different headers"),
    ],
)
def test_a_bad_setting_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load({"identity_headers": text, "trusted_proxies": ["10.0.0.1"]}, {})
    assert "--identity-headers" in str(caught.value)


def test_the_headers_need_trusted_proxies() -> None:
    with pytest.raises(ConfigError, match="add --trusted-proxies"):
        load({"identity_headers": NAMES}, {})


def test_a_file_may_have_them_as_a_mapping(tmp_path: Any) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(
        "identity_headers: {user: Remote-User, groups: Remote-Groups}\ntrusted_proxies: [10.0.0.1]\n"
    )
    settings = load({"config": str(file)}, {})
    given = load({"identity_headers": NAMES, "trusted_proxies": ["10.0.0.1"]}, {})
    assert settings.identity_headers == given.identity_headers
