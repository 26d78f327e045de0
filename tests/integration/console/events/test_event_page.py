"""The page of one event: its runs with their errors as text, and its actions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.conftest import StartGateway
from tests.integration.console.events.filled import fill_dead, fill_every_state, show_instead, visiting
from tests.support.browser import check_looks
from tests.support.harness import put, wait_settled, write_plugin
from tests.support.records import delivery_states

pytestmark = pytest.mark.slow

FAILING = """
name: picture
event: APIGW.OnFileUploaded
retry: {attempts: 2, backoff: 0.1}
script: |
  async def picture(event, handle):
      handle.result({"pages": 3})
      raise ValueError(f"<b>{event['path']}</b> is no picture")
"""


async def test_an_event_shows_each_run_with_its_traceback_and_leads_to_its_upload(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "plugins", FAILING)
    gateway = await start_gateway(plugins=[str(folder)])
    upload = await put(gateway, "/upload/a%E2%80%AEtxt.png", b"none")
    upload_id = upload.json["upload_id"]
    url = gateway.url
    await wait_settled(gateway)
    async with visiting() as visit:
        await visit.page.goto(f"{url}/-/events?state=dead")
        await visit(".paged tbody a").first.click()
        await expect(visit("h2")).to_have_text("/upload/a\ufffdtxt.png")
        await expect(visit(".runs > li")).to_have_count(2)
        await expect(visit(".runs .tag")).to_have_text(["Failed for good", "Failed"])
        await expect(visit(".traceback")).to_contain_text(re.compile(r'\.yaml", line \d+, in picture'))
        await expect(visit(".traceback")).to_contain_text("<b>/upload/")
        await expect(visit(f"a[href$='/-/uploads/{upload_id}']")).to_be_visible()
        await visit.page.get_by_text("Body of the event").click()
        await expect(visit("details > pre").last).to_contain_text('"bytes": 4')
        await check_looks(visit, keep="event-dead")
        await show_instead(visit, {str(tmp_path): "/srv", "\ufffdtxt": "", "<b>": "", "</b>": ""})
        await visit.take("console-event")
        assert visit.said == []


async def test_a_dead_event_is_retried_and_a_finished_one_replayed_on_its_page(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway()
    fill_every_state(gateway)
    journal, url = gateway.resources.journal, f"{gateway.url}/-/events"
    async with visiting() as visit:
        await visit.page.goto(f"{url}/e-delayed")
        await expect(visit(".delivery")).to_contain_text("next attempt in 14 minutes")
        await visit.page.goto(f"{url}/e-dead")
        await visit.page.get_by_role("button", name="Retry").click()
        await expect(visit(".delivery .tag").first).to_have_text("Waiting")
        assert delivery_states(journal)["e-dead", "h"] == "ready"
        await visit.page.goto(f"{url}/e-done")
        await visit.page.get_by_role("button", name="Replay").click()
        await expect(visit("dialog")).to_contain_text("Handler: h")
        await visit.page.get_by_role("button", name="Replay 1 delivery").click()
        await expect(visit(".delivery .tag").first).to_have_text("Waiting")
        assert delivery_states(journal)["e-done", "h"] == "ready"


async def test_an_event_that_is_dropped_or_unknown_is_told_as_such(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    fill_dead(gateway, "notify", "away", 1)
    async with visiting() as visit:
        await visit.page.goto(f"{gateway.url}/-/events/e-notify-0")
        await visit.page.get_by_role("button", name="Drop").click()
        await visit.page.get_by_role("button", name="Drop 1 delivery").click()
        await expect(visit(".empty")).to_contain_text("There is no such event")
        await check_looks(visit, keep="event-gone")
