"""The page `/-/share`: another person, with a link and nothing else, looks at files and fetches them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from playwright.async_api import Page, expect

from tests.conftest import StartGateway
from tests.integration.console.links.visits import visiting
from tests.support.browser import check_looks
from tests.support.links import TOKENS, make_link

pytestmark = pytest.mark.slow


def store(folder: Path, **files: bytes) -> None:
    folder.mkdir(parents=True)
    for name, body in files.items():
        (folder / name.replace("_", ".")).write_bytes(body)


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (20, 120, 200)).save(file, "PNG")
    return file.getvalue()


async def downloaded(page: Page, button: str) -> bytes:
    async with page.expect_download() as waiting:
        await page.get_by_role("button", name=button, exact=True).click()
    path = await (await waiting.value).path()
    return Path(path).read_bytes()


async def test_a_person_with_a_share_link_reads_its_folder_and_nothing_else(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(auth="token", tokens=TOKENS)
    folder = tmp_path / "data" / "upload" / "Report"
    store(folder, report_txt=b"words", photo_png=picture())
    store(folder / "sub folder", inner_txt=b"inner")
    (folder / "<img src=x onerror=alert(1)>.txt").write_bytes(b"x")
    (folder.parent / "secret.txt").write_bytes(b"secret")
    link = await make_link(gateway, "share", "/upload/Report/")
    async with visiting(bypass_csp=True) as visit:
        await visit.page.goto(link.url)
        await expect(visit("h2")).to_have_text("Report")
        await expect(visit("tbody tr")).to_have_count(4)
        await expect(visit("tbody")).to_contain_text("<img src=x onerror=alert(1)>.txt")
        await expect(visit("body")).not_to_contain_text("secret.txt")
        assert await visit("nav").count() == 0
        await check_looks(visit, keep="share-list")
        assert await downloaded(visit.page, "Download report.txt") == b"words"
        archive = zipfile.ZipFile(io.BytesIO(await downloaded(visit.page, "Download all")))
        assert sorted(archive.namelist()) == [
            "<img src=x onerror=alert(1)>.txt", "photo.png", "report.txt", "sub folder/inner.txt",
        ]  # fmt: skip
        await visit.page.get_by_role("button", name="Show photo.png").click()
        shown = visit("dialog img")
        await expect(shown).to_be_visible()
        await check_looks(visit, keep="share-picture")
        await visit("dialog").get_by_role("button", name="Close").click()
        await visit.page.get_by_role("button", name="sub folder").click()
        await expect(visit("h2")).to_have_text("sub folder")
        await expect(visit("tbody tr")).to_have_count(1)
        await check_looks(visit, keep="share-inner")
        assert await downloaded(visit.page, "Download inner.txt") == b"inner"
        await visit.page.go_back()
        await expect(visit("tbody tr")).to_have_count(4)
        await link.revoke()
        await visit.page.get_by_role("button", name="Download report.txt").click()
        await expect(visit(".guest-card")).to_contain_text("This link has ended")
        await check_looks(visit, keep="share-ended")


async def test_an_empty_share_and_its_password(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(auth="token", tokens=TOKENS)
    link = await make_link(gateway, "share", "/upload/later/", password="pw")
    async with visiting(viewport={"width": 390, "height": 844}, bypass_csp=True) as visit:
        await visit.page.goto(link.url.replace("/-/share", "/-/drop"))
        await expect(visit.page).to_have_url(link.url)
        await visit("#link-password").fill("pw")
        await visit.page.keyboard.press("Enter")
        await expect(visit(".empty")).to_contain_text("Nothing is here yet")
        await check_looks(visit, keep="share-empty")
