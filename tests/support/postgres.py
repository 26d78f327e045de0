"""A real PostgreSQL for the tests, in a folder of its own; its language does not sort as bytes do."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote

from tests.support.ports import reserved_ports

PASSWORD: Final = "se/cret@of:records"
READY: Final = "database system is ready to accept connections"


def program(name: str) -> str:
    """The newest of the installed servers' programs, which Debian keeps off the PATH."""
    paths = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    place = str(paths[-1]) if paths else shutil.which(name)
    assert place, f"{name} is missing: apt-get install postgresql"
    return place


def as_user() -> list[str]:
    """What a command begins with so that it does not run as root, which PostgreSQL refuses."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]


@dataclass
class Server:
    """A server in `folder`. `url` stays the same when it is started again."""

    folder: Path
    port: int
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Where the gateway finds it."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """Where the gateway finds a database of it."""
        return f"postgresql://postgres:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{database}"

    def make(self) -> None:
        """Make its files."""
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._run(
            program("initdb"), "-D", str(self.folder / "data"), "-A", "scram-sha-256", "-U", "postgres",
            "--pwfile", str(secret), "-E", "UTF8", "--locale=C.UTF-8", "--locale-provider=icu",
            "--icu-locale=en-US", "--no-sync",
        )  # fmt: skip

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            "max_connections": "50",
            "fsync": "off",
        }
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        self.process = subprocess.Popen(
            [*as_user(), program("postgres"), "-D", str(self.folder / "data"), *words],
            cwd="/",
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr
        for line in self.process.stderr:
            if READY in line:
                return
        raise AssertionError("PostgreSQL did not start")

    def stop(self) -> None:
        """End it at once, connections and all."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.communicate(timeout=30)
            self.process = None

    def freeze(self, on: bool) -> None:
        """Let it hang, with its connections open, or go on."""
        assert self.process
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        for pid in (self.process.pid, *map(int, children.split())):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP if on else signal.SIGCONT)

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            [*as_user(), *command], cwd="/", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """A running server; it and its files are removed afterwards."""
    # Not below a test's own folder, which the server's user cannot read.
    with (
        tempfile.TemporaryDirectory(
            prefix="gateway-postgres-", dir="/tmp", ignore_cleanup_errors=True
        ) as folder,
        reserved_ports(1) as (port,),
    ):
        postgres = Server(Path(folder), port)
        postgres.make()
        postgres.start()
        try:
            yield postgres
        finally:
            postgres.stop()
