"""A person's first minute, as docs/tour.md shows it: `scripts/serve`, a file, a link, another person."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.integration.console.links.visits import visiting
from tests.integration.console.upload.visits import UploadVisit
from tests.support import PROJECT
from tests.support.browser import visiting_as
from tests.support.harness import KILL_TIMEOUT, TIMEOUT

pytestmark = pytest.mark.slow

SIZE = {"width": 1100, "height": 720}
PHONE = {"width": 390, "height": 720}


def copied_project(root: Path) -> Path:
    """Copy what `scripts/serve` needs. Its environment is that of the tests."""
    shutil.copytree(PROJECT / "scripts", root / "scripts")
    shutil.copytree(PROJECT / "plugins", root / "plugins", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "setup.cfg", root)
    shutil.copy(PROJECT / "README.md", root)
    (root / "scripts/venv").write_text("#!/bin/sh\n")
    (root / ".venv/bin").mkdir(parents=True)
    (root / ".venv/bin/gateway").symlink_to(Path(sys.executable).parent / "gateway")
    return root


@asynccontextmanager
async def served(root: Path) -> AsyncIterator[str]:
    """Run `scripts/serve` as its user does; yield the address that it tells to open."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("UPLOAD_")}
    process = await asyncio.create_subprocess_exec(
        str(root / "scripts/serve"), "--port", "0", env=environ, cwd=root,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(TIMEOUT):
            line = (await process.stdout.readline()).decode()
        match = re.fullmatch(r"listening on (http://127\.0\.0\.1:\d+)\n", line)
        assert match, line
        yield match[1]
    finally:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(KILL_TIMEOUT):
            await process.wait()
    assert process.returncode == 0


async def test_a_file_is_uploaded_and_shared_and_fetched_by_another_person(tmp_path: Path) -> None:
    root = copied_project(tmp_path / "project")
    body = os.urandom(700_000)
    async with served(root) as url:
        async with visiting_as(UploadVisit, viewport=SIZE) as visit:
            await visit.open(url)
            await visit.take("tour-1-open")
            await visit("#to-folder").fill("reports")
            await visit.make(tmp_path / "mine", {"Report.pdf": body})
            await visit.headline("1 file is stored")
            await expect(visit.row("Report.pdf")).to_contain_text("logUploaded")
            await expect(visit.row("Report.pdf")).to_contain_text("done")
            await visit.take("tour-2-stored")
            link = await share(visit)
            await timeline(visit)
        async with visiting(viewport=PHONE) as guest:
            await guest.page.goto(link)
            await expect(guest("tbody tr")).to_have_count(1)
            await guest.take("tour-5-share-phone")
            async with guest.page.expect_download() as waiting:
                await guest.page.get_by_role("button", name="Download Report.pdf").click()
            fetched = await (await waiting.value).path()
            assert Path(fetched).read_bytes() == body
    assert (root / "data/upload/reports/Report.pdf").read_bytes() == body


async def share(visit: UploadVisit) -> str:
    """Find the file on the page of files, and make a link to its folder."""
    page = visit.page
    await page.get_by_role("link", name="Files", exact=True).click()
    await page.get_by_role("link", name="reports (folder)").click()
    await expect(page.get_by_text("Report.pdf")).to_be_visible()
    await visit.take("tour-3-files")
    await page.get_by_role("button", name="Share link").click()
    await page.get_by_role("button", name="Make the link").click()
    await expect(page.get_by_label("The link", exact=True)).to_be_visible()
    await visit.take("tour-4-link")
    link = await page.get_by_label("The link", exact=True).input_value()
    await page.get_by_role("button", name="Done").click()
    return link


async def timeline(visit: UploadVisit) -> None:
    """Look at what became of the upload."""
    page = visit.page
    await page.get_by_role("link", name="Activity", exact=True).click()
    await page.get_by_role("link", name="Report.pdf").first.click()
    await expect(visit("main")).to_contain_text("logUploaded")
    await visit.take("tour-6-timeline")
