"""Which processes hold an flock, for messages. Linux only: elsewhere nothing is found."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_MAX_COMMAND: Final = 100
"""Characters of a command line that a message shows."""


def lock_holders(fd: int) -> dict[int, str]:
    """Return the processes that hold an flock on the file `fd`, and their command lines.

    `/proc/locks` names the process that acquired a lock, which may have died; who still holds it, by a
    descriptor that was inherited, is in `fdinfo` (proc_pid_fdinfo(5)). Processes of other users are
    found by root only.
    """
    wanted = os.fstat(fd)
    holders: dict[int, str] = {}
    for folder in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if _holds(folder, wanted):
                holders[int(folder.name)] = _command(folder)
    return holders


def _holds(folder: Path, wanted: os.stat_result) -> bool:
    for name in os.listdir(folder / "fd"):
        with contextlib.suppress(OSError):
            if not os.path.samestat(os.stat(folder / "fd" / name), wanted):
                continue
            if "FLOCK" in (folder / "fdinfo" / name).read_text():
                return True
    return False


def _command(folder: Path) -> str:
    words = (folder / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    return " ".join(words)[:_MAX_COMMAND]
