"""Fixtures that every test may use: gateways inside the test's own loop, and real ones outside."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import uvloop

from gateway.server.app import Gateway, running_gateway
from gateway.server.resources import open_resources
from gateway.settings import load
from tests.support import TESTS
from tests.support.harness import GatewayProcess
from tests.support.s3.servers import Rclone, SeaweedFS

StartGateway = Callable[..., Awaitable[Gateway]]
StartProcess = Callable[..., GatewayProcess]
LOGGERS = (logging.getLogger(), logging.getLogger("gateway"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts us in the background ignores Ctrl-C, and what we start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more of the machine than of the code. scripts/check takes "gate".
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.register_profile("gate", deadline=None, max_examples=20)
hypothesis.settings.load_profile("project")


YOUNG_OBJECTS = 10_000
"""New objects after which the garbage collector runs."""


def pytest_collection_finish() -> None:
    """Never search the collected tests for garbage: that took 40 % of the time of the contract tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts servers: everything but `tests/unit`."""
    for item in items:
        if TESTS / "unit" not in item.path.parents:
            item.add_marker("integration")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is marked `both_paths` with gateways that have the short path, and with others."""
    if metafunc.definition.get_closest_marker("both_paths") is not None:
        metafunc.fixturenames.append("short_path")
        metafunc.parametrize("short_path", [True, False], ids=["short path", "ordinary path"])


@pytest.fixture
def short_path() -> bool:
    """Whether the gateways of a test serve whole small requests on the short path."""
    return True


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Test on the loop that `gateway serve` runs."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def isolated_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("UPLOAD_GATEWAY_", "AWS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    before = [(logger, logger.handlers[:], logger.propagate, logger.level) for logger in LOGGERS]
    yield
    for logger, handlers, propagate, level in before:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture
async def start_gateway(tmp_path: Path, short_path: bool) -> AsyncIterator[StartGateway]:
    """Start gateways in this process on real sockets: `await start_gateway(auth="none")`."""
    async with contextlib.AsyncExitStack() as running:

        async def start_one(**values: object) -> Gateway:
            given = {"directory": str(tmp_path / "data"), "port": "0", "grace": "5", **values}
            given.setdefault("short_path", str(short_path).lower())
            Path(str(given["directory"])).mkdir(exist_ok=True)
            # Blocking, and with a loop of its own where it asks S3.
            resources = await asyncio.to_thread(open_resources, load(given, {}))
            return await running.enter_async_context(running_gateway(resources))

        yield start_one


@pytest.fixture
def gateway_process(tmp_path: Path, short_path: bool) -> Iterator[StartProcess]:
    """Start gateways as processes of their own, to be killed: `gateway_process("--flag", "value")`."""
    running: list[GatewayProcess] = []

    def start_one(
        *flags: str, directory: Path | None = None, die_at: str = "", forked: bool = True
    ) -> GatewayProcess:
        switch = () if short_path else ("--short-path=false",)
        folder = directory or tmp_path / "data"
        process = GatewayProcess(folder, (*switch, *flags), die_at, forked=forked)
        running.append(process)
        return process

    yield start_one
    for process in running:
        process.kill()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """A SeaweedFS for everybody: take a bucket of your own."""
    with SeaweedFS(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rclone]:
    """An `rclone serve s3` for everybody: it forgets metadata and knows no preconditions."""
    with Rclone(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture
def bucket() -> str:
    """The name of a bucket that is not there."""
    return f"bucket-{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def s3_storage(s3: SeaweedFS, bucket: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket for `--storage`: `s3://bucket/a prefix`. The environment names server and keys."""
    await s3.make(bucket)
    s3.set_environment(monkeypatch)
    return f"s3://{bucket}/a prefix"
