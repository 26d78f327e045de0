"""Bench of uploads to a bucket: `python -m bench.s3`, beside the usual clients.

One large file goes to a real S3 server on this machine: through the gateway (curl sends it, the gateway
streams it on), by `rclone copyto` and by `aws s3 cp`, in turns. The stored object is read back and
compared before a figure counts. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.samples import BenchError, NotInstalledError, Spread
from tests.support.ports import free_ports

MIB: Final = 1 << 20
KEY, SECRET, REGION, BUCKET = "AKIDBENCH", "SECRETBENCH1234", "us-east-1", "bench"
OURS: Final = "gateway"
RCLONE: Final = "rclone copyto"
AWS: Final = "aws s3 cp"
START_TIMEOUT: Final = 60.0
GRPC_OFFSET: Final = 10_000
"""SeaweedFS listens on a second port, so much above each of its own."""

GOAL_MIB: Final = 120
"""The most that a gateway may have resident while files go through it."""


def program(name: str) -> str:
    """Return a program of this environment. Raises `NotInstalledError`."""
    match = Path(sys.executable).with_name(name)
    if not match.exists():
        raise NotInstalledError(f"{name} is not there: scripts/venv bench")
    return str(match)


@dataclass
class Store:
    """A real S3 server in a process of its own."""

    name: str
    folder: Path
    port: int = field(default_factory=lambda: free_ports(1, GRPC_OFFSET)[0])

    def command(self) -> list[str]:
        if self.name == "rclone":
            (self.folder / BUCKET).mkdir(parents=True)
            flags = ["--config", os.devnull, "--auth-key", f"{KEY},{SECRET}"]
            return [program("rclone"), "serve", "s3", *flags, "--addr", self.address, str(self.folder)]
        roles = ("master", "volume", "filer", "admin")
        taken = zip(roles, free_ports(len(roles), GRPC_OFFSET), strict=True)
        ports = [f"-{role}.port={port}" for role, port in taken]
        flags = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-admin.ui=false", "-webdav=false"]
        flags += ["-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        flags += [f"-s3.port={self.port}", f"-dir={self.folder}"]
        return [program("weed"), "mini", *ports, *flags]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def environ(self) -> dict[str, str]:
        """The environment with endpoint and credentials."""
        return {
            **os.environ,
            "AWS_ENDPOINT_URL_S3": f"http://{self.address}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": os.devnull,
            "RCLONE_CONFIG": os.devnull,
            "RCLONE_CONFIG_STORE_TYPE": "s3",
            "RCLONE_CONFIG_STORE_PROVIDER": "Other",
            "RCLONE_CONFIG_STORE_ENDPOINT": f"http://{self.address}",
            "RCLONE_CONFIG_STORE_ACCESS_KEY_ID": KEY,
            "RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY": SECRET,
        }

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Start the store, create the bucket, stop it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder.parent / f"{self.name}.log").open("wb") as log:
            server = subprocess.Popen(
                self.command(), env=self.environ(), stdout=log, stderr=log, cwd=self.folder
            )
        try:
            _wait_for(f"http://{self.address}/", server)
            if self.name != "rclone":
                self.run([program("aws"), "s3api", "create-bucket", "--bucket", BUCKET])
            yield
        finally:
            server.kill()
            server.wait()

    def run(self, command: Sequence[str]) -> None:
        """Run a client. Raises `BenchError` with its last output."""
        done = subprocess.run(
            command, env=self.environ(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
        )
        if done.returncode:
            words = done.stderr.decode(errors="replace")[-300:]
            raise BenchError(f"{Path(command[0]).name} ended with {done.returncode}: {words}")


class Gateway:
    """The gateway on a store, and the most memory that it had resident."""

    def __init__(self, store: Store, folder: Path) -> None:
        folder.mkdir()
        flags = ["--directory", str(folder), "--port", "0", "--log-level", "warning"]
        command = [sys.executable, "-m", "gateway", *flags, "--storage", f"s3://{BUCKET}/gateway"]
        self._process = subprocess.Popen(command, env=store.environ(), stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode()
        if not line.startswith("listening on "):
            self.end()
            raise BenchError("the gateway did not start")
        self.url = line.split()[2]

    def peak(self) -> int:
        """Return the most bytes that were ever resident (proc(5), VmHWM)."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        match = re.search(r"VmHWM:\s+(\d+) kB", status)
        return int(match[1]) * 1024 if match else 0

    def end(self) -> None:
        """Kill it: no data is needed any more."""
        self._process.kill()
        self._process.communicate()


def commands(gateway: Gateway, source: Path, turn: int) -> Mapping[str, Sequence[str]]:
    """Return each sender and its command; each turn has names of its own."""
    aws = [program("aws"), "s3", "cp", "--only-show-errors", str(source)]
    curl = ["curl", "-sS", "--fail", "-H", "Expect:", "-T", str(source)]
    return {
        OURS: [*curl, f"{gateway.url}/upload/{turn}"],
        RCLONE: [program("rclone"), "copyto", "--s3-no-check-bucket", str(source), landed(RCLONE, turn)],
        AWS: [*aws, f"s3://{BUCKET}/aws/{turn}"],
    }


def landed(who: str, turn: int) -> str:
    """Return the rclone name of the stored file."""
    return f"store:{BUCKET}/{ {OURS: 'gateway/upload', RCLONE: 'rclone', AWS: 'aws'}[who] }/{turn}"


def check(store: Store, who: str, digest: str) -> None:
    """Read back what was stored. Raises `BenchError` if it differs."""
    command = [program("rclone"), "cat", landed(who, 0)]
    with subprocess.Popen(command, env=store.environ(), stdout=subprocess.PIPE) as reading:
        assert reading.stdout is not None
        match = hashlib.sha256()
        while piece := reading.stdout.read(MIB):
            match.update(piece)
        if match.hexdigest() != digest:
            raise BenchError(f"{who}: other bytes have landed than were sent")


def play(store: Store, source: Path, rounds: int) -> tuple[dict[str, list[float]], int]:
    """Return the bytes per second of each entrant, turn by turn, and the gateway's peak in bytes."""
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    gateway = Gateway(store, store.folder.parent / f"data-{store.name}")
    rates: dict[str, list[float]] = {}
    try:
        for turn in range(rounds):
            for who, command in commands(gateway, source, turn).items():
                began = time.monotonic()
                store.run(command)
                rates.setdefault(who, []).append(source.stat().st_size / (time.monotonic() - began))
                if turn == 0:
                    check(store, who, digest)
        return rates, gateway.peak()
    finally:
        gateway.end()


def tell(store: str, rates: Mapping[str, list[float]], peak: int) -> Iterator[str]:
    """Yield the lines of the result."""
    for who, figures in rates.items():
        spread = Spread.of([figure / MIB for figure in figures])
        line = (
            f"{store:<10} {who:<14} {spread.middle:7.0f} MiB/s ({spread.least:.0f} to {spread.most:.0f})"
        )
        if who != OURS:
            pairs = zip(rates[OURS], figures, strict=True)
            line += f"   gateway is {Spread.of([ours / theirs for ours, theirs in pairs]).middle:.2f} x"
        yield line
    verdict = "reached" if peak <= GOAL_MIB * MIB else "missed"
    yield f"{store:<10} gateway's peak {peak / MIB:.0f} MiB resident; goal {GOAL_MIB} MiB: {verdict}"


def make_source(path: Path, size: int) -> None:
    """Write a file of `size` bytes without short repetitions."""
    block = os.urandom(MIB)
    with path.open("wb") as file:
        for number in range(0, size, MIB):
            file.write((number.to_bytes(8, "big") + block[8:])[: size - number])


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_TIMEOUT
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise BenchError(f"{url} does not answer")


def main(words: Sequence[str] | None = None) -> int:
    """Run the bench and print the result."""
    parser = argparse.ArgumentParser("bench.s3", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=1024, metavar="MIB", help="MiB of the file")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each entrant")
    parser.add_argument("--store", choices=("seaweedfs", "rclone"), action="append")
    parser.add_argument("--folder", default="/dev/shm" if Path("/dev/shm").is_dir() else None)
    given = parser.parse_args(words)
    try:
        for name in given.store or ("seaweedfs", "rclone"):
            with tempfile.TemporaryDirectory(dir=given.folder) as folder:
                measure(name, Path(folder), given.size * MIB, given.rounds)
    except BenchError as error:
        print(f"bench.s3: {error}", file=sys.stderr)
        return 1
    return 0


def measure(name: str, folder: Path, size: int, rounds: int) -> None:
    """Run with one store and print the result. Raises `BenchError`, also if space is short."""
    needed, free = size * (3 * rounds + 1), shutil.disk_usage(folder).free
    if free < needed:
        raise BenchError(
            f"{folder.parent} has {free // MIB} MiB free and {needed // MIB} are needed:"
            " name another --folder, a smaller --size or fewer --rounds"
        )
    source = folder / "source"
    make_source(source, size)
    store = Store(name, folder / name)
    with store.running():
        rates, peak = play(store, source, rounds)
    for line in tell(name, rates, peak):
        print(line, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was written goes first
    sys.exit(main())
