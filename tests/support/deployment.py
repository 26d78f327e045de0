"""A deployment of real processes that are killed and started again: gateways, workers, NATS servers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from tests.support.harness import GatewayProcess, files_below
from tests.support.nats.processes import WorkerProcess
from tests.support.nats.servers import Cluster, cluster_of_three
from tests.support.ports import reserved_ports
from tests.support.promise import READ, RunRecorder

LEASE: Final = 2.0
"""Seconds of a delivery's lease."""

WORK: Final = {"notes": "await asyncio.sleep(0.03)", "reads": READ}
"""What the handlers do, by their names."""


class Restartable(Protocol):
    """A process of the deployment."""

    def start(self) -> None:
        """Start it (again) and wait until it is ready. Blocking."""

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
    """A worker. It prints nothing before it has reached NATS, so `wait=False` does not wait for it."""

    def __init__(self, directory: Path, flags: list[str], *, wait: bool = False) -> None:
        self._directory = directory
        self._flags = flags
        self._wait = wait
        self.process: WorkerProcess | None = None

    def start(self) -> None:
        self.process = WorkerProcess(self._directory, self._flags, wait=self._wait)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()


# -- the deployment


@dataclass
class Deployment:
    """Gateways, workers, three NATS servers, and the runs of their handlers."""

    folder: Path
    nats: Cluster
    gateways: list[RestartableGateway]
    workers: list[RestartableWorker]
    recorders: list[RunRecorder]

    def stored(self) -> dict[str, bytes]:
        """The uploaded files of all gateways, by name."""
        return {
            name.removeprefix("upload/"): body
            for gateway in self.gateways
            for name, body in files_below(gateway.directory).items()
            if name.startswith("upload/")
        }


@contextlib.contextmanager
def deployment(folder: Path, gateways: int = 2, workers: int = 2) -> Iterator[Deployment]:
    """Run a deployment. Nothing of it is left in the end, whatever was killed meanwhile."""
    retry = "{attempts: 100, backoff: 0.2, max_backoff: 1}"
    recorders = [
        RunRecorder(folder, name, work=work, retry=retry, more="concurrency: 8\n")
        for name, work in WORK.items()
    ]
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
            yield Deployment(folder, nats, all_gateways, all_workers, recorders)
        finally:
            for member in members:
                member.kill()
