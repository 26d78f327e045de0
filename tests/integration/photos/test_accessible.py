"""The page of plugins/photos by axe, in its states: empty, full, failing, asking, inviting."""

from __future__ import annotations

import asyncio

import pytest
from playwright.async_api import expect

from tests.integration.photos.browser import visiting
from tests.integration.photos.conftest import TOKENS, Serve
from tests.support.browser import assert_accessible
from tests.support.node import node_modules
from tests.support.pictures import picture

pytestmark = pytest.mark.slow

LOOKS = [(1280, "light"), (390, "dark")]


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
async def test_no_state_of_the_page_has_a_violation(serve: Serve, width: int, scheme: str) -> None:
    client = await serve(auth="token", tokens=TOKENS)
    axe = await asyncio.to_thread(node_modules) / "node_modules" / "axe-core" / "axe.min.js"
    size = {"width": width, "height": 844}
    async with visiting(viewport=size, color_scheme=scheme, bypass_csp=True) as visit:
        await visit.open(client.url)
        await expect(visit("#gate")).to_be_visible()
        await assert_accessible(visit, axe, width)
        await visit("#token").fill("secret-alice")
        await visit.page.keyboard.press("Enter")
        await expect(visit("#empty")).to_be_visible()
        await assert_accessible(visit, axe, width)
        await visit.choose(
            ("small.png", "image/png", picture()),
            ("a name that is very long and has no end, as cameras give them.txt", "text/plain", b"x"),
            ("notes.txt", "text/plain", b"x"),
        )
        await visit.shows(1)
        await expect(visit("#summary")).to_have_text("2 not stored")
        await assert_accessible(visit, axe, width)
        await visit.page.get_by_role("button", name="Invite guests").click()
        await visit.page.get_by_role("button", name="Make a link").click()
        await expect(visit("#invite-links li")).to_have_count(1)
        await assert_accessible(visit, axe, width)
