"""`files` by event, of local files: the version of the event or `Superseded`; never a newer one."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import Superseded
from tests.support.committer import TIMEOUT, CommitterHarness, OnFailpoint


async def stored_event(
    harness: CommitterHarness, content: bytes = b"mine", **facts: Any
) -> dict[str, Any]:
    stored = await harness.commit("/folder/x", content, **facts)
    return {"upload_id": stored.upload_id, "path": "/whatever the script made of it"}


async def read(harness: CommitterHarness, event: dict[str, Any]) -> bytes:
    async with harness.files.open(event) as reader:
        return bytes(await reader.read())


def replaced(target: Path) -> None:
    target.with_name("y").write_bytes(b"newer")
    target.with_name("y").rename(target)


def rewritten(target: Path) -> None:
    target.write_bytes(b"MINE")


def touched(target: Path) -> None:
    os.utime(target, ns=(1, 1))


def linked(target: Path) -> None:
    target.rename(target.with_name("moved"))
    target.symlink_to("moved")


def made_a_folder(target: Path) -> None:
    target.unlink()
    target.mkdir()


def folder_linked(target: Path) -> None:
    target.parent.rename(target.parent.with_name("moved"))
    target.parent.symlink_to("moved")


def folder_gone(target: Path) -> None:
    target.unlink()
    target.parent.rmdir()


CHANGES = [replaced, rewritten, touched, Path.unlink, linked, made_a_folder, folder_linked, folder_gone]


async def test_the_file_of_the_event_is_read_whatever_path_a_script_wrote(
    harness: CommitterHarness,
) -> None:
    event = await stored_event(harness, b"mine" * 100_000)
    assert await read(harness, event) == b"mine" * 100_000


async def test_a_renamed_upload_is_found_under_its_new_name(harness: CommitterHarness) -> None:
    first = await stored_event(harness, b"first")
    second = await stored_event(harness, b"second", on_conflict="rename")
    assert [await read(harness, event) for event in (first, second)] == [b"first", b"second"]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
async def test_a_file_that_is_not_the_one_that_was_stored_is_neither_read_nor_removed(
    harness: CommitterHarness, change: Any
) -> None:
    event = await stored_event(harness)
    change(harness.root / "folder/x")
    before = harness.stored()
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Superseded):
        await read(harness, event)
    with pytest.raises(Superseded):
        await harness.files.remove(event)
    assert harness.stored() == before
    assert len(os.listdir("/proc/self/fd")) <= descriptors


async def test_an_upload_that_is_no_longer_in_the_journal_is_superseded(
    harness: CommitterHarness,
) -> None:
    with pytest.raises(Superseded, match="knows no upload"):
        await read(harness, {"upload_id": "01J-0"})


async def test_a_file_that_is_open_stays_readable_when_it_is_replaced(harness: CommitterHarness) -> None:
    event = await stored_event(harness)
    async with harness.files.open(event) as reader:
        await harness.commit("/folder/x", b"newer")
        assert await reader.read() == b"mine"


async def test_removing_is_durable_and_final(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = await stored_event(harness)
    synced: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)
        assert harness.stored() == {}
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    await harness.files.remove(event)
    assert synced == ["folder"]
    with pytest.raises(Superseded, match="has been removed"):
        await harness.files.remove(event)


async def test_an_upload_that_races_with_a_removal_is_never_removed(
    harness: CommitterHarness, on_failpoint: OnFailpoint
) -> None:
    event = await stored_event(harness)
    loop, publishing, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def hold(point: str) -> None:
        if point == "after journal commit":
            loop.call_soon_threadsafe(publishing.set)
            assert go_on.wait(TIMEOUT)

    on_failpoint(hold)
    upload = asyncio.create_task(harness.commit("/folder/x", b"newer"))
    await publishing.wait()
    removal = asyncio.create_task(harness.files.remove(event))
    await asyncio.sleep(0)
    go_on.set()
    await upload
    with pytest.raises(Superseded, match="replaced"):
        await removal
    assert harness.stored() == {"folder/x": b"newer"}


async def test_the_comparison_and_the_removal_are_one_step_of_the_committer(
    harness: CommitterHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = await stored_event(harness)
    threads: list[str] = []
    for name in ("fstat", "unlink"):
        real = getattr(os, name)

        def spy(*arguments: Any, _real: Any = real, **keywords: Any) -> Any:
            threads.append(threading.current_thread().name)
            return _real(*arguments, **keywords)

        monkeypatch.setattr(os, name, spy)
    await harness.files.remove(event)
    assert set(threads) == {"committer"}


async def test_files_can_be_used_from_another_loop(harness: CommitterHarness) -> None:
    event = await stored_event(harness)

    async def script() -> bytes:
        content = await read(harness, event)
        await harness.files.remove(event)
        return content

    assert await asyncio.to_thread(asyncio.run, script()) == b"mine"
    assert harness.stored() == {}
