"""Recorders: handlers written by a test, their events, the lines of the log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.model import UPLOADING
from gateway.telemetry.log_output import JsonFormatter
from tests.support.harness import TIMEOUT, write_plugin

FAILING = """
name: failing
event: APIGW.OnFileUploaded
retry: {attempts: 2, backoff: 0.001}
script: |
  async def failing(event, handle):
      raise RuntimeError("no luck\\nwith the second line")
"""
"""A handler that fails twice and is dead then."""


def write_handler(
    folder: Path, body: str, *, name: str = "hook", event: str = UPLOADING, more: str = ""
) -> list[str]:
    """Write a handler with this body as `<name>.yaml`; return the value of `plugins=`."""
    script = textwrap.indent(textwrap.dedent(body).strip("\n"), "      ")
    head = f"name: {name}\nevent: {event}\n{more}script: |\n  async def {name}(event, handle):\n"
    return [str(write_plugin(folder, f"{head}{script}\n", f"{name}.yaml"))]


class EventRecorder:
    """Receives, over a datagram socket, the events of the handlers that it wrote."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)

    def write_handler(self, folder: Path, event: str, name: str) -> list[str]:
        """Write a handler that sends this recorder its event and its own `name`."""
        port = self._socket.getsockname()[1]
        body = f"""
            import socket
            text = json.dumps({{"handler": "{name}", "event": event}})
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(text.encode(), ("127.0.0.1", {port}))
        """
        return write_handler(folder, body, name=name, event=event)

    async def next_event(self) -> tuple[str, dict[str, Any]]:
        """Wait for the next event; return the handler's name and the event."""
        async with asyncio.timeout(TIMEOUT):
            message = json.loads(await asyncio.get_running_loop().sock_recv(self._socket, 65536))
        return message["handler"], message["event"]

    def is_empty(self) -> bool:
        """Return whether no event waits."""
        try:
            self._socket.recv(65536, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def recording_events() -> Iterator[EventRecorder]:
    """Open a recorder."""
    recorder = EventRecorder()
    try:
        yield recorder
    finally:
        recorder.close()


@pytest.fixture
def recorder() -> Iterator[EventRecorder]:
    with recording_events() as opened:
        yield opened


class _LogCollector(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))


@contextlib.contextmanager
def captured_log(level: int = logging.INFO) -> Iterator[list[dict[str, Any]]]:
    """Collect the gateway's log as an operator's tools see it: one dict a line."""
    logger, collector = logging.getLogger("gateway"), _LogCollector()
    before = logger.level
    logger.setLevel(level)
    logger.addHandler(collector)
    try:
        yield collector.lines
    finally:
        logger.removeHandler(collector)
        logger.setLevel(before)
