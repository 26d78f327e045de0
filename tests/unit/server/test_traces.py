"""`--otlp` without OpenTelemetry, and a gateway without `--otlp`."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.server.traces import open_traces
from gateway.settings import load
from gateway.telemetry import tracing
from tests.support import PROJECT

URL = "http://127.0.0.1:9"


def test_without_the_extra_the_start_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "gateway.telemetry.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.setitem(sys.modules, "opentelemetry.context", None)
    settings = load({"directory": str(tmp_path), "otlp": URL}, {})
    with ExitStack() as stack, pytest.raises(ConfigError, match=r"run pip install '\.\[otel\]'"):
        open_traces(settings, "here:1", 0, str, stack)
    assert not tracing.is_on()


def test_traces_are_on_until_the_resources_are_closed(tmp_path: Path) -> None:
    settings = load({"directory": str(tmp_path), "otlp": URL}, {})
    with ExitStack() as stack:
        open_traces(settings, "here:1", 0, str, stack)
        assert tracing.is_on()
    assert not tracing.is_on()


@pytest.mark.parametrize("url", ["collector:4318", "http://user:secret@host:4318", "grpc://host:4317"])
def test_a_url_that_is_no_base_url_is_refused_without_being_quoted(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="--otlp") as refused:
        load({"directory": str(tmp_path), "otlp": url}, {})
    assert "secret" not in str(refused.value)


def test_without_otlp_nothing_of_opentelemetry_is_imported(tmp_path: Path) -> None:
    program = (
        "import sys, gateway.cli.serve, gateway.cli.worker\n"
        "from gateway.server.resources import open_resources\n"
        "from gateway.settings import load\n"
        f"open_resources(load({{'directory': {str(tmp_path)!r}, 'port': '0'}}, {{}})).close()\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=PROJECT
    )
    assert done.stdout == "[]\n", done.stderr
