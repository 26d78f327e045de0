"""The page of a folder in a real browser: readable, within its width, without a script of anyone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import StartGateway
from tests.integration.photos.browser import visiting
from tests.support.browser import check_looks

pytestmark = pytest.mark.slow


async def test_the_page_is_accessible_and_fits(start_gateway: StartGateway, tmp_path: Path) -> None:
    upload = tmp_path / "data" / "upload"
    (upload / "empty").mkdir(parents=True)
    for name in ("<img src=x onerror=alert(1)>.txt", "long-" * 40, "Grüße 😀", "a: b & c.csv"):
        (upload / name).write_bytes(b"x" * 1234)
    gateway = await start_gateway(listing=True, downloads=True)
    async with visiting(bypass_csp=True) as visit:
        for target in ("/upload/", "/upload/?limit=2", "/upload/empty/"):
            await visit.page.goto(gateway.url + target)
            await check_looks(visit)
    for scheme, back in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(14, 18, 23)")):
        async with visiting(color_scheme=scheme) as visit:  # its own policy lets its style apply
            await visit.page.goto(f"{gateway.url}/upload/")
            color = await visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (color, visit.said) == (back, [])


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
