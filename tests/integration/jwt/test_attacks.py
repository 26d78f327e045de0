"""Tokens that must not be believed, each against a verifier with the keys of a real issuer."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.jwt.claims import InvalidToken, truncated_principal
from gateway.auth.jwt.issuer import Issuer
from gateway.auth.jwt.keys import KeySet, parse_jwks
from gateway.auth.jwt.verifier import Verifier
from gateway.errors import Refusal
from gateway.settings import Settings, load
from tests.support.jwt.issuing import (
    AUDIENCE,
    FakeIssuer,
    Pair,
    b64,
    claims,
    ec_pair,
    ed_pair,
    flags,
    rsa_pair,
    rsa_private,
    signed,
    symmetric,
)

RSA, EC, ED = rsa_pair("r1"), ec_pair("e1"), ed_pair("d1")
STRANGER = rsa_pair("stranger")


@pytest.fixture
async def verifier(issuer: FakeIssuer) -> AsyncIterator[Verifier]:
    issuer.pairs = [RSA, EC, ED]
    async with Verifier(load(flags(issuer), {})) as made:
        yield made


async def refused(verifier: Verifier, token: str) -> str:
    """Why a token is not believed (the word for the log)."""
    with pytest.raises(Refusal) as caught:
        await verifier.verify(token)
    assert (caught.value.code, caught.value.status) == ("unauthorized", 401)
    challenge = caught.value.headers["WWW-Authenticate"]
    assert challenge.startswith('Bearer realm="upload-gateway", error="invalid_token", ')
    with pytest.raises(InvalidToken) as inner:
        await verifier.claims(token)
    return inner.value.reason


@pytest.mark.parametrize("pair", [RSA, EC, ED], ids=lambda pair: pair.algorithm)
async def test_a_good_token_is_believed_by_each_kind_of_key(
    verifier: Verifier, issuer: FakeIssuer, pair: Pair
) -> None:
    principal = await verifier.verify(issuer.token(pair, scope="a b", **{"cognito:groups": ["g"]}))
    assert principal["name"] == "ann"
    assert (principal["kind"], principal["scopes"], principal["groups"]) == ("jwt", ["a", "b"], ["g"])
    assert principal["claims"]["aud"] == AUDIENCE


async def test_a_shared_secret_made_of_the_public_key_signs_nothing(
    verifier: Verifier, issuer: FakeIssuer
) -> None:
    public = RSA.private.public_key()
    said = claims(issuer.url)
    for encoding in (Encoding.PEM, Encoding.DER):
        secret = public.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
        assert await refused(verifier, symmetric(secret, said, kid="r1")) == "algorithm"
        # The header says what the key is for, the signature is of the shared secret.
        assert await refused(verifier, symmetric(secret, said, kid="r1", alg="RS256")) == "signature"
    assert await refused(verifier, symmetric(b"", said, kid="r1")) == "algorithm"


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", None, ["RS256"], 5])
async def test_a_token_without_a_signature_is_none(
    verifier: Verifier, issuer: FakeIssuer, name: Any
) -> None:
    head = b64(json.dumps({"alg": name, "kid": "r1"}).encode())
    body = b64(json.dumps(claims(issuer.url)).encode())
    assert await refused(verifier, f"{head}.{body}.") == "form"
    assert await refused(verifier, f"{head}.{body}.AA") == "algorithm"


async def test_a_key_serves_only_the_algorithms_of_its_type(
    verifier: Verifier, issuer: FakeIssuer
) -> None:
    said = claims(issuer.url)
    for algorithm in ("ES256", "EdDSA", "PS256", "RS512"):
        token = signed({"alg": algorithm, "kid": "r1"}, said, "RS256", RSA.private)
        assert await refused(verifier, token) == "signature"
    # The JWK says RS256: even a true signature of the same key by another algorithm is refused.
    ps256 = signed({"alg": "PS256", "kid": "r1"}, said, "PS256", RSA.private)
    assert await refused(verifier, ps256) == "signature"


async def test_an_algorithm_that_the_operator_did_not_name_is_refused(issuer: FakeIssuer) -> None:
    issuer.pairs = [RSA, EC]
    async with Verifier(load(flags(issuer, jwt_algorithms=["ES256"]), {})) as strict:
        assert await refused(strict, issuer.token(RSA)) == "algorithm"
        assert (await strict.verify(issuer.token(EC)))["name"] == "ann"


@pytest.mark.parametrize(
    "kind", ["logout+jwt", "dpop+jwt", "secevent+jwt", "application/JWE", "JOSE", "", 5, ["JWT"]]
)
async def test_a_token_of_another_kind_is_refused(
    verifier: Verifier, issuer: FakeIssuer, kind: Any
) -> None:
    assert await refused(verifier, RSA.sign(claims(issuer.url), typ=kind)) == "typ"


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt", None])
async def test_a_token_for_access_is_believed_however_its_kind_is_spelled(
    verifier: Verifier, issuer: FakeIssuer, kind: str | None
) -> None:
    assert (await verifier.verify(RSA.sign(claims(issuer.url), typ=kind)))["name"] == "ann"


@pytest.mark.parametrize("header", [{"crit": ["exp"], "exp": 1}, {"crit": []}, {"crit": "b64"}])
async def test_an_extension_that_must_be_understood_is_refused(
    verifier: Verifier, issuer: FakeIssuer, header: dict[str, Any]
) -> None:
    assert await refused(verifier, RSA.sign(claims(issuer.url), **header)) in {"crit", "form"}


async def test_a_payload_outside_of_the_signature_is_refused(
    verifier: Verifier, issuer: FakeIssuer
) -> None:
    token = RSA.sign(claims(issuer.url), b64=False, crit=["b64"])
    assert await refused(verifier, token) == "form"


async def test_a_key_that_comes_with_the_token_is_not_looked_at(
    verifier: Verifier, issuer: FakeIssuer
) -> None:
    said = claims(issuer.url)
    header = {
        "jwk": STRANGER.jwk,
        "jku": f"{issuer.url}/stolen",
        "x5u": f"{issuer.url}/stolen",
        "x5c": ["MIIB"],
    }
    assert await refused(verifier, STRANGER.sign(said, **header)) == "unknown key"
    assert await refused(verifier, STRANGER.sign(said, **{**header, "kid": "r1"})) == "signature"
    assert await refused(verifier, STRANGER.sign(said, kid="r1")) == "signature"
    assert "/stolen" not in issuer.requested_paths


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"exp": int(time.time()) - 31}, "expired"),
        ({"exp": 1}, "expired"),
        ({"exp": None}, "exp"),
        ({"exp": "99999999999"}, "exp"),
        ({"exp": True}, "exp"),
        ({"exp": [9999999999]}, "exp"),
        ({"exp": float("inf")}, "form"),
        ({"exp": float("nan")}, "form"),
        ({"exp": -1}, "exp"),
        ({"exp": 10**400}, "exp"),
        ({"nbf": int(time.time()) + 86_400}, "too early"),
        ({"nbf": "0"}, "nbf"),
        ({"iat": int(time.time()) + 86_400}, "too early"),
        ({"iat": {}}, "iat"),
        ({"iss": None}, "issuer"),
        ({"iss": "https://evil.example"}, "issuer"),
        ({"iss": ["https://evil.example"]}, "issuer"),
        ({"aud": "other"}, "audience"),
        ({"aud": None}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": ""}, "audience"),
        ({"aud": [["photos"]]}, "audience"),
        ({"aud": {"photos": 1}}, "audience"),
        ({"aud": "photos "}, "audience"),
        ({"aud": None, "client_id": AUDIENCE}, "audience"),
    ],
    ids=lambda value: None if isinstance(value, dict) else str(value),
)
async def test_claims_that_are_wrong_or_missing_are_refused(
    verifier: Verifier, issuer: FakeIssuer, wrong: dict[str, Any], reason: str
) -> None:
    assert await refused(verifier, issuer.token(RSA, **wrong)) == reason


@pytest.mark.parametrize("end", ["/", "/.", "?", " ", ".evil.example"])
async def test_an_issuer_that_only_looks_alike_is_refused(
    verifier: Verifier, issuer: FakeIssuer, end: str
) -> None:
    assert await refused(verifier, issuer.token(RSA, iss=issuer.url + end)) == "issuer"
    assert await refused(verifier, issuer.token(RSA, iss=issuer.url.upper())) == "issuer"


async def test_clocks_may_be_off_by_the_leeway_and_no_more(issuer: FakeIssuer) -> None:
    now = 1_800_000_000.0
    async with Verifier(load(flags(issuer, jwt_leeway="10"), {}), clock=lambda: now) as verifier:
        for good in ({"exp": now - 9}, {"nbf": now + 9}, {"iat": now + 9}):
            said = {"iat": now, "exp": now + 60, **good}
            assert (await verifier.verify(issuer.token(**said)))["name"] == "ann"
        for bad in ({"exp": now - 10}, {"nbf": now + 11}, {"iat": now + 11}):
            await refused(verifier, issuer.token(**{"iat": now, "exp": now + 60, **bad}))


async def test_tokens_without_an_audience_are_known_by_their_client(issuer: FakeIssuer) -> None:
    settings = load({"jwt_issuer": issuer.url, "jwt_client_ids": ["app"], "jwt_token_use": "access"}, {})
    async with Verifier(settings) as verifier:
        good = {"aud": None, "client_id": "app", "token_use": "access"}
        assert (await verifier.verify(issuer.token(**good)))["name"] == "ann"
        assert await refused(verifier, issuer.token(**{**good, "client_id": "other"})) == "audience"
        assert await refused(verifier, issuer.token(**{**good, "client_id": ["app"]})) == "audience"
        assert await refused(verifier, issuer.token(**{**good, "aud": "app"})) == "audience"
        assert await refused(verifier, issuer.token(**{**good, "token_use": "id"})) == "token_use"
        assert await refused(verifier, issuer.token(**{**good, "token_use": None})) == "token_use"
        assert await refused(verifier, issuer.token(**{**good, "token_use": ["access"]})) == "token_use"


@pytest.mark.parametrize(
    "kid",
    ["../../r1", "r1'--", "r1\n", "r1\x00", "R1", "r1 ", "é", "", "x" * 9000, "/", "a=b;c"],
    ids=lambda kid: repr(kid)[:20],
)
async def test_odd_key_names_find_no_key(verifier: Verifier, issuer: FakeIssuer, kid: str) -> None:
    assert await refused(verifier, RSA.sign(claims(issuer.url), kid=kid)) == "unknown key"


@pytest.mark.parametrize("kid", [["r1"], {"r1": 1}, 1, True])
async def test_a_key_name_that_is_no_text_is_refused(
    verifier: Verifier, issuer: FakeIssuer, kid: Any
) -> None:
    assert await refused(verifier, RSA.sign(claims(issuer.url), kid=kid)) == "form"


async def test_key_names_with_odd_characters_work_where_the_issuer_has_them(issuer: FakeIssuer) -> None:
    issuer.pairs = [rsa_pair("a/b+c=d"), ec_pair("é %2F")]
    async with Verifier(load(flags(issuer), {})) as verifier:
        for pair in issuer.pairs:
            assert (await verifier.verify(issuer.token(pair)))["name"] == "ann"


async def test_a_token_that_names_no_key_needs_an_issuer_that_has_only_one(
    verifier: Verifier, issuer: FakeIssuer
) -> None:
    assert await refused(verifier, RSA.sign(claims(issuer.url), kid=None)) == "unknown key"
    issuer.pairs = [RSA]
    async with Verifier(load(flags(issuer), {})) as single:
        assert (await single.verify(RSA.sign(claims(issuer.url), kid=None)))["name"] == "ann"


async def test_a_token_that_was_changed_is_refused(verifier: Verifier, issuer: FakeIssuer) -> None:
    head, _, signature = issuer.token(RSA).split(".")
    other = b64(json.dumps(claims(issuer.url, sub="root")).encode())
    assert await refused(verifier, f"{head}.{other}.{signature}") == "signature"
    foreign = issuer.token(RSA, sub="bob").rpartition(".")[2]
    assert await refused(verifier, issuer.token(RSA).rpartition(".")[0] + "." + foreign) == "signature"


@pytest.mark.parametrize("signature", [b"\0" * 64, b"\0", b"\xff" * 64, b"\0" * 256])
async def test_signatures_of_nothing_are_refused(
    verifier: Verifier, issuer: FakeIssuer, signature: bytes
) -> None:
    for pair in (RSA, EC, ED):
        token = f"{issuer.token(pair).rpartition('.')[0]}.{b64(signature)}"
        assert await refused(verifier, token) == "signature"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a",
        "a.b",
        "a.b.c",
        "..",
        "a.b.c.d.e",
        "eyJhbGciOiJSUzI1NiJ9.e30",
        "é.é.é",
        "a.b.c\n",
        "=.=.=",
    ],
)
async def test_what_is_no_token_is_refused(verifier: Verifier, token: str) -> None:
    assert await refused(verifier, token) == "form"


async def test_a_token_is_bounded_before_anything_is_done_with_it(
    verifier: Verifier, issuer: FakeIssuer
) -> None:
    assert await refused(verifier, issuer.token(RSA, much="x" * 16384)) == "length"


@pytest.mark.parametrize(
    "body",
    [b"[1]", b"null", b"5", b"{", b"\xff\xfe", b'{"a":' * 2000, b"[" * 5000, b'{"exp":' + b"9" * 5000],
    ids=lambda body: repr(body[:6]),
)
async def test_a_payload_that_is_no_object_is_refused(verifier: Verifier, body: bytes) -> None:
    token = signed({"alg": "RS256", "kid": "r1"}, body, "RS256", RSA.private)
    assert await refused(verifier, token) == "form"


@pytest.mark.parametrize(
    "who", [{"sub": None}, {"sub": ""}, {"sub": 5}, {"sub": ["ann"]}, {"sub": "x" * 256}], ids=str
)
async def test_a_token_that_names_nobody_is_refused(
    verifier: Verifier, issuer: FakeIssuer, who: dict[str, Any]
) -> None:
    with pytest.raises(Refusal):
        await verifier.verify(issuer.token(RSA, **who))


async def test_claims_that_could_not_be_written_down_are_refused(
    verifier: Verifier, issuer: FakeIssuer
) -> None:
    deep: Any = 1
    for _ in range(800):
        deep = [deep]
    for odd in ({"sub": "\ud800"}, {"x": float("nan")}):
        with pytest.raises(Refusal):
            await verifier.verify(issuer.token(RSA, **odd))
    assert (await verifier.verify(issuer.token(RSA, deep=deep)))["name"] == "ann"


async def test_a_token_that_was_believed_is_not_believed_for_longer_than_it_says(
    issuer: FakeIssuer,
) -> None:
    now = [1_800_000_000.0]
    async with Verifier(load(flags(issuer, jwt_leeway="0"), {}), clock=lambda: now[0]) as verifier:
        token = issuer.token(iat=now[0], exp=now[0] + 20)
        assert (await verifier.verify(token))["name"] == "ann"
        now[0] += 19.9
        assert verifier.cached_principal(token) is not None
        now[0] += 0.1
        assert verifier.cached_principal(token) is None
        assert await refused(verifier, token) == "expired"


async def test_what_a_script_does_to_its_principal_reaches_no_other_request(
    verifier: Verifier, issuer: FakeIssuer
) -> None:
    token = issuer.token(RSA)
    first = await verifier.verify(token)
    first["groups"].append("admins")
    first["claims"]["sub"] = "root"
    second = await verifier.verify(token)
    assert (second["groups"], second["claims"]["sub"]) == ([], "ann")


async def test_a_crowd_of_tokens_fills_no_memory(
    verifier: Verifier, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.auth.jwt.verifier.MAX_CACHED", 3)
    tokens = [issuer.token(ED, jti=str(number)) for number in range(5)]
    for token in tokens:
        await verifier.verify(token)
    truncated_principal = [verifier.cached_principal(token) is not None for token in tokens]
    assert truncated_principal == [False, False, True, True, True]


class _Known(Issuer):
    """The keys are here: properties are tried without a network."""

    def __init__(self, settings: Settings, keys: KeySet) -> None:
        super().__init__(settings)
        self.known = keys

    async def keys(self) -> KeySet:
        return self.known

    async def renewed(self, seen: KeySet) -> KeySet:
        return seen


MADE = "https://i.example"
PAIR = ed_pair("k")
GOOD = PAIR.sign(claims(MADE))

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
CLAIMS = ["iss", "sub", "aud", "exp", "nbf", "iat", "client_id", "token_use", "username", "groups"]
CLAIMS += ["cognito:username", "cognito:groups", "roles", "scope", "scp"]


def knowing() -> Verifier:
    """A verifier that has the key of PAIR."""
    settings = load({"jwt_issuer": MADE, "jwt_audience": [AUDIENCE]}, {})
    keys = parse_jwks(json.dumps({"keys": [PAIR.jwk]}).encode(), settings.signatures)
    return Verifier(settings, _Known(settings, keys))


@given(st.integers(0, len(GOOD) - 1), st.sampled_from("Ab0_-.="))
async def test_no_letter_of_a_token_can_be_changed(at: int, letter: str) -> None:
    verifier = knowing()
    assert (await verifier.verify(GOOD))["name"] == "ann"
    changed = GOOD[:at] + letter + GOOD[at + 1 :]
    if changed != GOOD:
        await refused(verifier, changed)


@given(st.dictionaries(st.sampled_from(CLAIMS), anything, max_size=4))
async def test_whatever_a_token_says_it_is_believed_or_refused(said: dict[str, Any]) -> None:
    try:
        principal = await knowing().verify(PAIR.sign({**claims(MADE), **said}))
    except Refusal as fault:
        assert fault.status == 401  # noqa: PT017  (either outcome is right)
        return
    assert isinstance(principal["name"], str)
    assert principal["name"]
    for word in (*principal["scopes"], *principal["groups"]):
        assert isinstance(word, str)
        assert word
    json.dumps(principal, allow_nan=False).encode()
    json.dumps(truncated_principal(principal))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (
            lambda: {"kty": "oct", "k": b64(b"x" * 32), "alg": "HS256", "kid": "s"},
            "serves no accepted algorithm",
        ),
        (lambda: {**RSA.jwk, "d": "AQAB"}, "its private half is published"),
        (lambda: Pair("w", "RS256", rsa_private("weak", 1024)).jwk, "fewer than 2048 bits"),
        (lambda: {**RSA.jwk, "use": "enc"}, "not for signatures"),
        (lambda: {**RSA.jwk, "key_ops": ["encrypt"]}, "not for signatures"),
        (lambda: {**RSA.jwk, "alg": "HS256"}, "serves no accepted algorithm"),
        (lambda: {**RSA.jwk, "alg": "RSA-OAEP"}, "serves no accepted algorithm"),
        (lambda: {**EC.jwk, "crv": "P-384"}, "serves no accepted algorithm"),
        (lambda: {**EC.jwk, "x": EC.jwk["y"]}, ""),
        (lambda: {"kty": "RSA"}, ""),
        (lambda: {**RSA.jwk, "n": 5}, ""),
        (lambda: {**RSA.jwk, "alg": ["RS256"]}, ""),
        (lambda: {**RSA.jwk, "key_ops": 5}, ""),
        (lambda: [], "not an object"),
        (lambda: None, "not an object"),
    ],
)
def test_keys_that_are_not_to_be_trusted_are_passed_over(make: Callable[[], Any], why: str) -> None:
    document = json.dumps({"keys": [make(), EC.jwk]}).encode()
    keys = parse_jwks(document, frozenset({"RS256", "ES256"}))
    assert [key.kid for key in keys.keys] == ["e1"]
    assert why in keys.skipped[0]
