"""Auth: tokens in constant time and never in the clear, proxies believed only when named."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict

from gateway.auth.authenticator import Auth
from gateway.auth.request import Caller
from gateway.auth.tokens import (
    TOKENS_FILE,
    ensure_token,
    new_token,
    stored_tokens,
    token_digest,
    tokens_of,
)
from gateway.errors import ConfigError, Refusal
from gateway.settings import Settings, Token
from tests.support.incoming import head_of

ALICE = Token(name="alice", sha256=token_digest("secret-a"))
BOB = Token(name="bob", sha256=token_digest("secret-b"))


def headers(*pairs: tuple[str, str]) -> CIMultiDict[str]:
    return CIMultiDict(pairs)


def auth(**settings: Any) -> Auth:
    return Auth(Settings.model_validate(settings), (ALICE, BOB))


async def principal_of(
    guard: Auth, sent: CIMultiDict[str], *, jwt: bool = False
) -> dict[str, Any] | None:
    return (await guard.authenticate(head_of(sent), jwt=jwt)).principal


@pytest.mark.parametrize(
    ("name", "value", "who"),
    [
        ("Authorization", "Bearer secret-a", "alice"),
        ("authorization", "bearer  secret-b ", "bob"),
        ("Authorization", "BEARER secret-a", "alice"),
        ("X-Auth-Token", "secret-a", "alice"),
        ("x-auth-token", " secret-b", "bob"),
        ("Authorization", "secret-a", None),
        ("Authorization", "Basic secret-a", None),
        ("Authorization", "Bearer", None),
        ("Authorization", "Bearer secret-A", None),
        ("X-Auth-Token", "", None),
        ("X-Auth-Token", "gehe\udcffim", None),
        ("X-Token", "secret-a", None),
        ("X-Auth-Token", ALICE.sha256, None),
    ],
)
async def test_a_token_names_its_principal(name: str, value: str, who: str | None) -> None:
    principal = await principal_of(auth(auth="token"), headers((name, value)))
    assert principal == (None if who is None else {"name": who, "kind": "token"})


@pytest.mark.parametrize("tokens", [("other", "secret-b"), ("secret-b", "other")])
async def test_a_known_token_counts_in_any_line(tokens: tuple[str, str]) -> None:
    lines = headers(*(("X-Auth-Token", token) for token in tokens))
    assert auth().holds_token(lines)
    assert await principal_of(auth(), lines) == {"name": "bob", "kind": "token"}


async def test_a_known_token_counts_beside_an_unknown_one() -> None:
    both = headers(("Authorization", "Bearer other-service"), ("X-Auth-Token", "secret-b"))
    assert await principal_of(auth(), both) == {"name": "bob", "kind": "token"}


def test_mode_token_refuses_nobody_and_allows_somebody() -> None:
    guard = auth(auth="token", auth_explicit=True)
    guard.authorize({"name": "alice", "kind": "token"})
    with pytest.raises(Refusal) as caught:
        guard.authorize(None)
    assert (caught.value.code, caught.value.status) == ("unauthorized", 401)
    assert caught.value.headers == {"WWW-Authenticate": 'Bearer realm="upload-gateway"'}


async def test_mode_none_allows_everybody_and_still_knows_them() -> None:
    guard = auth()
    guard.authorize(None)
    assert await principal_of(guard, headers(("X-Auth-Token", "secret-a"))) == {
        "name": "alice",
        "kind": "token",
    }


@pytest.mark.parametrize(
    ("pairs", "address"),
    [
        ([], "10.0.0.1"),
        ([("X-Forwarded-For", "192.0.2.7")], "192.0.2.7"),
        ([("X-Forwarded-For", "6.6.6.6, 192.0.2.7")], "192.0.2.7"),
        ([("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "192.0.2.7")], "192.0.2.7"),
        ([("X-Forwarded-For", "192.0.2.7, 10.0.0.9")], "192.0.2.7"),
        ([("X-Forwarded-For", "10.0.0.8, 10.0.0.9")], "10.0.0.8"),
        ([("X-Forwarded-For", "192.0.2.7:5123")], "192.0.2.7"),
        ([("X-Forwarded-For", "[2001:db8::7]:5123")], "2001:db8::7"),
        ([("X-Forwarded-For", "::ffff:192.0.2.7")], "192.0.2.7"),
        ([("X-Forwarded-For", "192.0.2.7, junk")], "10.0.0.1"),
        ([("X-Forwarded-For", "192.0.2.7, junk, 10.0.0.9")], "10.0.0.9"),
        ([("Forwarded", "for=192.0.2.7;proto=https;by=10.0.0.1")], "192.0.2.7"),
        ([("Forwarded", 'For="[2001:db8::7]:4711"')], "2001:db8::7"),
        ([("Forwarded", "for=6.6.6.6, for=192.0.2.7, for=10.0.0.9")], "192.0.2.7"),
        ([("Forwarded", "for=192.0.2.7, for=_hidden")], "10.0.0.1"),
        ([("Forwarded", "for=192.0.2.7, proto=https")], "10.0.0.1"),
        ([("Forwarded", "for=192.0.2.7"), ("X-Forwarded-For", "192.0.2.7")], "192.0.2.7"),
        ([("Forwarded", "for=6.6.6.6"), ("X-Forwarded-For", "192.0.2.7")], "10.0.0.1"),
    ],
)
def test_the_client_is_the_last_address_that_no_trusted_proxy_has(
    pairs: list[tuple[str, str]], address: str
) -> None:
    guard = auth(trusted_proxies=["10.0.0.0/8"])
    assert guard.proxies.client_address("10.0.0.1", headers(*pairs)) == address


def test_a_stranger_is_not_believed() -> None:
    told = headers(("X-Forwarded-For", "6.6.6.6"), ("Forwarded", "for=6.6.6.6"))
    assert auth(trusted_proxies=["10.0.0.0/8"]).proxies.client_address("192.0.2.9", told) == "192.0.2.9"
    assert auth().proxies.client_address("127.0.0.1", told) == "127.0.0.1"
    assert auth(trusted_proxies=["10.0.0.0/8"]).proxies.client_address(None, told) is None


def test_a_proxy_seen_through_an_ipv6_socket_is_recognised() -> None:
    told = headers(("X-Forwarded-For", "192.0.2.7"))
    assert (
        auth(trusted_proxies=["10.0.0.0/8"]).proxies.client_address("::ffff:10.0.0.1", told)
        == "192.0.2.7"
    )


def test_the_first_start_makes_one_token_and_keeps_only_its_hash(tmp_path: Path) -> None:
    state = tmp_path / ".gateway"
    token = ensure_token(state)
    assert token is not None
    assert [known.sha256 for known in stored_tokens(state)] == [token_digest(token)]
    file = state / TOKENS_FILE
    assert token not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert list(state.iterdir()) == [file]


def test_the_second_start_keeps_the_token_and_is_silent(tmp_path: Path) -> None:
    ensure_token(tmp_path)
    before = stored_tokens(tmp_path)
    assert ensure_token(tmp_path) is None
    assert stored_tokens(tmp_path) == before


def test_listed_tokens_make_the_generated_one_void(tmp_path: Path) -> None:
    ensure_token(tmp_path / ".gateway")
    assert [token.name for token in tokens_of(Settings(directory=tmp_path))] == ["generated"]
    assert tokens_of(Settings(directory=tmp_path, tokens=(ALICE,))) == (ALICE,)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"tokens": 1}', '{"tokens": [{"name": "secret-x"}]}'])
def test_a_damaged_token_file_is_named_and_never_quoted(tmp_path: Path, text: str) -> None:
    (tmp_path / TOKENS_FILE).write_text(text)
    with pytest.raises(ConfigError, match=r"tokens\.json: is damaged; remove it") as caught:
        ensure_token(tmp_path)
    assert "secret-x" not in str(caught.value)


def test_a_failed_write_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(OSError, match="Input/output"):
        ensure_token(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_tokens_are_long_and_never_the_same() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert min(map(len, tokens)) >= 43


class OneToken:
    """Accepts the token `theirs`, of carol; `asked` are the tokens that it had to verify."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def cached_principal(self, token: str) -> dict[str, Any] | None:
        return carol() if token in self.asked and token == "theirs" else None

    async def verify(self, token: str) -> dict[str, Any]:
        self.asked.append(token)
        if token != "theirs":
            raise Refusal("unauthorized", "not believed")
        return carol()


def carol() -> dict[str, Any]:
    return {"name": "carol", "kind": "jwt", "groups": []}


async def test_a_verifier_is_asked_only_about_bearer_tokens_that_are_none_of_ours() -> None:
    verifier = OneToken()
    guard = Auth(Settings.model_validate({}), (ALICE,), verifier=verifier)
    alice = {"name": "alice", "kind": "token"}
    assert await principal_of(guard, headers(("X-Auth-Token", "secret-a"))) == alice
    both = headers(("Authorization", "Bearer theirs"), ("X-Auth-Token", "secret-a"))
    assert await principal_of(guard, both) == alice
    assert await principal_of(guard, headers(("X-Auth-Token", "theirs"))) is None
    assert verifier.asked == []
    assert await principal_of(guard, headers(("Authorization", "Bearer theirs"))) == carol()
    junk = headers(("Authorization", "Bearer junk"))
    assert await principal_of(guard, junk) is None
    with pytest.raises(Refusal, match="not believed"):
        await principal_of(guard, junk, jwt=True)
    assert verifier.asked == ["theirs", "junk", "junk"]


async def test_who_sends_a_request_is_known_at_once_but_for_a_web_token_not_verified_lately() -> None:
    guard = Auth(Settings.model_validate({}), (ALICE,), verifier=OneToken())
    unknown = head_of(headers())
    assert guard.authenticate_now(unknown) == Caller(None)
    known = guard.authenticate_now(head_of(headers(("X-Auth-Token", "secret-a"))))
    assert known == Caller({"name": "alice", "kind": "token"})
    theirs = headers(("Authorization", "Bearer theirs"))
    first = head_of(theirs)
    assert guard.authenticate_now(first) is None
    assert first.caller is None
    await guard.authenticate(first)
    assert guard.authenticate_now(first) == Caller(carol())
    assert guard.authenticate_now(head_of(theirs)) == Caller(carol())
