"""The start of `gateway serve`: what it says, and what a start that fails leaves."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import StartProcess
from tests.support import PROJECT
from tests.support.harness import put, write_plugin

BROKEN = "name: broken\nevent: APIGW.OnFileUploaded\nscript: |\n  def broken(\n"


def failed_start(*flags: str) -> str:
    command = [sys.executable, "-m", "gateway", "serve", *flags]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, timeout=60, check=False)
    assert done.returncode == 2
    return done.stderr


@pytest.mark.parametrize(
    ("reason", "processes"),
    [("port", "1"), ("port", "2"), ("plugin", "1"), ("plugin", "2"), ("storage", "1")],
)
def test_a_start_that_fails_leaves_nothing_where_nothing_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str, processes: str
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))  # no profile
    folder = write_plugin(tmp_path / "plugins", BROKEN)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        flags = {
            "port": ("--port", port),
            "plugin": ("--port", "0", "--plugins", str(folder)),
            "storage": ("--port", "0", "--storage", "s3://bucket"),
        }[reason]
        (tmp_path / "old").mkdir()
        for directory in ("new/data", "old"):
            where = ("--directory", str(tmp_path / directory))
            failed_start(*where, *flags, "--processes", processes, "--auth", "token")
    assert list((tmp_path / "old").iterdir()) == []
    assert not (tmp_path / "new").exists()


def test_a_start_that_fails_keeps_the_state_of_an_earlier_one(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    with gateway_process() as process:
        process.terminate()
        state = process.directory / ".gateway"
        before = sorted(path.name for path in state.iterdir())
    folder = write_plugin(tmp_path / "plugins", BROKEN)
    failed_start("--directory", str(process.directory), "--port", "0", "--plugins", str(folder))
    assert sorted(path.name for path in state.iterdir()) == before


def test_the_first_lines_say_where_files_go_and_where_they_are_uploaded(
    gateway_process: StartProcess,
) -> None:
    with gateway_process("--file-upload-api-path", "/up/{team}/{filename}") as process:
        log = process.log()
        assert f"open {process.url}/ in a browser" in log
        assert f"files: {process.directory}" in log
        assert f"uploads: {process.url}/up/<team>/<name>" in log
        assert log.index("files: ") < log.index("uploads: ") < log.index("anyone on this machine")


def test_without_pages_no_browser_is_named(gateway_process: StartProcess) -> None:
    with gateway_process("--web=off") as process:
        assert "in a browser" not in process.log()


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_service_manager_is_told_when_the_gateway_listens(
    gateway_process: StartProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: str
) -> None:
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(address))
        with gateway_process("--processes", processes, forked=False) as process:
            assert manager.recv(1000).decode() == f"READY=1\nSTATUS=listening on {process.url}"


async def test_requests_of_the_command_line_are_logged_for_debugging_only(
    gateway_process: StartProcess,
) -> None:
    command = [sys.executable, "-m", "gateway", "events", "list", "--directory"]
    for level, logged in (("info", False), ("debug", True)):
        with gateway_process("--log-level", level) as process:
            assert (await put(process, "/upload/x", b"12345")).status in {200, 201}
            listed = [*command, str(process.directory)]
            await asyncio.to_thread(subprocess.run, listed, check=True, capture_output=True, cwd=PROJECT)
            process.terminate()
            lines = [json.loads(line) for line in process.log().splitlines()]
            requests = [line for line in lines if line.get("event") == "request.answered"]
            assert any(line["path"].startswith("/-/events") for line in requests) == logged
            (stored,) = [line for line in requests if line["method"] == "PUT"][-1:]
            assert (stored["bytes"], stored["status"] in {200, 201}) == (5, True)
