"""`/-/docs` by axe, in its states, wide and narrow, light and dark; and by the keyboard alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import Route, expect

from tests.integration.console.visits import OPEN, PEOPLE, SEARCH, visiting_docs
from tests.support.browser import assert_accessible
from tests.support.node import node_modules
from tests.support.routing.scripted import Serve

pytestmark = pytest.mark.slow

LOOKS = [(1280, "light"), (390, "dark"), (1280, "dark"), (390, "light")]


async def axe_script() -> Path:
    return await asyncio.to_thread(node_modules) / "node_modules" / "axe-core" / "axe.min.js"


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
async def test_no_state_of_the_page_has_a_violation(serve: Serve, width: int, scheme: str) -> None:
    gateway = await serve(PEOPLE, SEARCH)
    axe, size = await axe_script(), {"width": width, "height": 844}
    async with visiting_docs(viewport=size, color_scheme=scheme, bypass_csp=True) as visit:
        await visit.open(gateway.url)
        await visit("#use-token").click()
        await visit.sign_in("wrong")
        await expect(visit("#gate-error")).not_to_be_empty()
        await assert_accessible(visit, axe, width)
        await visit.sign_in("secret-alice")
        await expect(visit("#pages")).to_be_visible()
        await assert_accessible(visit, axe, width)
        await visit("#groups a", has_text="Stores a person").click()
        await expect(visit("#operation h2")).to_have_text("Stores a person")
        for summary in await visit("#operation details:not([open]) > summary").all():
            await summary.click()
        await assert_accessible(visit, axe, width)
        await visit.page.goto(f"{gateway.url}/-/docs#get/none")
        await expect(visit("#operation h2")).to_have_text("No such operation")
        await assert_accessible(visit, axe, width)


@pytest.mark.parametrize(("width", "scheme"), LOOKS[:2])
async def test_no_failing_state_of_the_page_has_a_violation(
    serve: Serve, width: int, scheme: str
) -> None:
    gateway = await serve(OPEN)
    axe, size = await axe_script(), {"width": width, "height": 844}
    bodies = iter(["<html>", '{"paths": {}}'])

    async def answer(handled: Route) -> None:
        await handled.fulfill(body=next(bodies))

    async with visiting_docs(viewport=size, color_scheme=scheme, bypass_csp=True) as visit:
        await visit.page.route("**/-/openapi.json", answer)
        await visit.open(gateway.url)
        await expect(visit("#failure-title")).to_be_visible()
        await assert_accessible(visit, axe, width)
        await visit("#again").click()
        await expect(visit("#operation h2")).to_have_text("Nothing is served yet")
        await assert_accessible(visit, axe, width)


async def test_the_page_is_used_by_the_keyboard_alone(serve: Serve) -> None:
    gateway = await serve(PEOPLE, SEARCH)
    async with visiting_docs() as visit:
        await visit.open(gateway.url)
        press = visit.page.keyboard.press
        await press("Tab")
        await expect(visit("#skip")).to_be_focused()
        await press("Tab")
        await expect(visit("#use-token")).to_be_focused()
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
