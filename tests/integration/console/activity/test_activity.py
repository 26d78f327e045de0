"""The page of what is uploaded: now, lately, and what waits for a decision."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.async_api import expect

from gateway.domain.model import RECEIVED
from tests.conftest import StartGateway, StartProcess
from tests.integration.console.activity.visits import MARKUP, fill_journal, slow_upload, visiting
from tests.support.browser import check_looks
from tests.support.harness import put
from tests.support.ports import free_port
from tests.support.recorders import write_handler

pytestmark = pytest.mark.slow

THREE_NEWS = """new Promise((resolve) => {
    let count = 0;
    const source = new EventSource("/-/live");
    source.onmessage = () => {
        count += 1;
        if (count === 3) resolve(source.close());
    };
})"""
NOW = re.compile(r"Received: now .*kB/s, at most .*kB/s")


async def test_an_upload_is_followed_from_its_first_bytes_to_its_end(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway()
    async with visiting() as visit:
        await visit.page.goto(f"{gateway.url}/-/uploads")
        await expect(visit(".active-empty")).to_have_text("No upload is on its way.")
        await expect(visit(".empty")).to_contain_text("curl -T FILE")
        await check_looks(visit, keep="activity-empty")
        async with slow_upload(gateway, f"/upload/{MARKUP}", 12_000_000):
            row = visit(".active-row")
            await expect(row).to_contain_text("of 12 MB")
            await expect(row.locator("a")).to_have_text(
                "/upload/<img src=x onerror=alert(1)>[U+202E]fdp.txt"
            )
            await expect(row.locator(".active-figures")).to_contain_text("kB/s")
            await expect(row.locator(".active-figures")).to_contain_text("left")
            await expect(visit(".rates .figure").first).to_contain_text("kB/s")
            await expect(visit(".rates .sparkline").first).to_have_attribute("aria-label", NOW)
            await check_looks(visit, keep="activity-busy")
            await visit.page.get_by_role("button", name="Pause updates").click()
            await expect(visit(".live-word")).to_contain_text("Paused")
            paused = await row.locator(".active-figures").text_content()
            await put(gateway, "/upload/second.txt")
            await visit.page.evaluate(THREE_NEWS)
            assert await row.locator(".active-figures").text_content() == paused
            await visit.page.keyboard.press("Enter")
            await expect(visit(".live-word")).to_have_text("Live")
            await row.locator("a").focus()  # a row with the focus stays
        await expect(row.locator(".tag")).to_have_text("Failed")
        await expect(row).to_contain_text("the connection was lost")
        await row.locator("a").blur()
        await expect(row).to_have_count(0)
        await expect(visit("table.rows").last).to_contain_text("second.txt")
        await visit("#filter-state").select_option("failed")
        await expect(visit("table.rows").last.locator("tbody tr")).to_have_count(1)
        assert "state=failed" in visit.page.url
        assert visit.said == []


async def test_held_uploads_are_decided_by_the_keyboard_alone(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    body, more = 'raise RuntimeError("no opinion")', "hold: true\nretry: {attempts: 1}\n"
    plugins = write_handler(tmp_path / "plugins", body, name="review", event=RECEIVED, more=more)
    gateway = await start_gateway(plugins=plugins)
    for name in ("a.pdf", "b.pdf"):
        assert (await put(gateway, f"/upload/{name}")).status == 202
    async with visiting() as visit:
        page = visit.page
        await page.goto(f"{gateway.url}/-/uploads")
        held = visit("section", has=page.get_by_role("heading", name="Held", exact=True))
        await expect(held.locator("tbody tr")).to_have_count(2)
        await check_looks(visit, keep="activity-held")
        await page.get_by_role("button", name="Reject /upload/a.pdf").focus()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("dialog")).to_contain_text("This cannot be undone")
        await check_looks(visit, keep="activity-reject")
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog")).to_have_count(0)
        await expect(page.get_by_role("button", name="Reject /upload/a.pdf")).to_be_focused()
        await page.keyboard.press("Enter")
        await page.get_by_label("Reason").fill("<i>not ours</i>")
        await page.keyboard.press("Enter")
        await expect(held.locator("tbody tr")).to_have_count(1)
        await page.get_by_role("button", name="Release /upload/b.pdf").press("Enter")
        await expect(held).to_be_hidden()
        latest = visit("table.rows").last
        await expect(latest.locator("tr", has_text="b.pdf")).to_contain_text("Stored")
        await expect(latest.locator("tr", has_text="a.pdf")).to_contain_text("Rejected")
        assert visit.said == []


async def test_ten_thousand_uploads_are_shown_page_by_page_and_selected(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway()
    fill_journal(gateway.resources.journal, 10_000)
    async with visiting() as visit:
        page = visit.page
        await page.goto(f"{gateway.url}/-/uploads?principal=alice")
        rows = visit("table.rows").last.locator("tbody tr")
        await expect(rows).to_have_count(50)
        await expect(rows.first).to_contain_text("/upload/many/9998.txt")
        await check_looks(visit, keep="activity-full")
        await page.get_by_role("button", name="Show more").click()
        await expect(rows).to_have_count(100)
        await expect(rows.last).to_contain_text("/upload/many/9800.txt")
        await put(gateway, "/upload/new.txt")
        newer = page.get_by_role("button", name="Show 1 newer upload")
        await visit("#filter-principal").fill("")
        await page.keyboard.press("Enter")
        await expect(rows.first).to_contain_text("/upload/new.txt")
        await rows.first.hover()
        await put(gateway, "/upload/newer.txt")
        await expect(newer).to_be_visible()
        await expect(rows.first).to_contain_text("/upload/new.txt")
        await newer.click()
        await expect(rows.first).to_contain_text("/upload/newer.txt")
        await visit("#filter-state").select_option("removed")
        await expect(visit(".empty")).to_contain_text("No uploads here")
        assert visit.said == []


async def test_a_gateway_that_is_killed_is_told_and_the_page_goes_on_when_it_is_back(
    gateway_process: StartProcess,
) -> None:
    flags = ("--port", str(free_port()), "--processes", "2")
    gateway = gateway_process(*flags)
    await put(gateway, "/upload/before.txt")
    async with visiting() as visit:
        await visit.page.goto(f"{gateway.url}/-/uploads")
        await expect(visit(".live-word")).to_have_text("Live")
        await expect(visit("table.rows").last).to_contain_text("before.txt")
        gateway.kill()
        await expect(visit("#banner")).to_contain_text("does not answer")
        await expect(visit(".live-word")).to_contain_text("No answer, as it was")
        await expect(visit("table.rows").last).to_contain_text("before.txt")
        await check_looks(visit, keep="activity-away")
        again = gateway_process(*flags)
        await expect(visit(".live-word")).to_have_text("Live")
        await expect(visit("#banner")).to_be_empty()
        await put(again, "/upload/after.txt")
        await expect(visit("table.rows").last).to_contain_text("after.txt")
