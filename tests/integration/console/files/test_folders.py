"""Folders: their addresses, their order, names that are text, the keyboard alone, and every state."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from urllib.parse import unquote

import pytest
from playwright.async_api import Route, expect

from tests.conftest import StartGateway
from tests.integration.console.files.visits import store, visiting_files
from tests.support.browser import check_looks

pytestmark = pytest.mark.slow

EVIL = "<img src=x onerror=alert(1)>.txt"


async def test_a_folder_has_an_address_that_goes_back_and_forward(
    start_gateway: StartGateway, upload: Path
) -> None:
    store(upload, "b/c d/1.txt", "b/2.txt", "z.txt", "a.txt")
    gateway = await start_gateway(listing=True, downloads=True)
    async with visiting_files() as visit:
        await visit.go(gateway)
        await visit.shows(["b", "a.txt", "z.txt"])
        await visit.link("b").click()
        await visit.shows(["c d", "2.txt"])
        await visit.link("c d").click()
        await visit.shows(["1.txt"])
        assert unquote(visit.page.url).endswith("/-/files?path=/upload/b/c+d/")
        await expect(visit(".files-crumbs li")).to_have_text(["Files", "b"])
        await expect(visit("h2")).to_have_text("c d")
        await visit.page.reload()
        await visit.shows(["1.txt"])
        await visit.page.go_back()
        await visit.shows(["c d", "2.txt"])
        assert await visit.focused() == "c d(folder)"
        await visit.page.go_forward()
        await visit.shows(["1.txt"])
        await visit(".files-crumbs a").first.click()
        await visit.shows(["b", "a.txt", "z.txt"])
        await visit.link("a.txt").click()
        await expect(visit.panel.locator("pre")).to_have_text("a.txt")
        assert visit.page.url.endswith("?path=/upload/&file=a.txt")
        await visit.page.reload()
        await expect(visit.panel.locator("h2")).to_have_text("a.txt")
        await visit.page.go_back()
        await expect(visit.panel).not_to_be_visible()
        assert visit.said == []


async def test_a_whole_folder_is_sorted_and_folders_stand_first(
    start_gateway: StartGateway, upload: Path
) -> None:
    store(upload, "b/x", small=b"1", large=b"1" * 5000, **{"file 10": b"22", "file 9": b"333"})
    gateway = await start_gateway(listing=True)
    async with visiting_files() as visit:
        await visit.go(gateway)
        await visit.shows(["b", "file 9", "file 10", "large", "small"])
        await expect(visit(".files-summary")).to_have_text("1 folder · 4 files · 5 kB")
        await visit.page.get_by_role("button", name="Size").click()
        await visit.shows(["b", "large", "file 9", "file 10", "small"])
        await visit.page.get_by_role("button", name="Size").click()
        await visit.shows(["b", "small", "file 10", "file 9", "large"])
        await expect(visit("[aria-sort=ascending]")).to_have_text("Size↑")
        await expect(visit(".files-get a")).to_have_count(0)  # without --downloads nothing is fetched


async def test_names_are_text_whatever_they_contain(start_gateway: StartGateway, upload: Path) -> None:
    names = [
        EVIL,
        "a\u202egpj.exe",
        "%41 &amp; #?.txt",
        "é\u0301 日本語 😀",
        "x" * 250,
        "javascript:alert(1)",
    ]
    store(upload, *names, f"folder {EVIL}/below", "'quoted' \"name\"")
    gateway = await start_gateway(listing=True, downloads=True, deletes=True)
    async with visiting_files(bypass_csp=True) as visit:
        await visit.go(gateway)
        await expect(visit.row("a[U+202E]gpj.exe")).to_be_visible()
        await expect(visit(".files-rows img")).to_have_count(0)
        for name in (
            EVIL,
            "%41 &amp; #?.txt",
            "é\u0301 日本語 😀",
            "'quoted' \"name\"",
            "javascript:alert(1)",
        ):
            await visit.link(name).click()
            await expect(visit.panel.locator("pre, .files-preview p")).to_be_visible()
            await expect(visit.panel.locator("h2")).to_have_text(name)
            link = visit.panel.get_by_role("link", name="Download")
            async with visit.page.expect_download() as downloading:
                await link.click()
            assert Path(await (await downloading.value).path()).read_bytes() == name.encode()
            await visit.press("Escape")
        await check_looks(visit, keep="names")
        await visit.link(f"folder {EVIL}").click()
        await visit.shows(["below"])
        assert visit.said == []


async def test_the_keyboard_alone_moves_selects_opens_and_leaves(
    start_gateway: StartGateway, upload: Path
) -> None:
    store(upload, "a/1", "b", "c", "d", "e")
    gateway = await start_gateway(listing=True, downloads=True, deletes=True)
    async with visiting_files() as visit:
        await visit.go(gateway)
        await visit.shows(["a", "b", "c", "d", "e"])
        await visit.press("/")
        assert await visit.page.evaluate("document.activeElement.type") == "search"
        for _ in range(20):
            await visit.press("Tab")
            if await visit.focused() == "a(folder)":
                break
        await visit.press("Enter")
        await visit.shows(["1"])
        assert await visit.focused() == "1"
        await visit.page.go_back()
        await visit.shows(["a", "b", "c", "d", "e"])
        await expect(visit.link("a")).to_be_focused()
        await visit.press("ArrowDown", "Space", "ArrowDown", "Shift+ArrowDown", "Shift+ArrowDown")
        await expect(visit(".files-count")).to_have_text("4 selected · 4 B")
        await visit.press("Escape")
        await expect(visit(".files-bar")).not_to_be_visible()
        await visit.press("End", "Enter")
        await expect(visit.panel.locator("h2")).to_have_text("e")
        await visit.press("ArrowLeft")
        await expect(visit.panel.locator("h2")).to_have_text("d")
        await visit.press("Escape")
        await expect(visit.link("d")).to_be_focused()
        await visit.press("Home", "Control+a")
        await expect(visit(".files-count")).to_have_text("5 selected · 4 B")
        await visit.press("Delete")
        await expect(visit("dialog[open] h2")).to_have_text("Delete 4 files?")
        await visit.press("Escape")
        await expect(visit.link("a")).to_be_focused()


async def test_an_empty_gateway_a_lost_folder_and_an_empty_one_say_what_to_do(
    start_gateway: StartGateway, upload: Path
) -> None:
    upload.rmdir()
    gateway = await start_gateway(listing=True)
    async with visiting_files(bypass_csp=True) as visit:
        await visit.go(gateway)
        await expect(visit(".empty h3")).to_have_text("There are no files yet.")
        await expect(visit(".empty a")).to_have_attribute("href", f"{gateway.url}/")
        await check_looks(visit, keep="empty")
        await visit.go(gateway, path="/upload/gone/")
        await expect(visit(".failure p")).to_have_text("This folder is not there (any more).")
        await check_looks(visit, keep="gone")
        for path in ("/upload/../-/events/", "/upload//", "relative/"):
            await visit.go(gateway, path=path)
            await expect(visit(".failure")).to_be_visible()
        (upload / "bare").mkdir(parents=True)
        await visit.go(gateway, path="/upload/bare/")
        await expect(visit(".empty h3")).to_have_text("This folder is empty.")


async def test_a_gateway_that_is_away_leaves_what_is_shown_and_comes_back_by_itself(
    start_gateway: StartGateway, upload: Path
) -> None:
    store(upload, "a", "b")
    gateway = await start_gateway(listing=True)
    async with visiting_files(bypass_csp=True) as visit:
        answered = asyncio.Event()

        async def hold(route: Route) -> None:
            await answered.wait()
            await route.continue_()

        await visit.page.route("**/upload/*", hold)
        await visit.go(gateway)
        await expect(visit(".files-summary")).to_have_text("Loading…")
        await check_looks(visit, keep="busy")
        answered.set()
        await visit.shows(["a", "b"])
        await visit.page.route("**/*", lambda route: route.abort())
        await visit.page.get_by_role("button", name="Refresh").click()
        await expect(visit("#banner")).to_contain_text("The gateway does not answer.")
        await expect(visit(".failure")).to_contain_text("This list may be old.")
        await visit.shows(["a", "b"])
        await check_looks(visit, keep="away")
        (upload / "c").write_bytes(b"")
        await visit.page.unroute_all()
        await visit.shows(["a", "b", "c"])
        await expect(visit(".failure")).to_have_count(0)


async def test_the_page_looks_as_the_docs_show_it(start_gateway: StartGateway, upload: Path) -> None:
    sizes = {
        "annual report.pdf": 2_400_000,
        "contract.pdf": 318_000,
        "logo.svg": 4_200,
        "notes.md": 1_900,
    }
    contents = {f"2025/{name}": bytes(size) for name, size in sizes.items()}
    store(upload, "2025/invoices/1", "2025/photos/1", **contents)
    for number, name in enumerate(sizes):
        os.utime(upload / "2025" / name, (time.time() - 86400 * (number + 2),) * 2)
    gateway = await start_gateway(listing=True, downloads=True, deletes=True)
    async with visiting_files(bypass_csp=True, viewport={"width": 1100, "height": 640}) as visit:
        await visit.go(gateway, path="/upload/2025/")
        await visit.row("contract.pdf").get_by_role("checkbox").check()
        await visit.row("logo.svg").get_by_role("checkbox").check()
        await expect(visit(".files-count")).to_have_text("2 selected · 322 kB")
        await visit.take("files")
        await check_looks(visit, keep="selected")
