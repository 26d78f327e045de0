"""The upload page in each of its states, wide and narrow, light and dark."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.conftest import StartGateway, StartProcess
from tests.integration.console.upload.test_aftermath import FAILING
from tests.integration.console.upload.visits import visiting_uploads, write_files
from tests.support.browser import check_looks
from tests.support.harness import write_plugin

pytestmark = pytest.mark.slow

COUNTING = """\
name: countWords
event: APIGW.OnFileUploaded
script: |
  async def countWords(event, handle):
      async with files.open(event) as file:
          handle.result({"words": len((await file.read()).split())})
"""
REFUSING = """\
name: noPrograms
event: APIGW.OnFileUploading
script: |
  async def noPrograms(event, handle):
      if event["path"].endswith(".exe"):
          await handle.terminate(415, {"message": "programs are not taken here"})
"""
LONG = "a-rather-long-name-of-a-report-" * 4 + ".pdf"


async def test_no_state_of_the_upload_page_has_a_violation(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    write_plugin(tmp_path / "plugins", COUNTING, "counting.yaml")
    folder = write_plugin(tmp_path / "plugins", REFUSING, "refusing.yaml")
    gateway = gateway_process("--max-bytes=10M", "--plugins", str(folder))
    async with visiting_uploads(bypass_csp=True) as visit:
        await visit.open(gateway.url)
        await check_looks(visit, keep="upload-empty")
        await visit.make(tmp_path / "mine", {"minutes.txt": b"one two three", "report.txt": b"four"})
        await expect(visit(".results")).to_have_count(2)
        await visit.slow(300_000)
        large = {"film.mp4": bytes(9_000_000), "holiday.zip": bytes(7_000_000)}
        await visit.make(tmp_path / "mine", large)
        await expect(visit(".facts-line")).to_contain_text("left")
        await expect(visit(".upload-state", has_text="left")).to_have_count(2)
        await visit.take("upload-page", clip={"x": 0, "y": 0, "width": 1100, "height": 720})
        await check_looks(visit, keep="upload-busy")
        await visit.press("Pause all")
        await visit.headline("Paused")
        await check_looks(visit, keep="upload-paused")
        await visit.press("Go on with all")
        await asyncio.to_thread(gateway.kill)
        await expect(visit("#banner")).to_contain_text("going on by itself")
        await check_looks(visit, keep="upload-away")
    assert all("Failed to load resource" in text for text in visit.said), visit.said


async def test_no_end_of_uploads_has_a_violation(start_gateway: StartGateway, tmp_path: Path) -> None:
    write_plugin(tmp_path / "plugins", COUNTING, "counting.yaml")
    write_plugin(tmp_path / "plugins", REFUSING, "refusing.yaml")
    folder = str(
        write_plugin(tmp_path / "plugins", FAILING.replace("failing", "thumbnail"), "thumbnail.yaml")
    )
    gateway = await start_gateway(plugins=[folder], max_bytes="10M", downloads="on")
    write_files(tmp_path / "mine", [9_000_000])
    async with visiting_uploads(bypass_csp=True) as visit:
        await visit.open(gateway.url)
        await visit.make(tmp_path / "mine", {"notes.txt": b"one two three", LONG: b"%PDF"})
        await expect(visit(".handler[data-state=dead]")).to_have_count(2)
        await check_looks(visit, keep="upload-done")
        await visit.make(tmp_path / "mine", {"setup.exe": b"x", "large.iso": bytes(10_500_000)})
        await visit.headline("2 files were not stored")
        await check_looks(visit, keep="upload-errors")
        await visit.slow(200_000)
        await visit.add(tmp_path / "mine/file-000.bin")
        await visit.make(
            tmp_path / "mine", {f"photo-{number}.jpg": b"x" * (100_000 + number) for number in range(60)}
        )
        await expect(visit(".upload-section", has_text="On the way")).to_contain_text("more")
        await check_looks(visit, keep="upload-full")
        await visit.page.reload()
        await expect(visit(".call h2").last).to_contain_text("of an earlier visit")
        await check_looks(visit, keep="upload-left")
