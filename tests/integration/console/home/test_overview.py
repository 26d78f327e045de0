"""The overview at `/-/`: what goes on, and what needs attention, with where to go."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import expect

from gateway.domain.model import UPLOADED
from tests.conftest import StartGateway
from tests.support.browser import BrowserVisit, check_looks, visiting_as
from tests.support.harness import put
from tests.support.recorders import write_handler

pytestmark = pytest.mark.slow


async def test_what_needs_attention_leads_to_where_it_is_mended(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    fails = 'raise ValueError("the index is away")\n'
    more = "retry: {attempts: 1}\n"
    values = write_handler(tmp_path / "plugins", fails, name="index", event=UPLOADED, more=more)
    gateway = await start_gateway(plugins=values)
    async with visiting_as(BrowserVisit, bypass_csp=True) as visit:
        await visit.page.goto(f"{gateway.url}/-/")
        await expect(visit(".need")).to_have_text("Nothing needs attention.")
        await check_looks(visit, keep="home-calm")
        await put(gateway, "/upload/a.txt", b"x")
        await expect(visit(".latest")).to_contain_text("a.txt")
        await visit.page.reload()
        await expect(visit(".need.bad")).to_contain_text("1 delivery to index is dead.")
        await check_looks(visit, keep="home-needs")
        await visit(".need.bad").get_by_role("link", name="Show").click()
        await expect(visit("h2").first).to_have_text("Events")
        assert "state=dead" in visit.page.url
