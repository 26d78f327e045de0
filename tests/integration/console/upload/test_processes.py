"""The upload page with a gateway of several processes, behind one port."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.conftest import StartProcess
from tests.integration.console.upload.visits import visiting_uploads, write_files
from tests.support.harness import files_below

pytestmark = pytest.mark.slow


async def test_a_file_is_stored_once_where_the_browser_sends_its_request_again_to_another_process(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    # Each process ends between a commit and its answer, on connections that were used before.
    flags = ("--on-conflict", "rename", "--processes", "2")
    gateway = await asyncio.to_thread(
        gateway_process, *flags, die_at="before partial end:45", forked=False
    )
    files = write_files(tmp_path / "mine", [3000 + number for number in range(120)])
    async with visiting_uploads() as visit:
        await visit.open(gateway.url)
        await visit.add(*(tmp_path / "mine" / name for name in files))
        await visit.headline("All 120 files are stored", seconds=90)
        await expect(visit(".upload[data-state=failed]")).to_have_count(0)
    assert files_below(tmp_path / "data/upload") == files
