"""A folder of 100,000 files: it is paged, scrolled and searched, and few of its rows are elements."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.conftest import StartGateway
from tests.integration.console.files.visits import MANY, FilesVisit, visiting_files
from tests.support.browser import check_looks

pytestmark = pytest.mark.slow

MAX_ROWS = 60
SEARCH_TIMEOUT = 90_000
"""Milliseconds in which 100,000 names are searched on a machine that is busy."""

LINKS = 20_000


@pytest.fixture
def many(upload: Path) -> Path:
    folder = upload / "many"
    folder.mkdir()
    # Names of a few files: an inode for each would take most of the time. One has 65,000 at most.
    descriptor = os.open(folder, os.O_RDONLY)
    for number in range(MANY):
        name, source = f"file {number:06}.txt", f"file {number // LINKS * LINKS:06}.txt"
        if name == source:
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
        else:
            os.link(source, name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
    os.close(descriptor)
    os.utime(folder, (1_700_000_000, 1_700_000_000))
    return folder


async def few_rows(visit: FilesVisit) -> None:
    assert 0 < await visit.rows.count() <= MAX_ROWS


@pytest.mark.timeout(300)  # it makes 100,000 names and reads them several times
async def test_a_hundred_thousand_files_are_scrolled_searched_and_selected_in_few_elements(
    start_gateway: StartGateway, many: Path
) -> None:
    gateway = await start_gateway(listing=True, downloads=True, deletes=True)
    async with visiting_files(bypass_csp=True) as visit:
        await visit.go(gateway, path="/upload/many/")
        await expect(visit(".files-summary")).to_contain_text("The first 1,000 by name")
        await expect(visit(".files-sort")).to_have_count(0)
        await few_rows(visit)
        await check_looks(visit, keep="many")
        for shown in ("2,000", "3,000"):
            await visit.page.evaluate("scrollTo(0, document.body.scrollHeight)")
            await expect(visit(".files-summary")).to_contain_text(shown)
        await few_rows(visit)
        await visit.link("file 000000.txt").focus()
        await visit.press("End")
        assert await visit.focused() >= "file 002999.txt"
        await few_rows(visit)
        await visit.page.get_by_role("searchbox").fill("FILE 09999")
        await visit.press("Enter")
        complete = "10 matches · 100,000 files searched · complete"
        await expect(visit(".files-summary")).to_have_text(complete, timeout=SEARCH_TIMEOUT)
        await visit.shows([f"file 09999{number}.txt" for number in range(10)])
        await visit(".files-header input").check()
        await expect(visit(".files-count")).to_have_text("10 selected · 0 B")
        await visit.page.get_by_role("searchbox").fill("nothing like it")
        await visit.press("Enter")
        nothing = visit(".empty h3")
        await expect(nothing).to_contain_text("nothing like it", timeout=SEARCH_TIMEOUT)
        # What finds much waits for the person, and what takes long can be stopped.
        await visit.go(gateway, path="/upload/", search="file")
        await expect(visit(".files-summary")).to_contain_text("there may be more")
        await few_rows(visit)
        assert await visit.rows.count() < MANY
        before = await visit(".files-summary").text_content()
        await visit.page.get_by_role("button", name="Show more").click()
        await expect(visit(".files-summary")).not_to_have_text(str(before))
        await visit.go(gateway, path="/upload/", search="no such name")
        await visit.page.get_by_role("button", name="Stop").click()
        await expect(visit(".files-summary")).to_contain_text("there may be more")
        assert visit.said == []
