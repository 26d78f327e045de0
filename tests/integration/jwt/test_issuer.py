"""The issuer's keys: fetched once, kept for a while, asked for again where that may help, no oftener."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator

import pytest

from gateway.auth.jwt import issuer as issuer_module
from gateway.auth.jwt.issuer import Issuer, IssuerError, fresh_seconds
from gateway.auth.jwt.verifier import Verifier
from gateway.errors import Refusal
from gateway.settings import load
from tests.support.jwt.issuing import FakeIssuer, ec_pair, flags, rsa_pair

OLD, NEW = rsa_pair("old"), ec_pair("new")


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def keys(issuer: FakeIssuer, clock: Clock) -> AsyncIterator[Issuer]:
    issuer.pairs = [OLD]
    async with Issuer(load(flags(issuer), {}), clock) as made:
        yield made


@pytest.fixture
async def verifier(issuer: FakeIssuer, clock: Clock) -> AsyncIterator[Verifier]:
    issuer.pairs = [OLD]
    keys = Issuer(load(flags(issuer), {}), clock)
    async with Verifier(load(flags(issuer), {}), keys) as made:
        await keys.fetch_in_background()
        yield made


async def believed(verifier: Verifier, token: str) -> bool:
    try:
        return bool(await verifier.verify(token))
    except Refusal as refusal:
        if refusal.code != "unauthorized":
            raise
        return False


async def away(verifier: Verifier, token: str) -> bool:
    with pytest.raises(Refusal) as caught:
        await verifier.verify(token)
    assert caught.value.headers.get("Retry-After") == "5"
    return (caught.value.code, caught.value.status) == ("issuer_unavailable", 503)


async def test_the_keys_are_where_the_issuer_says(keys: Issuer, issuer: FakeIssuer) -> None:
    assert [key.kid for key in (await keys.keys()).keys] == ["old"]
    assert issuer.requested_paths == ["/.well-known/openid-configuration", "/keys"]


async def test_keys_whose_place_is_told_are_not_looked_for(issuer: FakeIssuer) -> None:
    settings = load(flags(issuer, jwt_jwks_url=f"{issuer.url}/keys"), {})
    async with Issuer(settings) as keys:
        assert len((await keys.keys()).keys) == 1
    assert issuer.requested_paths == ["/keys"]


async def test_a_crowd_asks_once(keys: Issuer, issuer: FakeIssuer) -> None:
    issuer.may_answer.clear()
    crowd = [asyncio.create_task(keys.keys()) for _ in range(50)]
    await asyncio.sleep(0)
    issuer.may_answer.set()
    assert len({id(found) for found in await asyncio.gather(*crowd)}) == 1
    assert issuer.key_requests == 1


async def test_keys_serve_as_long_as_the_issuer_says(
    keys: Issuer, issuer: FakeIssuer, clock: Clock
) -> None:
    issuer.headers = {"Cache-Control": "public, max-age=100"}
    await keys.keys()
    clock.now += 79
    await keys.keys()
    assert issuer.key_requests == 1
    clock.now += 21
    assert keys.current is None
    await keys.keys()
    assert issuer.key_requests == 2


async def test_keys_that_are_used_are_renewed_before_they_end_and_nobody_waits(
    keys: Issuer, issuer: FakeIssuer, clock: Clock
) -> None:
    before = await keys.keys()
    issuer.pairs = [NEW]
    issuer.may_answer.clear()
    clock.now += issuer_module.DEFAULT_FRESH_TTL * issuer_module.RENEW_FRACTION
    for _ in range(5):
        assert await keys.keys() is before
    issuer.may_answer.set()
    await keys.fetch_in_background()
    assert [key.kid for key in (await keys.keys()).keys] == ["new"]
    assert issuer.key_requests == 2


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("", 300),
        ("public", 300),
        ("max-age=600", 600),
        ("public,max-age = 600", 600),
        ('MAX-AGE="600", immutable', 600),
        ("max-age=0", 60),
        ("max-age=99999999", 3600),
        ("max-age=99999999999999999999", 3600),
        ("s-max-age=600", 300),
        ("no-store, max-age=600", 60),
        ("no-cache", 60),
        ("max-age=-5", 300),
    ],
)
def test_what_cache_control_says_is_kept_within_bounds(said: str, seconds: float) -> None:
    assert fresh_seconds(said) == seconds


async def test_a_new_key_is_fetched_when_a_token_names_it(
    verifier: Verifier, issuer: FakeIssuer, clock: Clock
) -> None:
    assert await believed(verifier, issuer.token(OLD))
    issuer.pairs = [OLD, NEW]
    clock.now += issuer_module.COOL_DOWN_INTERVAL
    assert await believed(verifier, issuer.token(NEW))
    assert await believed(verifier, issuer.token(OLD))
    assert issuer.key_requests == 2


async def test_tokens_with_made_up_keys_do_not_make_the_issuer_busy(
    verifier: Verifier, issuer: FakeIssuer, clock: Clock
) -> None:
    for number in range(30):
        clock.now += issuer_module.COOL_DOWN_INTERVAL / 10
        assert not await believed(verifier, rsa_pair("junk").sign({}, kid=f"junk{number}"))
        forged = ec_pair(f"junk{number}")
        assert not await believed(verifier, issuer.token(forged))
    assert issuer.key_requests == 1 + 3
    # What says that it is of somebody else causes no question at all.
    clock.now += issuer_module.COOL_DOWN_INTERVAL
    assert not await believed(verifier, issuer.token(NEW, iss="https://other.example"))
    assert issuer.key_requests == 1 + 3


async def test_a_crowd_with_a_new_key_asks_once(
    verifier: Verifier, issuer: FakeIssuer, clock: Clock
) -> None:
    issuer.pairs = [NEW]
    clock.now += issuer_module.COOL_DOWN_INTERVAL
    tokens = [issuer.token(NEW, jti=str(number)) for number in range(20)]
    assert all(await asyncio.gather(*(believed(verifier, token) for token in tokens)))
    assert issuer.key_requests == 2


async def test_a_key_that_was_taken_away_is_no_longer_believed(
    verifier: Verifier, issuer: FakeIssuer, clock: Clock
) -> None:
    token = issuer.token(OLD)
    assert await believed(verifier, token)
    issuer.pairs = [NEW]
    clock.now += issuer_module.DEFAULT_FRESH_TTL
    assert not await believed(verifier, token)
    assert verifier.cached_principal(token) is None


async def test_the_same_keys_again_keep_what_was_verified(
    verifier: Verifier, issuer: FakeIssuer, clock: Clock
) -> None:
    token = issuer.token(OLD)
    assert await believed(verifier, token)
    clock.now += issuer_module.DEFAULT_FRESH_TTL
    assert await believed(verifier, issuer.token(OLD, jti="2"))
    assert verifier.cached_principal(token) is not None


async def test_while_the_issuer_is_away_its_last_keys_serve_for_a_bounded_time(
    verifier: Verifier, issuer: FakeIssuer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.jwt")
    assert await believed(verifier, issuer.token(OLD))
    issuer.status = 500
    clock.now += issuer_module.DEFAULT_FRESH_TTL + issuer_module.STALE_TTL - 1
    assert await believed(verifier, issuer.token(OLD, jti="2"))
    assert "answers 500" in caplog.text
    clock.now += 1
    assert await away(verifier, issuer.token(OLD, jti="3"))
    issuer.status = 200
    clock.now += issuer_module.RETRY_INTERVAL
    assert await believed(verifier, issuer.token(OLD, jti="3"))


async def test_nobody_waits_for_an_issuer_that_was_away_a_moment_ago(
    verifier: Verifier, issuer: FakeIssuer, clock: Clock
) -> None:
    issuer.status = 500
    clock.now += issuer_module.DEFAULT_FRESH_TTL
    assert await believed(verifier, issuer.token(OLD))
    issuer.may_answer.clear()
    clock.now += issuer_module.RETRY_INTERVAL
    assert await believed(verifier, issuer.token(OLD, jti="2"))
    assert issuer.requested_paths.count("/.well-known/openid-configuration") <= 3


async def test_without_any_keys_the_answer_is_that_nobody_knows(
    issuer: FakeIssuer, clock: Clock
) -> None:
    issuer.status = 404
    settings = load(flags(issuer), {})
    keys = Issuer(settings, clock)
    async with Verifier(settings, keys) as verifier:
        await keys.fetch_in_background()
        for _ in range(5):
            assert await away(verifier, issuer.token())
        assert issuer.key_requests == 1
        assert not await believed(verifier, "junk")
        assert not await believed(verifier, issuer.token(iss="https://other.example"))
        issuer.status = 200
        clock.now += issuer_module.RETRY_INTERVAL
        assert await believed(verifier, issuer.token())


async def test_an_issuer_that_nobody_can_reach_is_told_to_the_operator(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = load({"jwt_issuer": "http://127.0.0.1:1", "jwt_audience": ["a"]}, {})
    async with Issuer(settings) as keys:
        with pytest.raises(Refusal):
            await keys.keys()
    assert "the keys of JSON Web Tokens are unavailable: http://127.0.0.1:1/.well-known" in caplog.text


async def test_an_issuer_that_is_too_slow_is_not_waited_for(
    issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_module, "FETCH_TIMEOUT", 0.05)
    issuer.may_answer.clear()
    async with Issuer(load(flags(issuer), {})) as keys:
        with pytest.raises(IssuerError, match=r"takes longer than 0\.05 s"):
            await keys.fetch()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"", "it is not JSON"),
        (b"<html>", "it is not JSON"),
        (b"\xff\xfe", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b"[]", "it has no `keys`"),
        (b"{}", "it has no `keys`"),
        (b"null", "it has no `keys`"),
        (b'{"keys": {}}', "must hold 1 to 100 keys"),
        (b'{"keys": []}', "must hold 1 to 100 keys"),
        (json.dumps({"keys": [{}] * 101}).encode(), "must hold 1 to 100 keys"),
        (b'{"keys": [{"kty": "oct", "k": "AAAA"}]}', "none of its keys can be used (key 1: "),
        (b" " * (issuer_module.MAX_RESPONSE_BYTES + 1), "sends more than 256 KiB"),
    ],
    ids=lambda value: repr(value[:20]),
)
async def test_keys_that_are_none_change_nothing(
    keys: Issuer, issuer: FakeIssuer, clock: Clock, document: bytes, words: str
) -> None:
    before = await keys.keys()
    issuer.document = document
    with pytest.raises(IssuerError) as caught:
        await keys.fetch()
    assert words in str(caught.value)
    clock.now += issuer_module.DEFAULT_FRESH_TTL
    assert await keys.keys() is before


async def test_a_compressed_answer_is_not_blown_up(keys: Issuer, issuer: FakeIssuer) -> None:
    issuer.headers = {"Content-Encoding": "gzip"}
    issuer.document = b"\x1f\x8b" + b"x" * 100
    with pytest.raises(IssuerError, match="it is not JSON"):
        await keys.fetch()


@pytest.mark.parametrize("status", [301, 302, 307, 308, 204, 401, 503])
async def test_redirects_are_not_followed_and_faults_are_told(
    keys: Issuer, issuer: FakeIssuer, status: int
) -> None:
    issuer.status = status
    issuer.headers = {"Location": f"{issuer.url}/elsewhere"}
    with pytest.raises(IssuerError, match=f"/keys answers {status}"):
        await keys.fetch()
    assert "/elsewhere" not in issuer.requested_paths


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"issuer": "https://evil.example"}, "names the issuer 'https://evil.example'"),
        ({"issuer": None}, "names the issuer None"),
        ({"jwks_uri": None}, "its `jwks_uri` is not an https URL"),
        ({"jwks_uri": "file:///etc/passwd"}, "its `jwks_uri` is not an https URL"),
        ({"jwks_uri": ["http://127.0.0.1"]}, "its `jwks_uri` is not an https URL"),
        ({"jwks_uri": "http://"}, "http://"),
        ({"jwks_uri": "https://["}, "https://["),
        ({"jwks_uri": "https://x:99999/"}, "https://x:99999/"),
    ],
)
async def test_what_an_issuer_says_of_itself_is_checked(
    keys: Issuer, issuer: FakeIssuer, said: dict[str, object], words: str
) -> None:
    issuer.discovery = said
    with pytest.raises(IssuerError) as caught:
        await keys.fetch()
    assert words in str(caught.value)
    assert issuer.key_requests == 0


async def test_an_https_issuer_cannot_send_us_to_plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load({"jwt_issuer": "https://i.example", "jwt_audience": ["a"]}, {})
    said = {"issuer": "https://i.example", "jwks_uri": "http://i.example/keys"}

    async def answer(self: Issuer, url: str) -> tuple[bytes, str]:
        return json.dumps(said).encode(), ""

    monkeypatch.setattr(Issuer, "_get", answer)
    with pytest.raises(IssuerError, match="its `jwks_uri` is not an https URL"):
        await Issuer(settings).fetch()


async def test_a_discovery_that_is_no_object_is_told_with_what_to_do(
    keys: Issuer, issuer: FakeIssuer
) -> None:
    issuer.discovery = b"[1]"
    with pytest.raises(IssuerError, match="set --jwt-jwks-url"):
        await keys.fetch()


async def test_closing_does_not_wait_for_an_issuer_that_is_silent(issuer: FakeIssuer) -> None:
    issuer.may_answer.clear()
    async with asyncio.timeout(issuer_module.FETCH_TIMEOUT), Verifier(load(flags(issuer), {})):
        while not issuer.requested_paths:
            await asyncio.sleep(0)
