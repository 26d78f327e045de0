"""Fixtures that every test may use: gateways inside the test's own loop, and real ones outside."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from gateway.app import Gateway
from gateway.settings import load
from tests.harness import Outside

Start = Callable[..., Awaitable[Gateway]]


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("UPLOAD_GATEWAY_"):
            monkeypatch.delenv(name)


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start gateways in this process on real sockets: `await start(auth="none", plugins=[...])`."""
    running: list[Gateway] = []

    async def start_one(**values: object) -> Gateway:
        given = {"directory": str(tmp_path / "data"), "port": "0", "grace": "5", **values}
        Path(str(given["directory"])).mkdir(exist_ok=True)
        gateway = Gateway(load(given, {}))
        gateway.prepare()
        await gateway.start()
        running.append(gateway)
        return gateway

    yield start_one
    for gateway in running:
        await gateway.stop()


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Callable[..., Outside]]:
    """Start gateways as processes of their own, to be killed: `outside("--flag", "value")`."""
    running: list[Outside] = []

    def start_one(*flags: str, directory: Path | None = None, die_at: str = "") -> Outside:
        process = Outside(directory or tmp_path / "data", flags, die_at)
        running.append(process)
        return process

    yield start_one
    for process in running:
        process.kill()
