"""Downloads land on the disk as they are stored: a file, a folder, what is selected."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from playwright.async_api import Locator, expect

from tests.conftest import StartGateway
from tests.integration.console.files.visits import FilesVisit, store, visiting_files

pytestmark = pytest.mark.slow


async def saved(visit: FilesVisit, link: Locator) -> tuple[str, Path]:
    """Follow a link; return the name under which a browser saves it, and where it is."""
    async with visit.page.expect_download() as downloading:
        await link.click()
    download = await downloading.value
    return download.suggested_filename, Path(await download.path())


def contents(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


async def test_files_folders_and_what_is_selected_land_on_the_disk(
    start_gateway: StartGateway, upload: Path
) -> None:
    store(
        upload, "docs/a.txt", "docs/sub/b & c.txt", "docs/ü #1.txt", "docs/d.txt", large=bytes(3 << 20)
    )
    gateway = await start_gateway(listing=True, downloads=True)
    async with visiting_files() as visit:
        await visit.go(gateway)
        name, path = await saved(visit, visit.row("large").get_by_label("Download large"))
        assert (name, path.read_bytes()) == ("large", bytes(3 << 20))
        every = {n: f"docs/{n}".encode() for n in ("a.txt", "d.txt", "sub/b & c.txt", "ü #1.txt")}
        name, path = await saved(visit, visit.row("docs").get_by_label("Download docs as zip"))
        assert (name, contents(path)) == ("docs.zip", every)
        await visit.link("docs").click()
        name, path = await saved(visit, visit(".files-tools a"))
        assert (name, contents(path)) == ("docs.zip", every)
        await visit.row("a.txt").get_by_role("checkbox").check()
        await visit.row("ü #1.txt").get_by_role("checkbox").check()
        _, path = await saved(visit, visit(".files-bar a"))
        assert contents(path) == {n: every[n] for n in ("a.txt", "ü #1.txt")}
        await visit.row("sub").get_by_role("checkbox").check()
        await expect(visit(".files-bar")).to_contain_text("Folders are downloaded one at a time.")
        await visit.page.get_by_role("searchbox").fill("B &")
        await visit.press("Enter")
        await visit.shows(["sub/b & c.txt"])
        await visit(".files-header input").check()
        name, path = await saved(visit, visit(".files-bar a"))
        assert (name, path.read_bytes()) == ("b & c.txt", every["sub/b & c.txt"])
        assert visit.said == []


async def test_an_archive_that_its_url_cannot_name_is_not_offered(
    start_gateway: StartGateway, upload: Path
) -> None:
    store(upload, *(f"{number:03}" for number in range(501)))
    gateway = await start_gateway(listing=True, downloads=True)
    async with visiting_files() as visit:
        await visit.go(gateway)
        await visit(".files-header input").check()
        await expect(visit(".files-bar")).to_contain_text("One archive has at most 500 files")
        await visit.row("000").get_by_role("checkbox").uncheck()
        await expect(visit(".files-bar a")).to_have_text("Download as zip")
