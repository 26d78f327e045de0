"""Real nats-servers for tests: one, or three as a cluster on loopback; killed and started again.

They sync before they say yes, and keep what they know below a folder of the test.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.ports import reserved_ports

SECONDS = 60.0
"""Patience with a start or an election on a busy machine."""

BINARY = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or "nats-server"


@dataclass
class Server:
    """One nats-server. `routes` are the cluster ports of all, its own included."""

    folder: Path
    name: str
    port: int
    monitor: int
    cluster_port: int = 0
    routes: Sequence[int] = ()
    extra: str = ""
    sync: str = "always"
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def configuration(self) -> str:
        lines = [
            f"server_name: {self.name}",
            f"listen: 127.0.0.1:{self.port}",
            f"http: 127.0.0.1:{self.monitor}",
            f'jetstream {{ store_dir: "{self.folder}", sync_interval: {self.sync}, max_mem: 64M }}',
            self.extra,
        ]
        if self.routes:
            routes = ", ".join(f"nats://127.0.0.1:{port}" for port in self.routes)
            lines.append(
                f"cluster {{ name: tests, listen: 127.0.0.1:{self.cluster_port}, routes: [{routes}] }}"
            )
        return "\n".join(lines)

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        written = self.folder / "server.conf"
        written.write_text(self.configuration())
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen([BINARY, "-c", str(written)], stdout=log, stderr=log)
        self.wait_until(self._healthy)

    def kill(self) -> None:
        """SIGKILL, and wait; a second call does nothing."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(SECONDS)
            self.process = None

    def stop(self) -> None:
        """SIGTERM, and wait: the server leaves its cluster in order."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(SECONDS)
            self.process = None

    def ask(self, path: str) -> dict[str, Any]:
        """Ask the monitoring port."""
        connection = http.client.HTTPConnection("127.0.0.1", self.monitor, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response: dict[str, Any] = json.loads(connection.getresponse().read())
            return response

    def _healthy(self) -> bool:
        # In a cluster the others may be down: what must answer is this process alone. Its monitoring
        # port may answer before it listens for clients.
        socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        return bool(self.ask("/varz").get("server_id"))

    def wait_until(self, happens: Any) -> None:
        """Wait until `happens()` is true. Asking is the only sign there is."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                if happens():
                    return
            if self.process is not None and self.process.poll() is not None:
                break
            time.sleep(0.02)
        log = (self.folder / "server.log").read_text(errors="replace")
        raise AssertionError(f"nats-server {self.name} does not get there:\n{log[-3000:]}")

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"


@dataclass
class Cluster:
    """Three servers."""

    servers: list[Server]
    started: int = 3

    def start(self) -> None:
        for server in self.servers[: self.started]:
            server.start()
        self.wait_formed()

    def wait_formed(self) -> None:
        """Wait until JetStream has a leader and every server is current."""

        def formed() -> bool:
            meta = self._leader().ask("/jsz")["meta_cluster"]
            current = [one for one in meta.get("replicas", ()) if one.get("current")]
            return int(meta.get("cluster_size", 0)) == self.started == len(current) + 1

        self.servers[0].wait_until(formed)

    def _leader(self) -> Server:
        """Return the server that leads JetStream. Raises `ValueError` while there is none."""
        name = (self.servers[0].ask("/jsz").get("meta_cluster") or {}).get("leader")
        for server in self.servers:
            if server.name == name:
                return server
        raise ValueError("there is no leader")

    def follower(self) -> Server:
        """Return a server whose end costs no election."""
        return next(one for one in reversed(self.servers) if one is not self._leader())

    def leader_of(self, stream: str) -> Server:
        """Return the server that leads a stream."""
        response = self.servers[0].ask("/jsz?streams=true")
        for account in response.get("account_details", ()):
            for one in account.get("stream_detail", ()):
                if one["name"] == stream:
                    return next(s for s in self.servers if s.name == one["cluster"]["leader"])
        raise AssertionError(f"no server has {stream}")

    def kill(self) -> None:
        for server in self.servers:
            server.kill()

    @property
    def url(self) -> str:
        return "nats://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)


@contextlib.contextmanager
def single(folder: Path, **values: Any) -> Iterator[Server]:
    """Run one server."""
    with reserved_ports(2) as (port, monitor):
        server = Server(folder, "n0", port, monitor, **values)
        try:
            server.start()
            yield server
        finally:
            server.kill()


@contextlib.contextmanager
def cluster_of_three(folder: Path, started: int = 3) -> Iterator[Cluster]:
    """Run three servers that know each other; with `started`, only the first ones, without the rest."""
    with reserved_ports(9) as ports:
        routes = ports[6:]
        cluster = Cluster(
            [
                Server(
                    folder / f"n{i}",
                    f"n{i}",
                    ports[i],
                    ports[3 + i],
                    routes[i],
                    routes[: max(started, i + 1)],
                )
                for i in range(3)
            ],
            started,
        )
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.kill()
