"""`/-/docs` by axe, in its states, wide and narrow, light and dark; and by the keyboard alone."""

from __future__ import annotations

import pytest
from playwright.async_api import Route, expect

from tests.integration.console.visits import OPEN, PEOPLE, SEARCH, visiting_docs
from tests.support.browser import check_looks
from tests.support.routing.scripted import Serve

pytestmark = pytest.mark.slow


async def test_no_state_of_the_page_has_a_violation(serve: Serve) -> None:
    gateway = await serve(PEOPLE, SEARCH)
    async with visiting_docs(bypass_csp=True) as visit:
        await visit.open(gateway.url)
        await visit("#use-token").click()
        await visit.sign_in("wrong")
        await expect(visit("#gate-error")).not_to_be_empty()
        await check_looks(visit, keep="docs-token")
        await visit.sign_in("secret-alice")
        await expect(visit("#pages")).to_be_visible()
        await check_looks(visit, keep="docs-list")
        await visit("#groups a", has_text="Stores a person").click()
        await expect(visit("#operation h2")).to_have_text("Stores a person")
        for summary in await visit("#operation details:not([open]) > summary").all():
            await summary.click()
        await check_looks(visit, keep="docs-operation")
        await visit.page.goto(f"{gateway.url}/-/docs#get/none")
        await expect(visit("#operation h2")).to_have_text("No such operation")
        await check_looks(visit)


async def test_no_failing_state_of_the_page_has_a_violation(serve: Serve) -> None:
    gateway = await serve(OPEN)
    bodies = iter(["<html>", '{"paths": {}}'])

    async def answer(handled: Route) -> None:
        await handled.fulfill(body=next(bodies))

    async with visiting_docs(bypass_csp=True) as visit:
        await visit.page.route("**/-/openapi.json", answer)
        await visit.open(gateway.url)
        await expect(visit("#failure-title")).to_be_visible()
        await check_looks(visit, keep="docs-failure")
        await visit("#again").click()
        await expect(visit("#operation h2")).to_have_text("Nothing is served yet")
        await check_looks(visit, keep="docs-empty")


async def test_the_page_is_used_by_the_keyboard_alone(serve: Serve) -> None:
    gateway = await serve(PEOPLE, SEARCH)
    async with visiting_docs() as visit:
        await visit.open(gateway.url)
        press = visit.page.keyboard.press
        await press("Tab")
        await expect(visit("#skip")).to_be_focused()
        await visit.tab_to("#use-token")
        await press("Enter")
        await expect(visit("#token")).to_be_focused()
        await visit.page.keyboard.type("secret-alice")
        await press("Enter")
        await expect(visit("#caller")).to_have_text("alice")
        await expect(visit("#search")).to_be_focused()
        await press("ArrowDown")
        await expect(visit("#groups a").first).to_be_focused()
        await press("ArrowDown")
        await press("ArrowUp")
        await press("ArrowUp")
        await expect(visit("#search")).to_be_focused()
        await visit.page.keyboard.type("stores")
        await expect(visit("#groups li:not([hidden])")).to_have_count(1)
        await press("ArrowDown")
        await press("Enter")
        await expect(visit("#operation h2")).to_be_focused()
        await press("Tab")
        await expect(visit.page.get_by_role("button", name="Copy link")).to_be_focused()
