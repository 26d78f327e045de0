"""The page of plugins/photos by axe, in its states: empty, full, failing, asking, inviting."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.integration.photos.browser import visiting
from tests.integration.photos.conftest import TOKENS, Serve
from tests.support.browser import check_looks
from tests.support.pictures import picture

pytestmark = pytest.mark.slow


async def test_no_state_of_the_page_has_a_violation(serve: Serve) -> None:
    client = await serve(auth="token", tokens=TOKENS)
    async with visiting(bypass_csp=True) as visit:
        await visit.open(client.url)
        await expect(visit("#gate")).to_be_visible()
        await check_looks(visit)
        await visit("#token").fill("secret-alice")
        await visit.page.keyboard.press("Enter")
        await expect(visit("#empty")).to_be_visible()
        await check_looks(visit)
        await visit.choose(
            ("small.png", "image/png", picture()),
            ("a name that is very long and has no end, as cameras give them.txt", "text/plain", b"x"),
            ("notes.txt", "text/plain", b"x"),
        )
        await visit.shows(1)
        await expect(visit("#summary")).to_have_text("2 not stored")
        await check_looks(visit)
        await visit.page.get_by_role("button", name="Invite guests").click()
        await visit.page.get_by_role("button", name="Make a link").click()
        await expect(visit("#invite-links li")).to_have_count(1)
        await check_looks(visit)
