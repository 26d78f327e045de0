"""Previews: a picture, a beginning of a text, and nothing of a file that runs."""

from __future__ import annotations

import base64
import os
import wave
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.conftest import StartGateway
from tests.integration.console.files.visits import store, visiting_files
from tests.support.browser import check_looks
from tests.support.harness import put

pytestmark = pytest.mark.slow

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
RUNS = "parent.document.title = document.title = 'it ran'"
SVG = f"""<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30" onload="{RUNS}">
<script>{RUNS}</script><rect width="40" height="30" fill="steelblue"/></svg>"""
HTML = f"<!doctype html><title>x</title><h1>shown as it is</h1><script>{RUNS}</script>"


async def test_nothing_of_a_file_runs_in_its_preview(start_gateway: StartGateway, upload: Path) -> None:
    store(upload, **{"a.svg": SVG.encode(), "b.html": HTML.encode(), "c.png": HTML.encode()})
    gateway = await start_gateway(listing=True, downloads=True)
    # A type that the uploader chose is no reason to show markup.
    await put(gateway, "/upload/d.txt", HTML.encode(), "Content-Type: text/html")
    await put(gateway, "/upload/e.html", SVG.encode(), "Content-Type: image/svg+xml")
    async with visiting_files() as visit:
        await visit.go(gateway, file="a.svg")
        picture = visit.panel.locator("img")
        await expect(picture).to_be_visible()
        assert await picture.evaluate("image => [image.naturalWidth, image.src.slice(0, 5)]") == [
            40,
            "blob:",
        ]
        await visit.panel.get_by_role("button", name="Next file").click()
        await expect(visit.panel.locator("pre")).to_have_text(HTML)
        await visit.press("ArrowRight")
        await expect(visit.panel.locator(".files-preview")).to_have_text(
            "The browser cannot show this picture."
        )
        await visit.press("ArrowRight")
        await expect(visit.panel.locator("pre")).to_have_text(HTML)
        await visit.press("ArrowRight")
        await expect(picture).to_be_visible()
        assert await visit.page.title() == "Files · Upload Gateway"
        assert len(visit.page.frames) == 1
        assert visit.said == []


async def test_a_preview_reads_no_more_of_a_text_than_it_shows(
    start_gateway: StartGateway, upload: Path
) -> None:
    line = "0123456789 äöü\n"
    store(upload, **{"big.log": line.encode() * 100_000, "raw.bin": os.urandom(4000), "none.txt": b""})
    gateway = await start_gateway(listing=True, downloads=True)
    async with visiting_files() as visit:
        async with visit.page.expect_response("**/upload/big.log") as answering:
            await visit.go(gateway, file="big.log")
            await expect(visit.panel.locator("pre")).to_contain_text(line.strip())
        answers = await answering.value
        assert answers.request.method in {"GET", "HEAD"}
        await expect(visit.panel.locator(".files-preview p")).to_have_text("The first 65.5 kB of 1.8 MB")
        shown = str(await visit.panel.locator("pre").text_content())
        assert len(shown.encode()) <= 64 << 10
        assert "\ufffd" not in shown
        await visit.press("ArrowRight")
        await expect(visit.panel.locator(".files-preview p")).to_have_text("The file is empty.")
        await visit.press("ArrowRight")
        await expect(visit.panel.locator(".files-preview p")).to_have_text(
            "There is no preview of this type."
        )
        await visit.panel.get_by_role("button", name="Show its beginning as text").click()
        await expect(visit.panel.locator(".files-preview p")).to_have_text("This is not text.")
        assert visit.said == []


async def test_sound_plays_in_its_preview(start_gateway: StartGateway, upload: Path) -> None:
    rate = 8000
    with wave.open(str(upload / "tone.wav"), "wb") as tone:
        tone.setparams((1, 1, rate, rate, "NONE", ""))
        tone.writeframes(bytes(range(256)) * (rate // 256))
    gateway = await start_gateway(listing=True, downloads=True)
    async with visiting_files() as visit:
        await visit.go(gateway, file="tone.wav")
        player = visit.panel.locator("audio")
        await expect(player).to_have_js_property("readyState", 4)
        assert await player.evaluate("player => player.duration") == pytest.approx(1, abs=0.05)
        await visit.press("Escape")
        await expect(visit.panel).not_to_be_visible()
        assert visit.said == []


async def test_the_details_of_a_file_can_be_copied_and_lead_to_its_upload(
    start_gateway: StartGateway, upload: Path
) -> None:
    gateway = await start_gateway(listing=True, downloads=True, digest="sha256")
    stored = await put(gateway, "/upload/it's here.png".replace(" ", "%20"), PNG)
    copying = ["clipboard-read", "clipboard-write"]
    async with visiting_files(bypass_csp=True, permissions=copying) as visit:
        await visit.go(gateway)
        await visit.link("it's here.png").click()
        facts = visit.panel.locator(".facts")
        await expect(facts).to_contain_text(stored.json["digest"])
        await expect(facts).to_contain_text("image/png")
        timeline = visit.panel.get_by_role("link", name="Its timeline")
        upload_id = stored.json["upload_id"]
        await expect(timeline).to_have_attribute("href", f"{gateway.url}/-/uploads/{upload_id}")
        await visit.panel.get_by_role("button", name="Copy curl command").click()
        await expect(visit.panel.get_by_role("button", name="Copied")).to_be_visible()
        address = f"{gateway.url}/upload/it%27s%20here.png"
        assert await visit.page.evaluate("navigator.clipboard.readText()") == f"curl -fOJ '{address}'"
        await check_looks(visit, keep="panel")
        (upload / "it's here.png").unlink()
        await visit.page.reload()
        await expect(visit(".files-outcome")).to_contain_text("is not in this list.")
