"""The page of events: what waits and what is dead, and what an operator does about it by button."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import expect

from gateway.errors import EventEngineUnavailable
from gateway.events.ledger import JournalLedger
from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.integration.console.events.filled import (
    dead_by_handler,
    fill_dead,
    fill_every_state,
    visiting,
)
from tests.support.browser import BrowserVisit, check_looks
from tests.support.records import delivery_states

pytestmark = pytest.mark.slow

IMAGE = "UnidentifiedImageError: cannot identify image file '/data/{0}.png'"
AWAY = "ConnectionError: the other system is away"


async def open_events(visit: BrowserVisit, gateway: Gateway, query: str = "") -> None:
    await visit.page.goto(f"{gateway.url}/-/events{query}")
    await expect(visit(".figure").last).not_to_have_text("–")
    await expect(visit(".loading")).to_have_count(0)


def row(visit: BrowserVisit, handler: str) -> object:
    return visit("table.handlers tbody tr", has_text=handler)


async def test_an_empty_queue_says_so_and_fills_by_itself_with_every_state(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway()
    async with visiting() as visit:
        await open_events(visit, gateway)
        await expect(visit("text=Nothing waits, and nothing is dead.")).to_be_visible()
        await expect(visit(".empty")).to_contain_text("No deliveries match")
        await check_looks(visit, keep="events-empty")
        fill_every_state(gateway)
        await expect(visit("table.handlers tbody tr td")).to_have_text(
            ["1", "1", "1", "1", re.compile("ago|now"), "Pause"]
        )
        await expect(visit(".paged tbody .tag")).to_have_text(
            ["Done", "Dead", "Retrying", "Running", "Waiting"]
        )
        await expect(visit(".groups .error")).to_contain_text("ValueError: <img src=x onerror=alert(…)")
        await check_looks(visit, keep="events-busy")
        await visit.page.get_by_role("link", name="Retrying: 1 delivery · h").click()
        await expect(visit("#deliveries")).to_be_focused()
        await expect(visit(".paged tbody .tag")).to_have_text(["Retrying"])
        assert visit.page.url.endswith("/-/events?state=delayed&handler=h")
        await visit.page.reload()
        await expect(visit(".paged tbody .tag")).to_have_text(["Retrying"])
        await visit.page.go_back()
        await expect(visit(".paged tbody .tag")).to_have_count(5)
        assert visit.said == []


async def test_a_handler_is_paused_and_resumed_with_the_keyboard_alone(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway()
    fill_every_state(gateway)
    async with visiting() as visit:
        await open_events(visit, gateway)
        pause = visit.page.get_by_role("button", name="Pause h")
        for _ in range(40):
            await visit.page.keyboard.press("Tab")
            if await pause.evaluate("button => button === document.activeElement"):
                break
        await visit.page.keyboard.press("Enter")
        resume = visit.page.get_by_role("button", name="Resume h")
        await expect(resume).to_be_focused()
        await expect(visit("table.handlers .tag")).to_be_visible()
        assert await gateway.resources.journal.ledger.paused() == {"h"}
        await visit.page.keyboard.press("Enter")
        await expect(pause).to_be_focused()
        assert await gateway.resources.journal.ledger.paused() == frozenset()


async def test_ten_thousand_dead_deliveries_are_groups_that_are_retried_and_dropped_by_button(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway()
    fill_dead(gateway, "thumbnail", IMAGE, 6000)
    fill_dead(gateway, "thumbnail", "TimeoutError: not finished within {0} s", 2500, at=6000)
    fill_dead(gateway, "notify", AWAY, 1500)
    async with visiting() as visit:
        await open_events(visit, gateway, "?state=running")
        groups = visit(".groups > li")
        await expect(groups.locator("strong")).to_have_text(["6,000", "2,500", "1,500"])
        await expect(groups.locator(".error")).to_have_text([
            "UnidentifiedImageError: cannot identify image file …",
            "TimeoutError: not finished within … s",
            AWAY,
        ])  # fmt: skip
        await check_looks(visit, keep="events-full")
        await visit.take("console-events", clip={"x": 0, "y": 0, "width": 1280, "height": 860})
        await groups.nth(1).get_by_role("button", name="Retry").click()
        await expect(visit(".toast")).to_contain_text("Retried 2,500 deliveries")
        await expect(visit("#dead-deliveries")).to_be_focused()
        assert dead_by_handler(gateway) == {"thumbnail": 6000, "notify": 1500}
        await expect(groups).to_have_count(2)
        await groups.nth(1).get_by_role("button", name="Drop").click()
        await expect(visit("dialog")).to_contain_text("Drop 1,500 deliveries?")
        await expect(visit("dialog")).to_contain_text("notify")
        await check_looks(visit, keep="events-question")
        await visit.page.keyboard.press("Escape")
        assert dead_by_handler(gateway)["notify"] == 1500
        await groups.nth(1).get_by_role("button", name="Drop").click()
        await visit.page.get_by_role("button", name="Drop 1,500 deliveries").click()
        await expect(visit(".toast", has_text="Dropped 1,500 deliveries")).to_be_visible()
        assert dead_by_handler(gateway) == {"thumbnail": 6000}
        await expect(groups).to_have_count(1)
        assert visit.said == []


async def test_the_deliveries_of_a_group_are_listed_and_some_of_them_or_all_are_changed(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway()
    fill_dead(gateway, "thumbnail", IMAGE, 120)
    fill_dead(gateway, "thumbnail", AWAY, 3, at=120)
    async with visiting() as visit:
        await open_events(visit, gateway)
        await visit(".groups > li").first.get_by_role("link", name="all of them").click()
        await expect(visit(".paged tbody tr")).to_have_count(50)
        await expect(visit(".chip")).to_contain_text("cannot identify image file …")
        await visit.page.get_by_role("button", name="Show more").click()
        await expect(visit(".paged tbody tr")).to_have_count(100)
        boxes = visit(".paged tbody input")
        await boxes.nth(0).check()
        await boxes.nth(1).check()
        await expect(visit(".selection")).to_contain_text("2 selected")
        await visit.page.get_by_role("button", name="Drop 2").click()
        await visit.page.get_by_role("button", name="Drop 2 deliveries").click()
        await expect(visit(".toast")).to_contain_text("Dropped 2 deliveries")
        assert dead_by_handler(gateway) == {"thumbnail": 121}
        await visit.page.get_by_role("button", name="Drop all that match").click()
        await expect(visit("dialog")).to_contain_text("Drop 118 deliveries?")
        await visit.page.get_by_role("button", name="Drop 118 deliveries").click()
        await expect(visit(".toast", has_text="Dropped 118 deliveries")).to_be_visible()
        assert dead_by_handler(gateway) == {"thumbnail": 3}
        await visit.page.get_by_role("button", name="Any error").click()
        await expect(visit(".paged tbody tr")).to_have_count(3)
        await boxes.nth(1).check()
        await expect(visit(".selection")).to_contain_text("1 selected")
        await check_looks(visit, keep="events-selected")


async def test_a_replay_asks_first_and_names_the_handler(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    fill_every_state(gateway)
    async with visiting() as visit:
        await open_events(visit, gateway, "?state=done&since=24h")
        await visit.page.get_by_role("button", name="Replay all that match").click()
        await expect(visit("dialog")).to_contain_text("Replay 1 delivery?")
        await expect(visit("dialog")).to_contain_text("Handler: h")
        await expect(visit("dialog")).to_contain_text("once more")
        await visit.page.get_by_role("button", name="Cancel").click()
        assert delivery_states(gateway.resources.journal)["e-done", "h"] == "done"
        await visit.page.get_by_role("button", name="Replay all that match").click()
        await visit.page.get_by_role("button", name="Replay 1 delivery").click()
        await expect(visit(".toast")).to_contain_text("Replayed 1 delivery")
        assert delivery_states(gateway.resources.journal)["e-done", "h"] == "ready"


async def test_a_long_action_can_be_stopped_and_what_is_done_stays(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await start_gateway()
    fill_dead(gateway, "notify", AWAY, 2000)
    async with visiting() as visit:
        await open_events(visit, gateway)

        async def held(route: object) -> None:
            await visit.page.get_by_role("button", name="Stop").click()
            await route.continue_()  # type: ignore[attr-defined]

        await visit.page.route("**/-/events/retry", held)
        await visit(".groups > li").get_by_role("button", name="Retry").click()
        await expect(visit(".toast")).to_contain_text("Retried 250 deliveries, then stopped")
        assert dead_by_handler(gateway) == {"notify": 1750}


async def test_the_page_keeps_what_it_shows_while_the_gateway_or_its_journal_is_away(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await start_gateway()
    fill_every_state(gateway)
    async with visiting() as visit:
        await open_events(visit, gateway)
        await visit.page.context.set_offline(True)
        await expect(visit("section .failure").first).to_contain_text("Not up to date")
        await expect(visit("#banner")).to_contain_text("The gateway does not answer")
        await expect(visit("table.handlers tbody tr")).to_have_count(1)
        await check_looks(visit, keep="events-away")
        await visit.page.context.set_offline(False)
        await expect(visit("section .failure").first).to_be_empty()

        async def unavailable(self: JournalLedger) -> None:
            raise EventEngineUnavailable("the journal: disk I/O error")

        with monkeypatch.context() as broken:
            broken.setattr(JournalLedger, "depth", unavailable)
            await expect(visit("section .failure").first).to_contain_text("disk I/O error")
        await expect(visit("section .failure").first).to_be_empty()
