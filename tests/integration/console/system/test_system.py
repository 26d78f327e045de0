"""The page of the gateway itself: what it is, how it does, what needs attention."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from playwright.async_api import expect

from gateway.auth.tokens import token_digest
from tests.conftest import StartGateway, StartProcess
from tests.integration.console.activity.visits import visiting
from tests.support.browser import check_looks
from tests.support.harness import put, wait_until, write_plugin
from tests.support.ports import free_port
from tests.support.recorders import FAILING

pytestmark = pytest.mark.slow

BEARER = "Authorization: Bearer secret-alice"


async def test_what_needs_attention_what_is_checked_and_a_text_for_support(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    plugins = [str(write_plugin(tmp_path / "plugins", FAILING))]
    tokens = [f"alice:{token_digest('secret-alice')}"]
    gateway = await start_gateway(auth="token", tokens=tokens, plugins=plugins)
    headers = {"Authorization": "Bearer secret-alice"}
    async with visiting(
        extra_http_headers=headers, permissions=["clipboard-read", "clipboard-write"]
    ) as visit:
        page = visit.page
        await page.goto(f"{gateway.url}/-/status")
        await expect(visit(".need")).to_have_text("Nothing needs attention.")
        await expect(visit(".findings")).not_to_have_count(0)
        await expect(visit("section[aria-label=Checks] .toolbar")).to_contain_text("checked")
        await check_looks(visit, keep="system-calm")
        await put(gateway, "/upload/a.txt", b"a", BEARER)
        await wait_until(lambda: gateway.metrics.runs.labels("failing", "dead")._value.get() == 1)
        (tmp_path / "plugins" / "<b>bad.yaml").write_text("name: x\n")
        await gateway.reload()
        await page.reload()
        needs = visit(".need.bad")
        await expect(needs.filter(has_text="1 delivery to failing is dead.")).to_be_visible()
        await expect(needs.filter(has_text="The last reload failed")).to_contain_text("<b>bad.yaml")
        waiting = visit(".card", has=page.get_by_role("heading", name="Deliveries that wait"))
        await expect(waiting.locator(".figure")).to_have_text("0")
        await expect(waiting).to_contain_text("1 dead")
        await expect(visit("table", has_text="Half within").locator("tbody tr").first).to_contain_text(
            "ms"
        )
        await visit("summary", has_text="checks are good").click()
        await check_looks(visit, keep="system-needs")
        await page.get_by_role("button", name="Check again").press("Enter")
        await expect(page.get_by_role("button", name="Check again")).to_be_enabled()
        await page.get_by_role("button", name="Copy for support").press("Enter")
        text = await page.evaluate("navigator.clipboard.readText()")
        assert "doctor at" in text
        assert "the running gateway" in text or "a server answers 200" in text
        for secret in ("secret-alice", token_digest("secret-alice")):
            assert secret not in text
        await page.get_by_role("button", name="Pause updates").press("Enter")
        await expect(visit(".live-word")).to_contain_text("Paused")
        assert visit.said == []


async def test_a_process_that_hangs_and_a_gateway_that_is_away_are_told(
    gateway_process: StartProcess,
) -> None:
    flags = ("--port", str(free_port()), "--processes", "2")
    gateway = gateway_process(*flags)
    async with visiting() as visit:
        await visit.page.goto(f"{gateway.url}/-/status")
        processes = visit(".card", has=visit.page.get_by_role("heading", name="Processes"))
        await expect(processes).to_contain_text("all answer")
        supervisor = gateway.process.pid
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
        silent = processes.locator(".bad", has_text="no answer of")
        for child in map(int, children * 2):
            os.kill(child, signal.SIGSTOP)
            try:
                no_news = visit(".live-word", has_text="No answer")
                await expect(silent.or_(no_news).first).to_be_visible()
                if await silent.count():
                    await expect(visit(".need.bad").first).to_contain_text("does not answer")
                    await check_looks(visit, keep="system-silent")
                    break
            finally:
                os.kill(child, signal.SIGCONT)
            await expect(visit(".live-word")).to_have_text("Live")  # that one serves the page
        else:
            pytest.fail("no process was told as silent")
        await expect(processes).to_contain_text("all answer")
        gateway.kill()
        await expect(visit("#banner")).to_contain_text("does not answer")
        await expect(visit(".facts")).to_contain_text("Version")
        await check_looks(visit, keep="system-away")
        gateway_process(*flags)
        await expect(visit("#banner")).to_be_empty()
        await expect(visit(".live-word")).to_have_text("Live")
