"""Gateways and workers as processes of their own, around one nats-server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support import PROJECT
from tests.support.harness import TIMEOUT


class WorkerProcess:
    """`gateway worker` in a process; `url` has its health and metrics.

    With `wait=False` the start returns at once.
    """

    def __init__(self, directory: Path, flags: Sequence[str], *, wait: bool = True) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.log_path = directory.parent / f"{directory.name}.log"
        self._log = self.log_path.open("ab")
        command = [sys.executable, "-m", "gateway", "worker", "--directory", str(directory)]
        command += ["--port", "0", "--grace", "5", *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, cwd=PROJECT)
        assert self.process.stdout is not None
        self.said = "" if not wait else self.process.stdout.readline().decode().strip()
        if wait and not self.said.startswith("working on "):
            self.kill()
            raise AssertionError(f"the worker did not start:\n{self.log_path.read_text()}")
        self.url = self.said.rpartition(" ")[2].removesuffix("/-/health")

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.rpartition("/")[2].rsplit(":", 1)
        return host, int(port)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def terminate(self) -> int:
        self.process.terminate()
        return self.process.wait(TIMEOUT)

    def kill(self) -> None:
        """SIGKILL, and wait; a second call does nothing."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(TIMEOUT)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()
