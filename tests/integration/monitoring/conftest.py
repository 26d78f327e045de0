"""What tests of the log and of metrics need: gateways whose lines are read as they are written."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import StartProcess
from tests.support.harness import GatewayProcess, complete_lines, wait_until

Line = dict[str, Any]


class LoggingGateway:
    """A gateway and the lines of its log."""

    def __init__(self, process: GatewayProcess) -> None:
        self.process = process

    def lines(self, event: str = "request.") -> list[Line]:
        """Return the lines whose event word begins so."""
        lines = [json.loads(line) for line in complete_lines(self.process.log_path)]
        return [line for line in lines if str(line.get("event", "")).startswith(event)]

    async def line(self, path: str, method: str | None = None) -> Line:
        """Wait for the line of the only request of a path, with a method if one is given."""

        def find() -> list[Line]:
            lines = [line for line in self.lines() if line["path"] == path]
            return lines if method is None else [line for line in lines if line["method"] == method]

        lines: list[Line] = await wait_until(find)
        [line] = lines
        return line


StartLogging = Callable[..., LoggingGateway]


@pytest.fixture
def logging_gateway(gateway_process: StartProcess) -> StartLogging:
    """Start a gateway that logs JSON: `logging_gateway("--flag", "value")`."""

    def start(*flags: str) -> LoggingGateway:
        return LoggingGateway(gateway_process("--log-format", "json", *flags))

    return start
