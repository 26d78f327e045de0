"""A session counts as long as what it came from, and where a token would."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.auth.api_keys import ApiKey, ApiKeys, KeyScope, KeySecret
from gateway.auth.authenticator import Auth
from gateway.auth.request import Caller
from gateway.auth.sessions.access import SessionAccess
from gateway.auth.sessions.cookie import SessionCookie
from gateway.auth.sessions.session import SessionHolder
from gateway.auth.sessions.sessions import ChangeMark, Sessions
from gateway.auth.sessions.sign_in import MAX_FAILURES, FailureLimit, SignIn
from gateway.auth.sessions.store import SessionStore
from gateway.auth.tokens import token_digest
from gateway.domain.units import RequestRate
from gateway.errors import Refusal
from gateway.limits import FixedWindowCounters
from gateway.settings import Settings, Token
from tests.support.incoming import head_of

NAME = "upload-gateway-00000000"
TOKEN, OTHER_TOKEN, KEY = "secret-a", "secret-b", "ugk_" + "k" * 43
TOKENS = (
    Token(name="alice", sha256=token_digest(TOKEN)),
    Token(name="bob", sha256=token_digest(OTHER_TOKEN)),
)
ISSUER: dict[str, Any] = {"oidc_issuer": "https://issuer.example", "oidc_client_id": "gateway"}


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class World:
    """The sessions of one process; `process()` is another one of the same gateway."""

    def __init__(self, state: Path, mark: ChangeMark | None = None, **values: Any) -> None:
        settings = {"auth": "token", **values}
        self.settings = Settings.model_validate(settings)
        self.state, self.mark = state, mark or ChangeMark()
        self.clock = Clock()
        self.counters = FixedWindowCounters()
        self.keys = ApiKeys(self.counters)
        self.auth = Auth(self.settings, TOKENS, keys=self.keys)
        self.sessions = Sessions(SessionStore(state), self.mark, 3600, self.clock)
        self.auth.sessions = SessionAccess(self.settings, self.sessions, SessionCookie(NAME), self.keys)
        self.sign_in = SignIn(
            self.settings, self.auth.tokens, self.keys, FailureLimit(self.counters), None
        )

    def have_key(self, *, rate: RequestRate | None = None, until: float | None = None) -> None:
        key = ApiKey("backup", KeyScope("/upload/backup/"), rate, None, 0.0, None)
        self.keys.replace([KeySecret(token_digest(KEY), key, until)])

    async def sign_in_with(self, token: str, *, replaced: str | None = None) -> str:
        holder, end = await self.sign_in.holder_of(token, "192.0.2.1")
        digest = None if replaced is None else token_digest(replaced)
        return (await self.sessions.begin(holder, secure=False, replaced=digest, end=end))[0]

    async def caller(self, secret: str, *lines: tuple[str, str], **how: Any) -> Caller:
        headers = CIMultiDict([("Host", "gateway"), ("Cookie", f"{NAME}={secret[1:]}"), *lines])
        taken = SessionCookie(NAME).take(CIMultiDictProxy(headers))
        assert taken is not None
        return await self.auth.authenticate(head_of(taken, **how))

    async def name(self, secret: str, *lines: tuple[str, str], **how: Any) -> str | None:
        principal = (await self.caller(secret, *lines, **how)).principal
        return None if principal is None else principal["name"]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_a_session_is_that_of_its_token_and_survives_a_restart(
    tmp_path: Path, world: World
) -> None:
    secret = await world.sign_in_with(TOKEN)
    caller = await world.caller(secret)
    assert caller.principal == {"name": "alice", "kind": "token"}
    assert (caller.session is not None, caller.is_ambient) == (True, True)
    assert await World(tmp_path).name(secret) == "alice"


async def test_signing_out_counts_in_all_processes_at_once(tmp_path: Path, world: World) -> None:
    other = World(tmp_path, world.mark)
    secret = await world.sign_in_with(TOKEN)
    assert await other.name(secret) == await world.name(secret) == "alice"
    before = other.sessions.are_current
    await world.sessions.end(secret)
    assert (before, other.sessions.are_current) == (True, False)
    assert await other.name(secret) is await world.name(secret) is None


async def test_a_session_ends_with_its_time(world: World) -> None:
    secret = await world.sign_in_with(TOKEN)
    world.clock.now += 3599
    assert await world.name(secret) == "alice"
    world.clock.now += 2
    assert await world.name(secret) is None


async def test_a_session_ends_with_its_token(world: World) -> None:
    secret = await world.sign_in_with(TOKEN)
    world.auth.tokens.replace(TOKENS[1:])
    assert await world.name(secret) is None


async def test_a_session_of_a_key_has_its_limits_and_ends_with_it(world: World) -> None:
    world.have_key(rate=RequestRate(2, 60))
    secret = await world.sign_in_with(KEY)
    backup = {"target": "/upload/backup/a", "method": "PUT"}
    assert (await world.caller(secret, **backup)).key is not None
    with pytest.raises(Refusal, match="other paths"):
        await world.caller(secret, target="/upload/b", method="PUT")
    await world.caller(secret, **backup)
    with pytest.raises(Refusal, match="at most"):
        await world.caller(secret, **backup)
    world.keys.replace([])
    assert await world.name(secret) is None


async def test_a_session_of_a_rotated_secret_ends_when_that_secret_does(world: World) -> None:
    world.have_key(until=time.time() - 1)
    with pytest.raises(Refusal, match="not valid"):
        await world.sign_in_with(KEY)
    world.have_key()
    secret = await world.sign_in_with(KEY)
    world.have_key(until=time.time() - 1)
    assert await world.name(secret) is None


async def test_a_credential_in_a_header_comes_before_the_session(world: World) -> None:
    secret = await world.sign_in_with(TOKEN)
    assert await world.name(secret, ("X-Auth-Token", OTHER_TOKEN)) == "bob"
    assert await world.name(secret, ("X-Auth-Token", "unknown")) == "alice"
    caller = await world.caller(secret, ("Authorization", f"Bearer {OTHER_TOKEN}"))
    assert (caller.session, caller.is_ambient) == (None, False)


@pytest.mark.parametrize(
    ("lines", "refused"),
    [
        ([("Sec-Fetch-Site", "same-origin")], False),
        ([("Sec-Fetch-Site", "none")], False),
        ([("Sec-Fetch-Site", "same-site"), ("Origin", "http://gateway:8081")], True),
        ([("Sec-Fetch-Site", "cross-site"), ("Origin", "https://evil.example")], True),
        ([("Origin", "http://gateway")], False),
        ([("Origin", "http://gateway:8081")], True),
        ([("Origin", "null")], True),
        ([], False),
    ],
)
async def test_a_foreign_page_cannot_act_with_the_session_of_its_visitor(
    world: World, lines: list[tuple[str, str]], refused: bool
) -> None:
    secret = await world.sign_in_with(TOKEN)
    for method in ("PUT", "POST", "DELETE", "PATCH"):
        if refused:
            with pytest.raises(Refusal, match="page of another origin"):
                await world.caller(secret, *lines, method=method)
        else:
            assert await world.name(secret, *lines, method=method) == "alice"
    assert await world.name(secret, *lines, method="GET") == "alice"


async def test_signing_in_again_ends_the_session_of_that_browser(world: World) -> None:
    first = await world.sign_in_with(TOKEN)
    second = await world.sign_in_with(OTHER_TOKEN, replaced=first)
    assert (await world.name(first), await world.name(second)) == (None, "bob")


async def test_an_identifier_that_a_client_chose_is_never_adopted(world: World) -> None:
    chosen = "p" + "c" * 43
    secret = await world.sign_in_with(TOKEN, replaced=chosen)
    assert secret != chosen
    assert await world.name(chosen) is None


async def test_a_session_over_https_does_not_count_under_the_name_that_anyone_can_set(
    world: World,
) -> None:
    holder, _ = await world.sign_in.holder_of(TOKEN, None)
    secret, _ = await world.sessions.begin(holder, secure=True)
    assert await world.name(secret) is None  # sent without `__Host-`


async def test_failed_sign_ins_of_one_client_are_limited_and_others_go_on(world: World) -> None:
    for _ in range(MAX_FAILURES):
        with pytest.raises(Refusal, match="not valid"):
            await world.sign_in.holder_of("wrong", "192.0.2.9")
    for token in ("wrong", TOKEN):
        with pytest.raises(Refusal) as refused:
            await world.sign_in.holder_of(token, "192.0.2.9")
        assert (refused.value.code, "Retry-After" in refused.value.headers) == (
            "too_many_requests",
            True,
        )
    assert (await world.sign_in.holder_of(TOKEN, "192.0.2.1")).holder.name == "alice"


async def begin_as(world: World, principal: dict[str, Any], source: str) -> str:
    holder = SessionHolder(principal["kind"], principal["name"], json.dumps(principal), source)
    return (await world.sessions.begin(holder, secure=False))[0]


async def test_people_of_an_issuer_are_in_as_long_as_the_settings_name_it(tmp_path: Path) -> None:
    alice = {"name": "alice", "kind": "oidc", "groups": ["staff"]}
    world = World(tmp_path, **ISSUER)
    secret = await begin_as(world, alice, "https://issuer.example gateway")
    assert (await world.caller(secret)).principal == alice
    others: list[dict[str, Any]] = [
        {}, {"auth": "none", **ISSUER}, {**ISSUER, "oidc_client_id": "other"},
        {**ISSUER, "oidc_groups": ("admins",)},
    ]  # fmt: skip
    for values in others:
        assert await World(tmp_path, world.mark, **values).name(secret) is None
    assert await World(tmp_path, world.mark, oidc_groups=("staff",), **ISSUER).name(secret) == "alice"


async def test_sessions_stay_in_force_where_their_file_cannot_be_read(
    tmp_path: Path, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    secret = await world.sign_in_with(TOKEN)
    assert await world.name(secret) == "alice"
    (tmp_path / "sessions.db").write_bytes(b"damaged" * 100)
    world.mark.move()
    assert await world.name(secret) == "alice"
    assert "sessions.db" in caplog.text
