"""Attacks on OpenID Connect: what is not the answer of the issuer to this browser is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import RawResponse, get
from tests.support.jwt.issuing import b64, claims, rsa_pair, symmetric
from tests.support.oidc import CLIENT, LyingIssuer, begin, finish

HTML = "Accept: text/html"


@pytest.fixture
async def issuer() -> AsyncIterator[LyingIssuer]:
    async with LyingIssuer().serving() as serving:
        assert isinstance(serving, LyingIssuer)
        yield serving


@pytest.fixture
async def gateway(issuer: LyingIssuer, start_gateway: StartGateway) -> Gateway:
    return await start_gateway(
        auth="token", oidc_issuer=issuer.url, oidc_client_id=CLIENT, oidc_groups=["staff"]
    )


def session_cookie(response: RawResponse) -> str | None:
    """Return the session that a response sets: the last of two cookies is shown here."""
    name = response.headers.get("Set-Cookie", "").partition("=")[0]
    return None if name.endswith("-sign-in") or not name else name


async def test_a_person_in_a_group_signs_in_and_goes_on_to_where_it_came_from(
    issuer: LyingIssuer, gateway: Gateway
) -> None:
    issuer.more = {"groups": ["staff"]}
    attempt = await begin(gateway, issuer, "/-/uploads?state=stored")
    assert attempt.query["code_challenge_method"] == "S256"
    assert attempt.query["scope"] == "openid profile email"
    done = await finish(gateway, attempt)
    assert (done.status, done.headers["Referrer-Policy"]) == (200, "no-referrer")
    assert b'content="0; url=/-/uploads?state=stored"' in done.body
    assert issuer.exchanges[0]["redirect_uri"] == attempt.query["redirect_uri"]
    assert len(issuer.exchanges[0]["code_verifier"]) == 43
    assert "client_secret" not in issuer.exchanges[0]


LIES: Final[dict[str, tuple[dict[str, Any], int]]] = {
    "wrong nonce": ({"more": {"nonce": "other"}}, 401),
    "no nonce": ({"more": {"nonce": None}}, 401),
    "token of another client": ({"more": {"aud": "other-client"}}, 401),
    "two audiences": ({"more": {"aud": [CLIENT, "other-client"]}}, 401),
    "two audiences for another": ({"more": {"aud": [CLIENT, "other"], "azp": "other"}}, 401),
    "another party": ({"more": {"azp": "other-client"}}, 401),
    "another issuer": ({"more": {"iss": "https://other.example"}}, 401),
    "expired": ({"more": {"exp": 1_700_000_000}}, 401),
    "nobody": ({"more": {"sub": None, "preferred_username": None}}, 401),
    "of another group": ({"more": {"groups": ["guests"]}}, 403),
    "of no group": ({"more": {"groups": None}}, 403),
    "another key": ({"pair": rsa_pair("other")}, 401),
    "code of another": ({"error": (400, {"error": "invalid_grant"})}, 401),
    "failing": ({"error": (500, {"error": "server_error"})}, 503),
    "unknown client": ({"error": (401, {"error": "invalid_client"})}, 503),
}


@pytest.mark.parametrize("lie", sorted(LIES))
async def test_what_the_issuer_does_not_say_of_this_sign_in_is_refused(
    issuer: LyingIssuer, gateway: Gateway, lie: str
) -> None:
    values, expected = LIES[lie]
    issuer.more = {"groups": ["staff"]}
    for name, value in values.items():
        setattr(issuer, name, {**issuer.more, **value} if name == "more" else value)
    refused = await finish(gateway, await begin(gateway, issuer))
    assert (refused.status, session_cookie(refused)) == (expected, None), refused.body


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
async def test_an_id_token_without_a_signature_of_the_issuer_is_refused(
    issuer: LyingIssuer, gateway: Gateway, algorithm: str
) -> None:
    attempt = await begin(gateway, issuer)
    values = claims(issuer.url, aud=CLIENT, nonce=issuer.nonce, groups=["staff"])
    if algorithm == "none":
        text = json.dumps
        issuer.id_token = f"{b64(text({'alg': 'none'}).encode())}.{b64(text(values).encode())}."
    else:
        issuer.id_token = symmetric(b"secret", values)
    refused = await finish(gateway, attempt)
    assert (refused.status, session_cookie(refused)) == (401, None)


async def test_the_state_of_another_browser_is_refused(issuer: LyingIssuer, gateway: Gateway) -> None:
    mine, others = await begin(gateway), await begin(gateway, issuer)
    for cookie in (f"Cookie: {mine.cookie}", "Cookie: a=1", f"Cookie: {others.cookie}x"):
        refused = await get(gateway, others.answer(), cookie)
        assert (refused.status, session_cookie(refused)) == (400, None)
    assert issuer.exchanges == []


async def test_over_https_a_sign_in_that_began_over_http_is_refused(
    issuer: LyingIssuer, start_gateway: StartGateway
) -> None:
    gateway = await start_gateway(
        auth="token", oidc_issuer=issuer.url, oidc_client_id=CLIENT, trusted_proxies=["127.0.0.1"]
    )
    attempt = await begin(gateway, issuer)
    cookie = f"Cookie: {attempt.cookie}"
    refused = await get(gateway, attempt.answer(), cookie, "X-Forwarded-Proto: https")
    assert (refused.status, issuer.exchanges) == (400, [])
    assert (await get(gateway, attempt.answer(), cookie)).status == 200


async def test_an_answer_counts_once(issuer: LyingIssuer, gateway: Gateway) -> None:
    issuer.more = {"groups": ["staff"]}
    attempt = await begin(gateway, issuer)
    answers = await asyncio.gather(*(finish(gateway, attempt) for _ in range(3)))
    assert sorted(answer.status for answer in answers) == [200, 400, 400]
    assert len(issuer.exchanges) == 1


async def test_the_answer_of_another_issuer_is_refused(issuer: LyingIssuer, gateway: Gateway) -> None:
    refused = await finish(gateway, await begin(gateway, issuer), iss="https://other.example")
    assert (refused.status, issuer.exchanges) == (400, [])


async def test_an_issuer_that_names_itself_must_do_so_each_time(
    issuer: LyingIssuer, gateway: Gateway
) -> None:
    issuer.discovery = {"authorization_response_iss_parameter_supported": True}
    issuer.more = {"groups": ["staff"]}
    assert (await finish(gateway, await begin(gateway, issuer))).status == 400
    assert (await finish(gateway, await begin(gateway, issuer), iss=issuer.url)).status == 200


async def test_a_sign_in_never_leads_to_another_host(issuer: LyingIssuer, gateway: Gateway) -> None:
    issuer.more = {"groups": ["staff"]}
    for back in (
        "//evil.example", "https://evil.example", "/%5Cevil.example", "/%09/evil.example", "%5C%5Cevil",
        "javascript:alert(1)", "/%0D%0ASet-Cookie:evil=1", "/%22%3E%3Cscript%3E",
    ):  # fmt: skip
        done = await finish(gateway, await begin(gateway, issuer, back))
        assert done.status == 200
        for trace in (b"evil", b"<script", b"javascript:"):
            assert trace not in done.body, back


async def test_an_error_of_the_issuer_is_text(issuer: LyingIssuer, gateway: Gateway) -> None:
    attempt = await begin(gateway, issuer)
    error = {"error": "access_denied", "error_description": "%3Cscript%3Ealert(1)%3C/script%3E"}
    refused = await finish(gateway, attempt, HTML, **error)
    assert (refused.status, refused.headers["Content-Type"]) == (403, "text/html; charset=utf-8")
    assert b"access_denied &lt;script&gt;alert(1)&lt;/script&gt;" in refused.body
    assert refused.headers["Content-Security-Policy"].startswith("default-src 'none'")


async def test_an_issuer_that_hangs_or_is_away_is_told_and_holds_nobody_up(
    issuer: LyingIssuer, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.auth.oidc.provider.FETCH_TIMEOUT", 0.5)
    monkeypatch.setattr("gateway.auth.oidc.provider.CONFIGURATION_TTL", 0.0)
    gateway = await start_gateway(auth="token", oidc_issuer=issuer.url, oidc_client_id=CLIENT)
    attempt = await begin(gateway, issuer)
    issuer.error = (200, {})
    assert (await finish(gateway, attempt)).status == 503
    issuer.hangs = True
    assert (await finish(gateway, await begin(gateway, issuer))).status == 503
    issuer.discovery = b"not JSON"
    for line, kind in ((HTML, "text/html"), ("Accept: */*", "application/json")):
        away = await get(gateway, "/-/session/oidc", line)
        assert (away.status, away.headers["Content-Type"].partition(";")[0]) == (503, kind)


async def test_one_client_cannot_make_the_gateway_ask_the_issuer_again_and_again(
    issuer: LyingIssuer, gateway: Gateway
) -> None:
    issuer.error = (400, {"error": "invalid_grant"})
    statuses = [(await finish(gateway, await begin(gateway, issuer))).status for _ in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    assert len(issuer.exchanges) == 10
