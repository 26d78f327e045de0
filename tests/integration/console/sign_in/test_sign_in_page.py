"""The sign-in page: with a token, with an issuer, and the way out; in a real browser."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from playwright.async_api import expect

from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.browser import BrowserVisit, check_looks, visiting_as
from tests.support.harness import get, put
from tests.support.oidc import CALLBACK, CLIENT, real_issuer
from tests.support.ports import reserved_ports
from tests.support.routing.scripted import Serve, route

pytestmark = pytest.mark.slow


def visiting() -> AbstractAsyncContextManager[BrowserVisit]:
    return visiting_as(BrowserVisit, bypass_csp=True)


async def test_a_person_signs_in_with_a_token_and_out_again(serve: Serve) -> None:
    gateway = await serve()
    async with visiting() as visit:
        page = visit.page
        await page.goto(f"{gateway.url}/-/uploads?state=stored")
        await expect(page).to_have_url(f"{gateway.url}/-/session?return=%2F-%2Fuploads%3Fstate%3Dstored")
        await expect(visit("#token")).to_be_focused()
        await check_looks(visit, keep="sign-in")
        await visit("#token").fill("wrong")
        await page.keyboard.press("Enter")
        await expect(visit("#failure")).to_contain_text("not valid here")
        await expect(visit("#token")).to_be_focused()
        await check_looks(visit, keep="sign-in-wrong")
        assert [text for text in visit.said if "401" not in text] == []
        await visit("#token").fill("secret-alice")
        await page.keyboard.press("Enter")
        await expect(page).to_have_url(f"{gateway.url}/-/uploads?state=stored")
        await page.goto(f"{gateway.url}/-/session")
        await expect(visit("main")).to_contain_text("alice")
        await expect(visit("main .tag")).to_have_text("Operator")
        await check_looks(visit, keep="signed-in")
        cookies = await page.context.cookies()
        assert [(c["httpOnly"], c["sameSite"]) for c in cookies] == [(True, "Strict")]
        assert await page.evaluate("document.cookie") == ""
        await visit("main button", has_text="Sign out").click()
        await expect(visit("#token")).to_be_focused()
        assert await page.context.cookies() == []


async def test_pages_of_others_cannot_act_frame_or_sign_in_for_a_visitor(
    serve: Serve, start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await serve(route("/api", "return {'who': request.principal}", auth="token"))
    other = await start_gateway(directory=str(tmp_path / "other"), auth="none")  # of the same host
    async with visiting() as visit:
        page = visit.page
        await page.goto(f"{gateway.url}/-/session")
        await visit("#token").fill("secret-alice")
        await page.keyboard.press("Enter")
        await expect(page).not_to_have_url(f"{gateway.url}/-/session")
        assert await page.evaluate("fetch('/api').then(a => a.status)") == 200
        for attacker in (other.url, other.url.replace("127.0.0.1", "localhost")):
            await page.goto(f"{attacker}/-/docs")
            for method in ("PUT", "POST"):
                await page.evaluate(
                    "([url, method]) => fetch(url, {method, body: 'x', mode: 'no-cors',"
                    " credentials: 'include'}).catch(() => null)",
                    [f"{gateway.url}/upload/stolen.txt", "POST" if method == "POST" else method],
                )
            body = '{"token": "secret-alice"}'
            await page.evaluate(
                "([url, body]) => fetch(url, {method: 'POST', body, mode: 'no-cors',"
                " credentials: 'include', headers: {'Content-Type': 'text/plain'}}).catch(() => null)",
                [f"{gateway.url}/-/session", body],
            )
            await page.evaluate(
                "url => new Promise(done => { const frame = document.createElement('iframe');"
                " frame.src = url; frame.onload = done; document.body.append(frame); })",
                f"{gateway.url}/-/session",
            )
            framed = page.frames[-1]
            assert "token" not in await framed.content()
        owner = ("X-Auth-Token: secret-alice",)
        assert (await get(gateway, "/-/uploads?state=stored", *owner)).json["uploads"] == []


@pytest.fixture
async def with_issuer(start_gateway: StartGateway, tmp_path: Path) -> AsyncIterator[Gateway]:
    secret = tmp_path / "client-secret"
    secret.write_text("s" * 40 + "\n")
    secret.chmod(0o600)
    people = {
        "alice": {"preferred_username": "alice", "groups": ["operators", "staff"]},
        "mallory": {"preferred_username": "mallory", "groups": []},
    }
    async with contextlib.AsyncExitStack() as stack:
        port, own_port = stack.enter_context(reserved_ports(2))
        redirect_uri = f"http://127.0.0.1:{own_port}{CALLBACK}"
        url = await stack.enter_async_context(real_issuer(port, redirect_uri, people))
        yield await start_gateway(
            port=str(own_port),
            auth="token",
            oidc_issuer=url,
            oidc_client_id=CLIENT,
            oidc_client_secret_file=str(secret),
            oidc_scopes=["profile", "groups"],
            oidc_groups=["staff"],
            jwt_operators=["operators"],
        )


async def log_in(visit: BrowserVisit, name: str) -> None:
    """Fill the forms of the issuer."""
    await visit("input[name=login]").fill(name)
    await visit("input[name=password]").fill("any")
    await visit("button[type=submit]").click()
    await visit("button[type=submit]", has_text="Continue").click()


async def test_a_person_signs_in_at_a_real_issuer(with_issuer: Gateway) -> None:
    gateway = with_issuer
    async with visiting() as visit:
        page = visit.page
        await page.goto(f"{gateway.url}/-/uploads")
        await expect(visit("main a.button")).to_be_visible()
        await check_looks(visit, keep="sign-in-oidc")
        await visit("main a.button").click()
        await log_in(visit, "alice")
        await expect(page).to_have_url(f"{gateway.url}/-/uploads")
        session = await page.evaluate("fetch('session').then(answer => answer.json())")
        assert (session["principal"], session["role"]) == ({"name": "alice", "kind": "oidc"}, "operator")
        stored = await page.evaluate(
            "fetch('/upload/a.txt', {method: 'PUT', body: 'x'}).then(a => a.status)"
        )
        assert stored == 201
        assert [c["name"] for c in await page.context.cookies(f"{gateway.url}/-/session/oidc")] == [
            c["name"] for c in await page.context.cookies(gateway.url) if "sign-in" not in c["name"]
        ]
    async with visiting() as visit:
        await visit.page.goto(f"{gateway.url}/-/session")
        await visit("main a.button").click()
        await log_in(visit, "mallory")
        await expect(visit("main")).to_contain_text("none of the groups")
        await check_looks(visit, keep="sign-in-refused")
        assert [c for c in await visit.page.context.cookies() if "upload-gateway" in c["name"]] == []
    assert (await put(gateway, "/upload/b.txt")).status == 401
