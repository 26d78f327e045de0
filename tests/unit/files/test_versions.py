"""`files`: the very file of an event, or `Superseded`; never a newer one."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import Superseded
from tests.support.committer import SECONDS, Listen, Office


async def stored_event(office: Office, content: bytes = b"mine", **facts: Any) -> dict[str, Any]:
    stored = await office.commit("/folder/x", content, **facts)
    return {"upload_id": stored.upload_id, "path": "/whatever the script made of it"}


async def read(office: Office, event: dict[str, Any]) -> bytes:
    async with office.files.open(event) as reader:
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


async def test_the_file_of_the_event_is_read_whatever_path_the_event_tells(office: Office) -> None:
    event = await stored_event(office, b"mine" * 100_000)
    assert await read(office, event) == b"mine" * 100_000


async def test_a_renamed_upload_is_found_under_its_new_name(office: Office) -> None:
    first = await stored_event(office, b"first")
    second = await stored_event(office, b"second", on_conflict="rename")
    assert [await read(office, event) for event in (first, second)] == [b"first", b"second"]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
async def test_a_file_that_is_not_the_one_that_was_stored_is_neither_read_nor_removed(
    office: Office, change: Any
) -> None:
    event = await stored_event(office)
    change(office.root / "folder/x")
    before = office.stored()
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Superseded):
        await read(office, event)
    with pytest.raises(Superseded):
        await office.files.remove(event)
    assert office.stored() == before
    assert len(os.listdir("/proc/self/fd")) <= descriptors


async def test_an_upload_that_the_journal_has_let_go_of_is_superseded(office: Office) -> None:
    with pytest.raises(Superseded, match="knows no upload"):
        await read(office, {"upload_id": "01J-0"})


async def test_a_file_that_is_open_stays_readable_when_it_is_replaced(office: Office) -> None:
    event = await stored_event(office)
    async with office.files.open(event) as reader:
        await office.commit("/folder/x", b"newer")
        assert await reader.read() == b"mine"


async def test_removing_is_durable_and_final(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    event = await stored_event(office)
    synced: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)
        assert office.stored() == {}
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    await office.files.remove(event)
    assert synced == ["folder"]
    with pytest.raises(Superseded, match="has been removed"):
        await office.files.remove(event)


async def test_an_upload_that_races_with_a_removal_is_never_removed(
    office: Office, listen: Listen
) -> None:
    event = await stored_event(office)
    loop, publishing, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def hold(point: str) -> None:
        if point == "after journal commit":
            loop.call_soon_threadsafe(publishing.set)
            assert go_on.wait(SECONDS)

    listen(hold)
    upload = asyncio.create_task(office.commit("/folder/x", b"newer"))
    await publishing.wait()
    removal = asyncio.create_task(office.files.remove(event))
    await asyncio.sleep(0)
    go_on.set()
    await upload
    with pytest.raises(Superseded, match="replaced"):
        await removal
    assert office.stored() == {"folder/x": b"newer"}


async def test_the_look_and_the_removal_are_one_step_of_the_committer(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = await stored_event(office)
    threads: list[str] = []
    for name in ("fstat", "unlink"):
        real = getattr(os, name)

        def spy(*arguments: Any, _real: Any = real, **keywords: Any) -> Any:
            threads.append(threading.current_thread().name)
            return _real(*arguments, **keywords)

        monkeypatch.setattr(os, name, spy)
    await office.files.remove(event)
    assert set(threads) == {"committer"}


async def test_files_can_be_used_from_another_loop(office: Office) -> None:
    event = await stored_event(office)

    async def script() -> bytes:
        content = await read(office, event)
        await office.files.remove(event)
        return content

    assert await asyncio.to_thread(asyncio.run, script()) == b"mine"
    assert office.stored() == {}
