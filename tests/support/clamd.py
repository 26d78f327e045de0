"""A real clamd with a database of its own, which knows the EICAR test file and nothing else."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final, Self

from tests.support.harness import TIMEOUT
from tests.support.ports import free_port

EICAR: Final = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
"""The test file of the European Institute for Computer Antivirus Research, which harms nothing."""

SIGNATURE: Final = "Eicar-Test-Signature.UNOFFICIAL"
STREAM_MAX_BYTES: Final = 1 << 20

_CONFIG: Final = """\
Foreground yes
DatabaseDirectory {folder}/database
LocalSocket {folder}/clamd.ctl
TCPSocket {port}
TCPAddr 127.0.0.1
StreamMaxLength {stream_max_bytes}
MaxThreads 8
AlertEncrypted yes
AlertExceedsMax yes
SelfCheck 0
OfficialDatabaseOnly no
"""


class Clamd:
    """clamd on a Unix socket and a port, which can be killed and started again."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="clamd-"))  # a socket's path is short
        self.socket = self._folder / "clamd.ctl"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        database = self._folder / "database"
        database.mkdir()
        line = f"Eicar-Test-Signature:0:*:{EICAR.hex()}\n"  # any type of file, at any offset
        (database / "test.ndb").write_text(line)
        config = _CONFIG.format(folder=self._folder, port=self.port, stream_max_bytes=STREAM_MAX_BYTES)
        (self._folder / "clamd.conf").write_text(config)

    def start(self) -> None:
        """Start it, and wait until it listens."""
        command = ["clamd", f"--config-file={self._folder}/clamd.conf"]
        path = os.environ["PATH"] + ":/usr/sbin"
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=os.environ | {"PATH": path}
            )
        deadline = time.monotonic() + TIMEOUT
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"clamd did not start:\n{(self._folder / 'log').read_text()}")
            time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL, and wait; a second call does nothing. Its socket stays, as after any crash."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(TIMEOUT)
            self._process = None

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(str(self.socket)) == 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._folder)
