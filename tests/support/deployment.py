"""An installation of real processes that die and come back: gateways, workers, three NATS servers.

Its handlers write a line at the end of each complete run, wherever it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from tests.support.harness import GatewayProcess, complete_lines, files_below, write_plugin
from tests.support.nats.processes import WorkerProcess
from tests.support.nats.servers import Cluster, cluster_of_three
from tests.support.ports import reserved_ports

HANDLERS: Final = ("notes", "reads")
LEASE: Final = 2.0
PLUGIN: Final = """\
name: {name}
event: APIGW.OnFileUploaded
retry: {{attempts: 100, backoff: 0.2, max_backoff: 1}}
concurrency: 8
script: |
  import os
  async def {name}(event, handle):
      {work}
      line = f"{{event['path']}} {{event['attempt']}} {{body}}\\n".encode()
      to = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
      os.write(to, line)
      os.close(to)
"""

WORK: Final = {
    "notes": 'await asyncio.sleep(0.03); body = event["bytes"]',
    "reads": "async with files.open(event) as reader: body = len(await reader.read())",
}


class Restartable(Protocol):
    """A process of the installation."""

    def start(self) -> None:
        """Start it (again) and wait until it says so. Blocking."""

    def kill(self) -> None:
        """SIGKILL it."""


class RestartableGateway:
    """A gateway. With a `port` it comes back at its old address."""

    def __init__(self, directory: Path, flags: list[str], port: int = 0) -> None:
        self.directory = directory
        self._flags = [*flags, "--port", str(port)]
        self.process: GatewayProcess | None = None

    def start(self) -> None:
        self.process = GatewayProcess(self.directory, self._flags)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()


class RestartableWorker:
    """A worker. A hasty one is not waited for: it says nothing before it has reached NATS."""

    def __init__(self, directory: Path, flags: list[str], *, hasty: bool = True) -> None:
        self._directory = directory
        self._flags = flags
        self._hasty = hasty
        self.process: WorkerProcess | None = None

    def start(self) -> None:
        self.process = WorkerProcess(self._directory, self._flags, hasty=self._hasty)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()


# -- the installation


@dataclass
class Deployment:
    """Gateways, workers, three NATS servers, and what their handlers wrote."""

    folder: Path
    nats: Cluster
    gateways: list[RestartableGateway]
    workers: list[RestartableWorker]

    def lines(self, handler: str) -> list[str]:
        """The lines of all complete runs."""
        return complete_lines(self.folder / f"{handler}.log")

    def stored(self) -> dict[str, bytes]:
        """The files that are to be seen in all gateways, by path."""
        return {
            f"/{name}": body
            for gateway in self.gateways
            for name, body in files_below(gateway.directory).items()
            if name.startswith("upload/")
        }


@contextlib.contextmanager
def deployment(folder: Path, gateways: int = 2, workers: int = 2) -> Iterator[Deployment]:
    """Run an installation. Whatever was killed meanwhile, nothing of it is left in the end."""
    for name in HANDLERS:
        text = PLUGIN.format(name=name, work=WORK[name], log=str(folder / f"{name}.log"))
        write_plugin(folder / "plugins", text, f"{name}.yaml")
    key = folder / "installation.key"
    key.write_text("a key for the time of a test, forty characters long\n")
    key.chmod(0o600)
    with cluster_of_three(folder / "nats") as nats, reserved_ports(gateways) as ports:
        flags = ["--events", nats.url, "--plugins", str(folder / "plugins")]
        flags += ["--installation-key-file", str(key), "--events-lease", str(LEASE)]
        all_gateways = [
            RestartableGateway(folder / f"gateway-{n}", flags, port) for n, port in enumerate(ports)
        ]
        all_workers = [RestartableWorker(folder / f"worker-{n}", flags) for n in range(workers)]
        members: list[Restartable] = [*all_gateways, *all_workers]
        try:
            for member in members:
                member.start()
            yield Deployment(folder, nats, all_gateways, all_workers)
        finally:
            for member in members:
                member.kill()
