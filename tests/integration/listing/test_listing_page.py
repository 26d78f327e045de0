"""The page of a folder in a real browser: readable, within its width, without a script of anyone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.conftest import StartGateway
from tests.integration.photos.browser import visiting
from tests.support.node import node_modules

pytestmark = pytest.mark.slow

WIDTHS = [1280, 390]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
async def test_the_page_is_accessible_and_fits(
    start_gateway: StartGateway, tmp_path: Path, width: int, scheme: str
) -> None:
    upload = tmp_path / "data" / "upload"
    (upload / "empty").mkdir(parents=True)
    for name in ("<img src=x onerror=alert(1)>.txt", "long-" * 40, "Grüße 😀", "a: b & c.csv"):
        (upload / name).write_bytes(b"x" * 1234)
    gateway = await start_gateway(listing=True, downloads=True)
    axe = await asyncio.to_thread(node_modules) / "node_modules" / "axe-core" / "axe.min.js"
    for target in ("/upload/", "/upload/?limit=2", "/upload/empty/"):
        async with visiting(viewport={"width": width, "height": 800}, color_scheme=scheme) as visit:
            await visit.page.goto(gateway.url + target)
            assert await visit.page.evaluate("document.documentElement.scrollWidth") <= width
            assert visit.said == []  # its own policy lets its style apply
            color = await visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert color == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(13, 17, 23)")
        async with visiting(
            viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True
        ) as visit:
            await visit.page.goto(gateway.url + target)
            await visit.page.add_script_tag(path=axe)
            found = await visit.page.evaluate("axe.run()")
            assert [rule["id"] for rule in found["violations"]] == []


async def test_links_lead_through_pages_folders_and_files(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    upload = tmp_path / "data" / "upload"
    (upload / "z: folder?").mkdir(parents=True)
    (upload / "z: folder?" / "100%.txt").write_bytes(b"inside")
    (upload / "a").write_bytes(b"a")
    gateway = await start_gateway(listing=True, downloads=True)
    async with visiting() as visit:
        page = visit.page
        await page.goto(f"{gateway.url}/upload/?limit=1")
        await page.get_by_role("link", name="Next page").click()
        await page.get_by_role("link", name="z: folder?/").click()
        async with page.expect_download() as download:
            await page.get_by_role("link", name="100%.txt").click()
        saved = await (await download.value).path()
        assert Path(saved).read_bytes() == b"inside"
        await page.get_by_role("link", name="Folder above").click()
        assert page.url == f"{gateway.url}/upload/"
