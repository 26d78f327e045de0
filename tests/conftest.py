"""Fixtures that every test may use: gateways inside the test's own loop, and real ones outside."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import uvloop

from gateway.app import Gateway
from gateway.settings import load
from tests.harness import Outside

Start = Callable[..., Awaitable[Gateway]]
LOGGERS = (logging.getLogger(), logging.getLogger("gateway"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Whoever started us in the background made us deaf to Ctrl-C, and what we start would be too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more of the machine than of the code.
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.load_profile("project")


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Test on the loop that `gateway serve` runs."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("UPLOAD_GATEWAY_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def the_log_is_left_as_it_was() -> Iterator[None]:
    before = [(logger, logger.handlers[:], logger.propagate, logger.level) for logger in LOGGERS]
    yield
    for logger, handlers, propagate, level in before:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


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
