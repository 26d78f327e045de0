"""What pages say while the gateway is away, and what they do when it is back."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.conftest import StartProcess
from tests.integration.console.shell.visits import visiting
from tests.support.browser import check_looks
from tests.support.harness import put
from tests.support.ports import reserved_ports

pytestmark = pytest.mark.slow

AWAY = "The gateway does not answer. Trying again …"


async def test_a_banner_comes_when_the_gateway_is_killed_and_goes_when_it_is_back(
    gateway_process: StartProcess,
) -> None:
    with reserved_ports(1) as (port,):
        gateway = gateway_process("--port", str(port))
        async with visiting(bypass_csp=True) as visit:
            await visit.page.goto(f"{gateway.url}/-/")
            await expect(visit("main")).to_contain_text("No upload has ended lately.")
            await expect(visit("#banner")).to_be_empty()
            gateway.kill()
            await expect(visit("#banner")).to_have_text(AWAY)
            await expect(visit("main h2")).to_have_text("Overview")  # what is shown stays
            await check_looks(visit, keep="banner")
            gateway = gateway_process("--port", str(port))
            await expect(visit("#banner")).to_be_empty()
            assert (await put(gateway, "/upload/after.txt", b"x")).status == 201
            await expect(visit("main")).to_contain_text("/upload/after.txt")  # the stream is there again
            await check_looks(visit, keep="home-upload")


async def test_a_page_that_is_opened_while_the_gateway_fails_offers_to_try_again(
    gateway_process: StartProcess,
) -> None:
    gateway = gateway_process()
    async with visiting(bypass_csp=True) as visit:
        await visit.page.route("**/-/status", lambda handled: handled.abort())
        await visit.page.goto(f"{gateway.url}/-/")
        await expect(visit("main [role=alert]")).to_contain_text("The gateway does not answer.")
        await check_looks(visit, keep="failure")
        await visit.page.unroute("**/-/status")
        await visit.page.get_by_role("button", name="Try again").click()
        await expect(visit("main h2")).to_have_text("Overview")


async def test_a_session_that_has_ended_is_told_with_a_way_to_sign_in(
    gateway_process: StartProcess,
) -> None:
    gateway = gateway_process()
    async with visiting(bypass_csp=True) as visit:
        await visit.page.goto(f"{gateway.url}/-/")
        await expect(visit("main h2")).to_have_text("Overview")
        refusal = {"status": 401, "json": {"error": "unauthorized", "message": "a token is needed"}}
        await visit.page.route("**/-/status", lambda handled: handled.fulfill(**refusal))
        await visit.page.evaluate("dispatchEvent(new Event('gateway:returned'))")
        await expect(visit("#banner")).to_contain_text("You are not signed in any more.")
        await expect(visit("#banner a")).to_have_attribute(
            "href", f"{gateway.url}/-/session?return=%2F-%2F"
        )
        await check_looks(visit, keep="banner-session")
