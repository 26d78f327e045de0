"""What becomes of stored files: handlers' progress and results, decisions, and names as text."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.conftest import StartGateway
from tests.integration.console.upload.visits import visiting_uploads
from tests.support.harness import write_plugin

pytestmark = pytest.mark.slow

COUNTING = """\
name: counting
event: APIGW.OnFileUploaded
script: |
  import asyncio, pathlib

  async def counting(event, handle):
      handle.progress(4, 10)
      while not pathlib.Path({gate!r}).exists():
          await asyncio.sleep(0.01)
      markup = "<img src=x onerror=alert(1)>"
      handle.result({{"words": 3, "note": markup, "page": "https://evil.example", "more": {{"a": [1]}}}})
"""
FAILING = """\
name: failing
event: APIGW.OnFileUploaded
retry: {attempts: 1}
script: |
  async def failing(event, handle):
      raise RuntimeError("no <b>thumbnail</b> of this")
"""
DECIDING = """\
name: deciding
event: APIGW.OnFileReceived
hold: true
script: |
  import asyncio, pathlib

  async def deciding(event, handle):
      while not pathlib.Path({gate!r}).exists():
          await asyncio.sleep(0.01)
      if "bad" in event["path"]:
          await handle.terminate(422, "it has a virus")
"""


async def test_progress_results_and_errors_of_handlers_appear_as_they_come(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    write_plugin(tmp_path / "plugins", COUNTING.format(gate=str(gate)), "counting.yaml")
    folder = str(write_plugin(tmp_path / "plugins", FAILING, "failing.yaml"))
    gateway = await start_gateway(plugins=[folder], downloads="on")
    async with visiting_uploads() as visit:
        await visit.open(gateway.url)
        await visit.make(tmp_path / "mine", {"three.txt": b"one two three"})
        row = visit.row("three.txt")
        await expect(row.get_by_role("progressbar", name="Progress of counting")).to_have_js_property(
            "value", 40
        )
        await expect(row.locator(".handler[data-state=dead]")).to_contain_text(
            "RuntimeError: no <b>thumbnail</b> of this."
        )
        await expect(row.locator(".handler[data-state=dead]")).to_contain_text(
            "An operator can run it again."
        )
        gate.touch()
        await expect(row.locator(".handler", has_text="counting")).to_contain_text("done")
        results = row.locator(".results")
        await expect(results).to_contain_text("words")
        await expect(results).to_contain_text("<img src=x onerror=alert(1)>")
        await expect(results).to_contain_text('{"a":[1]}')
        await expect(results.locator("a, img")).to_have_count(0)
        link = row.get_by_role("link", name="/upload/three.txt")
        response = await visit.page.request.get(str(await link.get_attribute("href")))
        assert await response.text() == "one two three"
        asked = visit.requests(lambda request: "/-/uploads?id=" in request.url)
        await visit.page.wait_for_timeout(1200)  # what has settled is not asked for any more
        assert asked == []


async def test_a_held_upload_waits_for_its_decision_and_tells_it(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    folder = str(write_plugin(tmp_path / "plugins", DECIDING.format(gate=str(gate))))
    gateway = await start_gateway(plugins=[folder])
    async with visiting_uploads() as visit:
        await visit.open(gateway.url)
        await visit.make(tmp_path / "mine", {"good.txt": b"good", "bad.txt": b"bad"})
        for name in ("good.txt", "bad.txt"):
            await expect(visit.row(name)).to_contain_text("Whole, and waiting for a decision")
        gate.touch()
        await expect(visit.row("good.txt")).to_contain_text("Stored as /upload/good.txt")
        await expect(visit.row("bad.txt")).to_contain_text("Rejected by deciding. It has a virus.")
        await visit.headline("1 file was not stored")


async def test_names_are_text_whatever_they_have(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway()
    hostile = {
        "<img src=x onerror=alert(1)>.txt": b"1",
        "photo\u202egpj.exe": b"2",
        "100% #1?.txt": b"3",
    }
    async with visiting_uploads() as visit:
        await visit.open(gateway.url)
        await visit.make(tmp_path / "mine", hostile)
        await visit.headline("All 3 files are stored")
        names = await visit(".upload-name").all_text_contents()
        assert sorted(names) == [
            "100% #1?.txt",
            "<img src=x onerror=alert(1)>.txt",
            "photo\ufffdgpj.exe",
        ]
        await expect(visit("main img")).to_have_count(0)
        await expect(visit.row("100% #1?.txt")).to_contain_text("/upload/100% #1?.txt")
        assert visit.said == []
    stored = {path.name: path.read_bytes() for path in (tmp_path / "data/upload").iterdir()}
    assert stored == hostile
