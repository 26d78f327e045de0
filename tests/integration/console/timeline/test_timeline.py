"""The page of one upload: what became of it, step by step."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from playwright.async_api import expect

from gateway.auth.tokens import token_digest
from gateway.domain.model import RECEIVED, UPLOADED
from tests.conftest import StartGateway, StartProcess
from tests.integration.console.activity.visits import MARKUP, slow_upload, visiting
from tests.support.browser import check_looks
from tests.support.cli import run_verb
from tests.support.harness import get, put, wait_until
from tests.support.ports import free_port
from tests.support.recorders import write_handler

pytestmark = pytest.mark.slow

COLLECT_WORDS = """
    window.words = [];
    const word = document.querySelector(".live-word");
    new MutationObserver(() => words.push(word.textContent)).observe(word, {
        childList: true, characterData: true, subtree: true,
    });
"""
"""Keeps each text that tells whether the page is live, from now on."""


def breaking_handler(folder: Path) -> tuple[list[str], Path]:
    """Write a handler that fails until a file is there; return that file too."""
    go = folder / "go"
    body = f"""
        import os
        if not os.path.exists({str(go)!r}):
            raise ValueError("<b>bold</b>\\nsecond line")
        handle.result({{"words": "<i>3</i>"}})
    """
    more = "retry: {attempts: 2, backoff: 0.05}\n"
    return write_handler(folder / "plugins", body, name="index", event=UPLOADED, more=more), go


async def test_each_step_and_attempt_is_told_and_a_dead_delivery_is_retried(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    plugins, go = breaking_handler(tmp_path)
    gateway = await start_gateway(plugins=plugins)
    headers = ("X-Amz-Meta-Note: <script>alert(1)</script>", "Content-Type: text/plain")
    upload_id = (await put(gateway, f"/upload/{MARKUP}", b"one two", *headers)).json["upload_id"]
    async with visiting() as visit:
        page = visit.page
        await page.goto(f"{gateway.url}/-/uploads/{upload_id}")
        await expect(visit("h2")).to_have_text("<img src=x onerror=alert(1)>[U+202E]fdp.txt")
        await expect(visit(".step.good h3")).to_have_text("Stored")
        dead = visit(".step.bad")
        await expect(dead).to_contain_text("dead: it is tried no more")
        await expect(dead.locator(".runs > li")).to_have_count(2)
        await expect(dead.locator(".runs pre").last).to_have_text("ValueError: <b>bold</b>")
        await dead.get_by_text("Whole errors").click()
        await expect(dead.locator("details pre").first).to_contain_text("Traceback")
        await expect(dead.locator("details pre").first).to_contain_text("second line")
        await check_looks(visit, keep="timeline-dead")
        (handler,) = (await get(gateway, f"/-/uploads/{upload_id}")).json["handlers"]
        link = dead.get_by_role("link", name="Open the event")
        await expect(link).to_have_attribute("href", f"{gateway.url}/-/events/{handler['event_id']}")
        go.touch()
        await dead.get_by_role("button", name="Retry").press("Enter")
        await expect(visit("#toasts")).to_contain_text("1 delivery is tried again")
        await expect(dead).to_have_count(0)
        await expect(visit(".step.good").last).to_contain_text('{"words":"<i>3</i>"}')
        await expect(visit(".live-place")).to_have_text("Nothing more happens to it by itself.")
        assert visit.said == []


async def test_an_upload_is_followed_while_it_comes_and_one_that_nobody_knows_is_told(
    gateway_process: StartProcess,
) -> None:
    flags = ("--port", str(free_port()))
    gateway = gateway_process(*flags)
    async with visiting() as visit, slow_upload(gateway, "/upload/slow.bin", 12_000_000):
        rows: list[dict[str, str]] = []

        async def is_on_its_way() -> bool:
            rows[:] = (await get(gateway, "/-/uploads")).json["uploads"]
            return bool(rows)

        await wait_until(is_on_its_way)
        await visit.page.goto(f"{gateway.url}/-/uploads/{rows[0]['upload_id']}")
        await expect(visit(".step.now")).to_contain_text("It is being received")
        await expect(visit(".step.now")).to_contain_text("of 12 MB")
        await check_looks(visit, keep="timeline-receiving")
        gateway.kill()
        await expect(visit("#banner")).to_contain_text("does not answer")
        await expect(visit(".step.now")).to_contain_text("of 12 MB")
        again = gateway_process(*flags)
        await expect(visit("#banner")).to_be_empty()
        await visit.page.reload()
        await expect(visit("h2")).to_have_text("No upload of this id")
        await check_looks(visit, keep="timeline-unknown")
        upload_id = (await put(again, "/upload/whole.bin", b"whole")).json["upload_id"]
        await visit.page.goto(f"{again.url}/-/uploads/{upload_id}")
        await expect(visit(".timeline-name .tag")).to_have_text("Stored")


async def test_a_held_upload_is_released_where_its_story_is_told(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    body, more = 'raise RuntimeError("no opinion")', "hold: true\nretry: {attempts: 1}\n"
    plugins = write_handler(tmp_path / "plugins", body, name="review", event=RECEIVED, more=more)
    gateway = await start_gateway(plugins=plugins)
    upload_id = (await put(gateway, "/upload/a.pdf")).json["upload_id"]
    async with visiting() as visit:
        await visit.page.goto(f"{gateway.url}/-/uploads/{upload_id}")
        await expect(visit(".step.held")).to_contain_text("nobody can read it")
        await expect(visit(".step.bad")).to_contain_text("no opinion")
        await check_looks(visit, keep="timeline-held")
        await expect(visit(".live-word")).to_have_text("Live")
        await visit.page.evaluate(COLLECT_WORDS)
        await visit.page.wait_for_timeout(4500)  # nothing changes, and that is no silence
        assert await visit.page.evaluate("words") == []
        await visit.page.get_by_role("button", name="Release").click()
        await expect(visit(".step.good", has_text="Stored")).to_be_visible()
        await expect(visit.page.get_by_role("button", name="Release")).to_have_count(0)
        assert visit.said == []


async def test_an_uploader_sees_its_own_uploads_and_no_others(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    alice = f"alice:{token_digest('secret-alice')}"
    secret = await asyncio.to_thread(make_key, tmp_path / "data")
    gateway = await start_gateway(auth="token", tokens=[alice])
    theirs = (await put(gateway, "/upload/a.txt", b"a", "Authorization: Bearer secret-alice")).json
    own = (await put(gateway, "/upload/own.txt", b"b", f"Authorization: Bearer {secret}")).json
    async with visiting(extra_http_headers={"Authorization": f"Bearer {secret}"}) as visit:
        await visit.page.goto(f"{gateway.url}/-/uploads")
        await expect(visit("table.rows tbody tr")).to_have_count(1)
        await expect(visit("table.rows").last).to_contain_text("own.txt")
        await expect(visit(".rates")).to_have_count(0)
        await expect(visit(".live-word")).to_have_text("Live")
        await check_looks(visit, keep="activity-uploader")
        async with slow_upload(
            gateway, "/upload/slow.bin", 9_000_000, "Authorization: Bearer secret-alice"
        ):
            await put(gateway, "/upload/more.txt", b"b", f"Authorization: Bearer {secret}")
            await expect(visit("table.rows tbody tr")).to_have_count(2)
            await expect(visit(".active-row")).to_have_count(0)
        await visit.page.goto(f"{gateway.url}/-/uploads/{own['upload_id']}")
        await expect(visit(".timeline-name .tag")).to_have_text("Stored")
        await visit.page.goto(f"{gateway.url}/-/uploads/{theirs['upload_id']}")
        await expect(visit("h2")).to_have_text("No upload of this id")


def make_key(directory: Path) -> str:
    """Make an API key; return its secret."""
    directory.mkdir(exist_ok=True)
    code, printed, _ = run_verb(directory, "keys", "create", "reader", "--json")
    assert code == 0
    secret: str = re.findall(r"ugk_[A-Za-z0-9_-]{43}", printed)[0]
    return secret
