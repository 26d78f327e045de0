"""The gateway is killed in the middle of 200 uploads: the page finishes all, each stored once."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.conftest import StartProcess
from tests.integration.console.upload.visits import count_files, visiting_uploads, write_files
from tests.support.harness import files_below, get, leftovers, wait_settled, wait_until
from tests.support.ports import free_port
from tests.support.promise import RunRecorder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
]  # two restarts, each found by the page in seconds

SIZES = [((n * 7919) % 90_000) + 1 if n % 20 else 1_500_000 + 400_000 * (n // 20) for n in range(200)]
"""Most are small; ten have 1.5 to 5 MB."""


async def test_the_page_finishes_200_uploads_over_two_kills_each_stored_once(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    files = write_files(tmp_path / "mine", SIZES)
    recorder, stored = RunRecorder(tmp_path), tmp_path / "data/upload"
    # A second copy of a file would get a name of its own.
    flags = (f"--port={free_port()}", "--on-conflict=rename", *recorder.flags)
    # The first kill comes between the commit of an upload and its answer.
    first = gateway_process(*flags, die_at="before partial end:45")
    async with visiting_uploads() as visit:
        await visit.open(first.url)
        await visit.slow(12_000_000)
        await visit.add(*(tmp_path / "mine" / name for name in files))
        await asyncio.to_thread(first.wait)
        await expect(visit("#banner", has_text="going on by itself")).to_be_visible()
        assert 0 < await count_files(stored) < 200
        second = await asyncio.to_thread(gateway_process, *flags)
        await wait_until(lambda: count_files_past(stored, 110))
        second.kill()
        await expect(visit("#banner", has_text="going on by itself")).to_be_visible()
        assert await count_files(stored) < 200
        last = await asyncio.to_thread(gateway_process, *flags)
        await visit.headline("All 200 files are stored", seconds=90)
        await expect(visit("#banner")).to_be_empty()
        await expect(visit(".upload[data-state=failed]")).to_have_count(0)
        await wait_settled(last)
        rows = (await get(last, "/-/uploads?limit=1000")).json["uploads"]
    assert await asyncio.to_thread(files_below, stored) == files
    stored_rows = [row for row in rows if row["state"] == "stored"]
    assert Counter(row["path"] for row in stored_rows) == Counter(f"/upload/{name}" for name in files)
    assert recorder.paths() == {f"/upload/{name}" for name in files}
    assert leftovers(tmp_path / "data") == []
    partials = tmp_path / "data/.gateway/partials"
    await wait_until(lambda: not [name for name in files_below(partials) if "." not in name])


async def count_files_past(folder: Path, count: int) -> bool:
    return await count_files(folder) > count
