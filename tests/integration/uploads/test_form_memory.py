"""A form of ten large files takes no more memory than one of a small file."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import psutil
import pytest

from tests.conftest import StartProcess
from tests.support.harness import curl, leftovers

pytestmark = [pytest.mark.slow, pytest.mark.serial]

FILES = 10
SIZE = 100_000_000
MAX_GROWTH = 64 << 20
"""Bytes of resident memory beside those of a gateway that has served a small form."""


async def _peak_growth(process: psutil.Process, during: asyncio.Task[object]) -> int:
    before = peak = process.memory_info().rss
    while not during.done():
        peak = max(peak, process.memory_info().rss)
        await asyncio.sleep(0.02)
    return peak - before


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "chunked"])
async def test_ten_files_of_100_mb_are_stored_in_constant_memory(
    gateway_process: StartProcess, tmp_path: Path, chunked: bool
) -> None:
    gateway = gateway_process("--durability", "none")
    source = tmp_path / "source"
    block = bytes(range(256)) * 4096
    with source.open("wb") as file:
        written = 0
        while written < SIZE:
            written += file.write(block[: SIZE - written])
    assert (await curl("-F", "f=x;filename=small", f"{gateway.url}/upload/")).status == 201
    files = [text for n in range(FILES) for text in ("-F", f"f=@{source};filename={n}")]
    framing = ("-H", "Transfer-Encoding: chunked") if chunked else ()
    posting = asyncio.create_task(curl(*framing, *files, f"{gateway.url}/upload/large/"))
    growth = await _peak_growth(psutil.Process(gateway.process.pid), posting)
    assert (await posting).status == 201
    assert growth < MAX_GROWTH, growth
    wanted = await asyncio.to_thread(_digest, source)
    for n in range(FILES):
        assert await asyncio.to_thread(_digest, tmp_path / f"data/upload/large/{n}") == wanted
    assert leftovers(tmp_path / "data") == []


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
