"""The state folder: private, one owner at a time, and free again however the owner ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.errors import ConfigError
from gateway.storage.local import state_dir
from gateway.storage.local.state_dir import LockHeldError, StateDirectory, directory_lock, existing_slots
from tests.conftest import StartGateway
from tests.support import PROJECT
from tests.support.harness import put


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDirectory]:
    opened = StateDirectory(tmp_path / "data" / ".gateway")
    opened.prepare()
    yield opened
    opened.lock.release()


def test_the_folders_are_private_and_may_be_there_already(state: StateDirectory) -> None:
    state.prepare()
    folders = [state.folder, state.incoming, state.folder / "slots"]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}
    state.sync()


def test_the_owner_of_a_lock_reads_as_a_whole_pid_also_while_it_changes(
    state: StateDirectory,
) -> None:
    file, done, read = state.folder / "slots" / "0", threading.Event(), set[str]()

    def watch() -> None:
        while not done.is_set() or not read:
            read.add(file.read_text().rstrip("\n"))

    state.lock.acquire()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(5_000):
            state.lock.release()
            state.lock.acquire()
    finally:
        done.set()
        watcher.join()
    assert read == {str(os.getpid())}


def test_a_directory_that_is_made_at_the_start_is_synced_into_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, real = [], os.fsync

    def fsync(fd: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    state = StateDirectory(tmp_path / "new/data/.gateway")
    state.prepare()
    assert set(synced) == {tmp_path, tmp_path / "new"}
    state.prepare()
    assert len(synced) == 2


def test_making_the_object_touches_nothing(tmp_path: Path) -> None:
    StateDirectory(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_created_is_a_config_error_with_advice(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="let the user of this process write"):
        StateDirectory(tmp_path / "file" / ".gateway").prepare()


def test_a_second_owner_is_refused_with_the_pid_of_the_first(state: StateDirectory) -> None:
    state.lock.acquire()
    second = StateDirectory(state.folder)
    with pytest.raises(LockHeldError, match=rf"another gateway \(process {os.getpid()}\) serves"):
        second.lock.acquire()
    state.lock.release()
    state.lock.release()
    second.lock.acquire()
    second.lock.release()


def test_each_slot_has_an_owner_of_its_own(state: StateDirectory) -> None:
    state.lock.acquire()
    other = StateDirectory(state.folder, 1)
    other.prepare()
    other.lock.acquire()
    other.lock.release()
    assert {state.journal.name, other.journal.name} == {"journal-0.db", "journal-1.db"}


def test_the_lock_of_the_directory_is_apart_from_those_of_the_slots(state: StateDirectory) -> None:
    state.lock.acquire()
    whole = directory_lock(state.folder)
    whole.acquire()
    with pytest.raises(LockHeldError, match=f"process {os.getpid()}"):
        directory_lock(state.folder).acquire()
    whole.release()


def test_a_busy_lock_is_waited_for(state: StateDirectory) -> None:
    state.lock.acquire()
    second, freed = StateDirectory(state.folder), threading.Timer(0.1, state.lock.release)
    freed.start()
    second.lock.acquire(timeout=30)
    second.lock.release()
    freed.join()


def test_a_lock_that_outlives_its_owner_is_waited_for_until_the_children_have_died(
    state: StateDirectory,
) -> None:
    program = (
        "import os, pathlib, sys, time\n"
        "from gateway.storage.local.state_dir import directory_lock\n"
        "directory_lock(pathlib.Path(sys.argv[1])).acquire()\n"
        "parent = os.getpid()\n"
        "if os.fork() == 0:\n"
        "    while os.getppid() == parent: time.sleep(0.01)\n"
        "    time.sleep(0.2)\n"
        "else:\n"
        "    print('locked', flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    words = [sys.executable, "-c", program, str(state.folder)]
    subprocess.run(words, stdout=subprocess.DEVNULL, cwd=PROJECT, check=False)
    lock = directory_lock(state.folder)
    lock.acquire()
    lock.release()


def test_the_message_names_the_process_that_still_holds_the_lock_of_a_dead_owner(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import os, pathlib, sys, time\n"
        "from gateway.storage.local.state_dir import directory_lock\n"
        "directory_lock(pathlib.Path(sys.argv[1])).acquire()\n"
        "owner = os.getpid()\n"
        "if child := os.fork():\n"
        "    print(owner, child, flush=True)\n"
        "else:\n"
        "    time.sleep(60)\n"
    )
    monkeypatch.setattr(state_dir, "DEAD_OWNER_TIMEOUT", 0.0)
    words = [sys.executable, "-c", program, str(state.folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=PROJECT) as owner:
        assert owner.stdout is not None
        dead, child = map(int, owner.stdout.readline().split())
        owner.wait()
        try:
            with pytest.raises(LockHeldError) as caught:
                directory_lock(state.folder).acquire()
        finally:
            os.kill(child, signal.SIGKILL)
    assert f"process {child} (`{sys.executable} -c import os" in str(caught.value)
    assert f"(process {dead}): end it with `kill {child}`" in str(caught.value)


def test_slots_are_known_by_their_journals(state: StateDirectory) -> None:
    assert existing_slots(state.folder) == []
    for name in ("journal-0.db", "journal-0.db-wal", "journal-12.db", "journal-x.db", "leaving-3.db"):
        (state.folder / name).touch()
    assert existing_slots(state.folder) == [0, 12]


def test_the_death_of_the_owner_frees_the_lock(state: StateDirectory) -> None:
    program = (
        "import pathlib, sys, time\n"
        "from gateway.storage.local.state_dir import StateDirectory\n"
        "state = StateDirectory(pathlib.Path(sys.argv[1]))\n"
        "state.lock.acquire()\n"
        "print('locked', flush=True)\n"
        "time.sleep(60)\n"
    )
    words = [sys.executable, "-c", program, str(state.folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=PROJECT) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"locked\n"
        with pytest.raises(LockHeldError, match=f"process {owner.pid}"):
            state.lock.acquire()
        owner.kill()
        owner.wait()
    state.lock.acquire()


def test_a_lock_that_cannot_be_held_is_not_reported_as_held(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "never prepared")
    with pytest.raises(ConfigError, match="cannot be locked") as caught:
        state.lock.acquire()
    assert not isinstance(caught.value, LockHeldError)


def test_a_socket_in_a_deep_folder_gets_a_path_that_the_kernel_takes(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / ("long" * 30) / ".gateway")
    state.prepare()
    assert len(str(state.socket)) > 108
    with state.short_socket_path() as path:
        assert len(path) < 108
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            server.bind(path)
            server.listen()
            client.connect(path)
    assert state.socket.is_socket()


async def test_the_command_line_reaches_a_server_in_a_deep_folder(
    start_gateway: StartGateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / ("long" * 30)
    gateway = await start_gateway(directory=str(directory))
    await put(gateway, "/upload/x")
    words = ["events", "list", "--json", "--directory", str(directory)]
    assert await asyncio.to_thread(main, words) == 0
    assert json.loads(capsys.readouterr().out) == []
