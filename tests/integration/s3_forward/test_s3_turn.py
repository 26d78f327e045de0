"""Whose turn it is in plugins/s3-forward: one run at a time for an object, in whichever process."""

from __future__ import annotations

import asyncio
import importlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.integration.s3_forward.conftest import PLUGIN

HOLDER = """
import asyncio, sys
import s3turn

async def hold():
    async with s3turn.turn({}, "s3://b/k"):
        print("held", flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(hold())
"""


@pytest.fixture
def s3turn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The module, with a folder for temporary files of the test's own."""
    monkeypatch.syspath_prepend(str(PLUGIN))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return importlib.import_module("s3turn")


def ours(tmp_path: Path) -> Path:
    return tmp_path / f"upload-gateway-s3-forward-{os.geteuid()}"


def holder(tmp_path: Path) -> subprocess.Popen[bytes]:
    """Start a process that takes a turn and keeps it until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(PLUGIN)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


@pytest.mark.parametrize("killed", [False, True])
async def test_a_turn_is_waited_for_until_the_other_process_is_done_or_dead(
    s3turn: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, killed: bool
) -> None:
    entered = asyncio.Event()

    async def wait_for_it() -> None:
        async with s3turn.turn({}, "s3://b/k"):
            entered.set()

    with holder(tmp_path) as process:
        caplog.set_level("INFO")
        waiting = asyncio.create_task(wait_for_it())
        async with asyncio.timeout(30):
            while "locked by another process" not in caplog.text:
                await asyncio.sleep(0)  # the loop is free meanwhile
            async with s3turn.turn({}, "s3://b/other"):
                pass  # other objects are not held up
        assert not entered.is_set()
        if killed:
            process.kill()
        else:
            process.communicate()
        async with asyncio.timeout(30):
            await waiting
    assert list(ours(tmp_path).iterdir()) == []


async def test_many_runs_on_several_loops_take_turns_and_leave_nothing(
    s3turn: Any, tmp_path: Path
) -> None:
    inside: list[int] = []
    state: dict[str, Any] = {}

    async def run() -> None:
        for _ in range(5):
            async with s3turn.turn(state, "s3://b/k"):
                inside.append(1)
                assert len(inside) == 1
                await asyncio.sleep(0)
                inside.pop()

    async def runs() -> None:
        await asyncio.gather(run(), run(), run())

    async with asyncio.timeout(60):
        await asyncio.gather(*(asyncio.to_thread(asyncio.run, runs()) for _ in range(3)))
    assert list(ours(tmp_path).iterdir()) == []


async def test_a_turn_ends_whatever_its_run_raises_and_who_gives_up_waiting_takes_none(
    s3turn: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with pytest.raises(LookupError):
        async with s3turn.turn({}, "s3://b/k"):
            raise LookupError
    async with s3turn.turn({}, "s3://b/k"):
        waiting = asyncio.create_task(s3turn.turn({}, "s3://b/k").__aenter__())
        async with asyncio.timeout(30):
            while "locked by another process" not in caplog.text:
                await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert list(ours(tmp_path).iterdir()) == []


@pytest.mark.parametrize("what", ["others may write", "somebody else's", "a link"])
async def test_a_folder_that_others_can_write_in_is_not_used(
    s3turn: Any, tmp_path: Path, what: str
) -> None:
    folder = ours(tmp_path)
    if what == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to("elsewhere")
    else:
        folder.mkdir(mode=0o700)
    if what == "others may write":
        folder.chmod(0o770)
    if what == "somebody else's":
        if os.geteuid() != 0:
            pytest.skip("only root can give a folder away")
        os.chown(folder, 12345, 12345)
    with pytest.raises(OSError, match=r"open to other users|directory|symbolic"):
        async with s3turn.turn({}, "s3://b/k"):
            pass
    assert list((tmp_path / "elsewhere").glob("*")) + list(folder.iterdir()) == []


async def test_a_link_in_the_place_of_a_lock_is_not_followed(s3turn: Any, tmp_path: Path) -> None:
    async with s3turn.turn({}, "s3://b/k"):
        [file] = ours(tmp_path).iterdir()
        name = file.name
    (ours(tmp_path) / name).symlink_to(tmp_path / "made")
    with pytest.raises(OSError, match="symbolic"):
        async with s3turn.turn({}, "s3://b/k"):
            pass
    assert not (tmp_path / "made").exists()
