"""The clients of `examples/clients`: each goes on after a lost connection and a killed gateway."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support import PROJECT
from tests.support.cutting_relay import CuttingRelay, cutting_relay
from tests.support.harness import GatewayProcess, files_below

pytestmark = pytest.mark.integration

CLIENTS = PROJECT / "examples" / "clients"
SIZE = 20_000_000
CUTS = (3_000_000, 6_000_000)

COMMANDS = {
    "shell": ("sh", str(CLIENTS / "upload.sh")),
    "python": (sys.executable, str(CLIENTS / "upload.py")),
    "javascript": (str(shutil.which("node")), str(CLIENTS / "upload.mjs")),
}


async def run(command: Sequence[str], file: Path, url: str) -> tuple[int, str, str]:
    """Run a client to its end; return its exit status and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *command, file.name, url, cwd=file.parent,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "UPLOAD_TOKEN": "a token"},
    )  # fmt: skip
    try:
        output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    folder = tmp_path / "client"
    folder.mkdir()
    made = folder / "a film.bin"
    made.write_bytes(os.urandom(SIZE))
    return made


@pytest.mark.parametrize("client", COMMANDS)
async def test_a_client_goes_on_after_a_cut_and_a_killed_gateway(
    client: str, file: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "data"
    async with cutting_relay(CUTS) as relay:
        flags = ["--public-url", relay.url]
        gateway = await asyncio.to_thread(GatewayProcess, directory, flags)
        relay.target = gateway.address
        running = asyncio.create_task(run(COMMANDS[client], file, f"{relay.url}/upload/film.bin"))
        try:
            for _ in CUTS:
                gateway = await _killed_and_started(relay, gateway, flags)
            status, output, errors = await running
        finally:
            running.cancel()
            gateway.kill()
    assert status == 0, errors
    assert "/upload/film.bin" in output, errors
    assert errors.count("interrupted") >= 2 or client == "javascript", errors
    assert files_below(directory / "upload") == {"film.bin": file.read_bytes()}
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert not list((directory / ".gateway" / "partials").glob("*.json"))


async def _killed_and_started(
    relay: CuttingRelay, gateway: GatewayProcess, flags: list[str]
) -> GatewayProcess:
    async with asyncio.timeout(60):
        await relay.cut.wait()
    relay.cut.clear()
    relay.target = None
    gateway.kill()
    again = await asyncio.to_thread(GatewayProcess, gateway.directory, flags)
    relay.target = again.address
    return again


@pytest.mark.parametrize("client", COMMANDS)
async def test_a_client_tells_why_it_is_refused_and_ends(
    client: str, file: Path, tmp_path: Path
) -> None:
    flags = ["--auth", "token", "--tokens", f"someone:{'0' * 64}"]
    with GatewayProcess(tmp_path / "data", flags) as gateway:
        status, output, errors = await run(COMMANDS[client], file, f"{gateway.url}/upload/film.bin")
    assert status == 1
    assert "token" in output + errors
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("client", COMMANDS)
async def test_a_file_of_no_bytes_is_stored_too(client: str, file: Path, tmp_path: Path) -> None:
    file.write_bytes(b"")
    with GatewayProcess(tmp_path / "data", []) as gateway:
        status, _, errors = await run(COMMANDS[client], file, f"{gateway.url}/upload/film.bin")
        assert status == 0, errors
        assert files_below(gateway.directory / "upload") == {"film.bin": b""}


@pytest.mark.parametrize("client", COMMANDS)
async def test_a_client_does_not_try_for_ever_where_the_name_is_taken(
    client: str, file: Path, tmp_path: Path
) -> None:
    with GatewayProcess(tmp_path / "data", ["--on-conflict", "reject"]) as gateway:
        taken = gateway.directory / "upload" / "film.bin"
        taken.parent.mkdir()
        taken.write_bytes(b"older")
        status, output, errors = await run(COMMANDS[client], file, f"{gateway.url}/upload/film.bin")
        assert status == 1, output
        assert "exists" in errors
        assert taken.read_bytes() == b"older"
        assert not list((gateway.directory / ".gateway" / "partials").glob("*.json"))
