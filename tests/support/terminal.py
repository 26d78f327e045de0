"""A program on a pseudo-terminal: what it prints there, and keys."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support import PROJECT
from tests.support.harness import KILL_TIMEOUT, TIMEOUT

COLOUR = re.compile(
    r"\x1b\[[\d;]*(?<![\d;])(?:[34][0-8]|9[0-7]|10[0-7])(?=[;m])[\d;]*m|\x1b\[(?:[\d;]*;)?[34]8;"
)
"""A sequence that sets a colour; those of bold and the like are none."""


class Terminal:
    """A running program and the text that its terminal has got."""

    def __init__(self, process: subprocess.Popen[bytes], fd: int) -> None:
        self.process = process
        self.text = ""
        self._fd = fd

    def until(self, wanted: str) -> str:
        """Read until the text has `wanted`; return all of it."""
        self.match(re.escape(wanted))
        return self.text

    def match(self, pattern: str) -> re.Match[str]:
        """Read until the text matches `pattern`: an end of a line may come later than the line."""
        deadline = time.monotonic() + TIMEOUT
        while (match := re.search(pattern, self.text)) is None:
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} does not come: {self.text!r}"
            if not self._read(left):
                raise AssertionError(f"it ended without {pattern!r}: {self.text!r}")
        return match

    def press(self, keys: str) -> None:
        """Type keys."""
        os.write(self._fd, keys.encode())

    def end(self) -> int:
        """Read to the end; return the exit code."""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline and self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(KILL_TIMEOUT)

    def _read(self, seconds: float) -> bool:
        """Read what there is; tell whether there may be more."""
        if not select.select([self._fd], [], [], max(seconds, 0.0))[0]:
            return True
        try:
            data = os.read(self._fd, 65_536)
        except OSError:  # EIO: no process has the terminal any more
            return False
        self.text += data.decode(errors="replace")
        return bool(data)


@contextlib.contextmanager
def terminal(
    *words: str,
    environ: Mapping[str, str] | None = None,
    columns: int = 80,
    rows: int = 24,
    cwd: Path = PROJECT,
) -> Iterator[Terminal]:
    """Run `gateway WORDS` on a terminal; the program is killed at the end."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", *words],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, cwd=cwd,
        env={**inherited, "TERM": "xterm-256color", **(environ or {})},
    )  # fmt: skip
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.wait(KILL_TIMEOUT)
        os.close(ours)
