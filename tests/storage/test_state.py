"""The state folder: private, one owner at a time, and free again however the owner ended."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.commands import main
from gateway.errors import ConfigError
from gateway.storage.state import OwnedError, State
from tests.conftest import Start
from tests.harness import put

PROJECT = Path(__file__).parent.parent.parent


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = State(tmp_path / "data" / ".gateway")
    opened.prepare()
    yield opened
    opened.unlock()


def test_the_folders_are_private_and_may_be_there_already(state: State) -> None:
    state.prepare()
    folders = [state.folder, state.incoming, state.folder / "slots"]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}
    state.sync()


def test_making_the_object_touches_nothing(tmp_path: Path) -> None:
    State(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told_with_advice(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="let the user of this process write"):
        State(tmp_path / "file" / ".gateway").prepare()


def test_a_second_owner_is_refused_and_told_who_the_first_is(state: State) -> None:
    state.lock()
    second = State(state.folder)
    with pytest.raises(OwnedError, match=rf"another gateway \(process {os.getpid()}\) serves"):
        second.lock()
    state.unlock()
    state.unlock()
    second.lock()
    second.unlock()


def test_each_slot_has_an_owner_of_its_own(state: State) -> None:
    state.lock()
    other = State(state.folder, 1)
    other.prepare()
    other.lock()
    other.unlock()
    assert {state.journal.name, other.journal.name} == {"journal-0.db", "journal-1.db"}


def test_the_death_of_the_owner_frees_the_lock(state: State) -> None:
    program = (
        "import pathlib, sys, time\n"
        "from gateway.storage.state import State\n"
        "state = State(pathlib.Path(sys.argv[1]))\n"
        "state.lock()\n"
        "print('locked', flush=True)\n"
        "time.sleep(60)\n"
    )
    words = [sys.executable, "-c", program, str(state.folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=PROJECT) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"locked\n"
        with pytest.raises(OwnedError, match=f"process {owner.pid}"):
            state.lock()
        owner.kill()
        owner.wait()
    state.lock()


def test_a_lock_that_nobody_can_take_is_not_told_as_an_owner(tmp_path: Path) -> None:
    state = State(tmp_path / "never prepared")
    with pytest.raises(ConfigError, match="cannot be locked") as caught:
        state.lock()
    assert not isinstance(caught.value, OwnedError)


def test_a_socket_far_down_gets_a_path_that_the_kernel_takes(tmp_path: Path) -> None:
    state = State(tmp_path / ("long" * 30) / ".gateway")
    state.prepare()
    assert len(str(state.socket)) > 108
    with state.short_socket_path() as path:
        assert len(path) < 108
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            server.bind(path)
            server.listen()
            client.connect(path)
    assert state.socket.is_socket()


async def test_the_command_line_reaches_a_server_far_down(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / ("long" * 30)
    gateway = await start(directory=str(directory))
    await put(gateway, "/upload/x")
    words = ["events", "list", "--json", "--directory", str(directory)]
    assert await asyncio.to_thread(main, words) == 0
    assert json.loads(capsys.readouterr().out) == []
