"""The page of plugins: what is in force, upstreams and routes, and a reload by button."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.conftest import StartGateway
from tests.integration.console.events.filled import show_instead, visiting
from tests.support.browser import check_looks
from tests.support.harness import get, write_plugin
from tests.support.ports import free_port

pytestmark = pytest.mark.slow

HANDLERS = """\
name: guard
event: APIGW.OnFileUploading
authorization: keep
script: |
  async def guard(event, handle):
      pass
---
name: thumbnail
event: APIGW.OnFileUploaded
retry: {attempts: 5}
script: |
  async def thumbnail(event, handle):
      pass
---
name: chat
webhook:
  url: https://hooks.example.com/services/secret-path
  events: [APIGW.OnFileUploaded]
---
name: sweep
event: Schedule
every: 15m
script: |
  async def sweep(event, handle):
      pass
---
name: smtp
config: {password: secret-value}
"""

ROUTE = """\
name: pets
upstreams: [{host: "127.0.0.1:DEAD", weight: 1}, {host: "127.0.0.1:8999", weight: 3}]
proxy: {path: "/pets/{id}", authorization: {auth: none}}
rate_limit: {count: 100, seconds: 60}
spec: [{method: GET, usage: Reads a pet}]
"""

ALONE = """\
name: orders
upstreams: ["127.0.0.1:DEAD"]
proxy: {path: /orders, authorization: {auth: token}}
spec: [{method: POST, usage: Places an order}]
"""


async def test_without_plugins_the_page_says_how_to_begin(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    (tmp_path / "p").mkdir()
    gateway = await start_gateway(plugins=[str(tmp_path / "p")])
    async with visiting() as visit:
        await visit.page.goto(f"{gateway.url}/-/plugins")
        await expect(visit(".empty").first).to_contain_text("No plugin is loaded")
        await expect(visit("#routes")).to_be_hidden()
        await check_looks(visit, keep="plugins-empty")
        assert visit.said == []


async def test_handlers_upstreams_and_routes_are_shown_without_any_secret(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "plugins", HANDLERS, "handlers.yaml")
    write_plugin(folder, ROUTE.replace("DEAD", str(free_port())), "pets.yaml")
    write_plugin(folder, ALONE.replace("DEAD", str(free_port())), "orders.yaml")
    gateway = await start_gateway(plugins=[str(folder)])
    await gateway.resources.journal.ledger.pause("thumbnail")
    async with visiting() as visit:
        await visit.page.goto(f"{gateway.url}/-/plugins")
        headings = visit("main h3")
        names = ["OnFileUploading", "OnFileUploaded", "Schedule", "Upstreams", "Configs", "Routes"]
        await expect(headings).to_have_text(names)
        uploaded = visit("section", has_text="OnFileUploaded").locator(".handlers > li")
        await expect(uploaded).to_have_text([
            re.compile("chathandlers.yaml:15.*Webhook to https://hooks.example.com"),
            re.compile("thumbnailhandlers.yaml:8.*Paused.*5 attempts"),
        ])  # fmt: skip
        await expect(visit("section", has_text="Schedule").last).to_contain_text("next run in")
        await expect(visit(".paged tbody tr")).to_have_count(2)
        await expect(visit(".paged")).to_contain_text("100 in 1 min for each address")
        assert "secret" not in await visit.page.content()
        await check_looks(visit, keep="plugins-full")
        await show_instead(visit, {str(tmp_path): "/srv"})
        await visit.take("console-plugins")
        assert visit.said == []


async def test_an_upstream_that_is_down_is_shown_first_and_since_when(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    text = ROUTE.replace("DEAD", str(dead := free_port())).replace("127.0.0.1:8999", "127.0.0.1:1")
    text += "passive: {aside: 600}\n"
    gateway = await start_gateway(plugins=[str(write_plugin(tmp_path / "plugins", text))])
    await get(gateway, "/pets/1")
    async with visiting() as visit:
        await visit.page.goto(f"{gateway.url}/-/plugins")
        await expect(visit(".upstreams > li", has_text=f"127.0.0.1:{dead}")).to_contain_text(
            "down since"
        )
        await expect(visit(".upstreams .tag").first).to_have_text("Down")
        await expect(visit(".paged tbody tr", has_text="/pets/")).to_contain_text("Down")
        await expect(visit(".paged tbody tr")).to_contain_text("weight 3")
        await check_looks(visit, keep="plugins-down")


async def test_a_reload_with_a_fault_shows_its_place_and_what_was_loaded_goes_on(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "plugins", HANDLERS, "handlers.yaml")
    gateway = await start_gateway(plugins=[str(folder)])
    async with visiting() as visit:
        await visit.page.goto(f"{gateway.url}/-/plugins")
        await expect(visit(".handlers > li")).to_have_count(4)
        write_plugin(folder, "name: <b>\nevent: APIGW.OnFileUploaded\nscript: return (\n", "broken.yaml")
        button = visit.page.get_by_role("button", name="Reload")
        await button.focus()
        await visit.page.keyboard.press("Enter")
        await expect(visit("#reload-failed")).to_be_focused()
        await expect(visit(".faults")).to_contain_text("broken.yaml:1: `name`")
        await expect(visit(".failure").last).to_contain_text("nothing has changed")
        await expect(visit(".handlers > li")).to_have_count(4)
        assert gateway.resources.plugins.current.number == 1
        await check_looks(visit, keep="plugins-failed")
        (folder / "broken.yaml").unlink()
        write_plugin(folder, ALONE.replace("DEAD", "9"), "orders.yaml")
        await button.click()
        await expect(visit("#reload-failed")).to_have_count(0)
        await expect(visit("#reload-outcome")).to_contain_text("Last reload")
        await expect(button).to_be_focused()
        await expect(visit(".paged tbody tr")).to_contain_text("/orders")
        assert gateway.resources.plugins.current.number == 2
        assert visit.said == []


async def test_a_thousand_routes_of_a_document_are_searched_and_come_page_by_page(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    paths = {
        f"/repos/{kind}/{number}": {"get": {"summary": f"Reads {kind} {number}", "responses": {}}}
        for kind in ("issues", "pulls", "tags")
        for number in range(400)
    }
    document = {"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": paths}
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "api.json").write_text(json.dumps(document))
    write_plugin(folder, "openapi: {file: api.json, upstreams: ['127.0.0.1:9']}\n", "api.yaml")
    gateway = await start_gateway(plugins=[str(folder)])
    async with visiting() as visit:
        await visit.page.goto(f"{gateway.url}/-/plugins")
        await expect(visit("main")).to_contain_text("1,200 routes")
        await expect(visit(".paged tbody tr")).to_have_count(50)
        await expect(visit(".upstreams > li")).to_have_count(1)
        await visit("input[type=search]").fill("pulls 39")
        await expect(visit("main")).to_contain_text("14 routes match")
        await expect(visit(".paged tbody tr")).to_have_count(14)
        link = visit(".paged tbody a", has_text="/repos/pulls/399")
        assert (await link.get_attribute("href") or "").endswith("/-/docs#get/repos/pulls/399")
        await visit("input[type=search]").fill("nothing like it")
        await expect(visit(".paged .empty")).to_be_visible()
        assert visit.said == []
