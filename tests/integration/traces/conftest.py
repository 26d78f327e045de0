"""Fixtures of the tests of traces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import StartProcess
from tests.support.harness import GatewayProcess
from tests.support.routing.scripted import write
from tests.support.traces import Collector, running_collector

StartTraced = Callable[..., GatewayProcess]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with running_collector() as collector:
        yield collector


@pytest.fixture(autouse=True)
def quick_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let spans be sent at once, and nothing of this machine choose otherwise."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    for name in ("OTEL_TRACES_SAMPLER", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def traced(gateway_process: StartProcess, collector: Collector, tmp_path: Path) -> StartTraced:
    """Start a gateway with these plugins that sends its spans: `traced(plugin, ..., flags=[...])`."""

    def start(
        *plugins: str, flags: tuple[str, ...] = (), url: str = "", die_at: str = ""
    ) -> GatewayProcess:
        loaded = ("--plugins", str(write(tmp_path / "plugins", *plugins))) if plugins else ()
        given = ("--otlp", url or collector.url, *loaded, *flags)
        return gateway_process(*given, die_at=die_at)

    return start
