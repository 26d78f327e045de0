"""A gateway with failpoints: `python -m tests.support.failpoint_gateway POINT[:N] serve ...`.

POINT is one of `gateway.domain.failpoints.NAMES`; at its N-th hit (default 1) the process
kills itself with SIGKILL: not a byte more is written. `POINT=eio` lets the next fsync of a
folder fail instead, as a dying disk would. `unlink=eio` lets no private body be removed.
`heartbeat=quick` calls a process unresponsive after a second. With `boot=other` the machine has been
started anew: what was not synced before does not count.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
from collections.abc import Sequence

from gateway.cli import main
from gateway.domain import failpoints
from gateway.server import heartbeat
from gateway.storage.local import partial_cells


def kill_at(point: str, count: int) -> None:
    """Kill this process when `point` is reached for the `count`-th time."""
    assert point in failpoints.NAMES, point
    left = count

    def listener(name: str) -> None:
        nonlocal left
        if name == point:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
                signal.pause()

    failpoints.listeners.append(listener)


def fail_sync_at(point: str) -> None:
    """Make the first folder sync after `point` fail with EIO."""
    real = os.fsync
    armed = fired = False

    def listener(name: str) -> None:
        nonlocal armed
        armed = name == point and not fired

    def fsync(fd: int) -> None:
        nonlocal armed, fired
        if armed and stat.S_ISDIR(os.fstat(fd).st_mode):
            armed, fired = False, True
            raise OSError(errno.EIO, "the disk is dying")
        real(fd)

    failpoints.listeners.append(listener)
    os.fsync = fsync  # type: ignore[assignment]  # the gateway syncs descriptors only


def fail_unlink() -> None:
    """Let the removal of private bodies fail with EIO."""
    real = os.unlink

    def unlink(path: str, *, dir_fd: int | None = None) -> None:
        if dir_fd is not None and "/incoming/" in os.readlink(f"/proc/self/fd/{dir_fd}"):
            raise OSError(errno.EIO, "the disk is dying")
        real(path, dir_fd=dir_fd)

    os.unlink = unlink  # type: ignore[assignment]  # the gateway passes names in folders only


def run(arguments: Sequence[str]) -> int:
    """Run the gateway with what the first argument wishes."""
    wish = arguments[0]
    if wish == "heartbeat=quick":
        heartbeat.HEARTBEAT_INTERVAL, heartbeat.HEARTBEAT_TIMEOUT = 0.1, 1.0  # type: ignore[misc]
    elif wish == "boot=other":
        partial_cells.boot_id = lambda: b"another start..."  # type: ignore[assignment]
    elif wish == "unlink=eio":
        fail_unlink()
    elif wish.endswith("=eio"):
        fail_sync_at(wish.removesuffix("=eio"))
    elif wish != "never":
        name, _, count = wish.partition(":")
        kill_at(name, int(count or 1))
    return main(list(arguments[1:]))


if __name__ == "__main__":
    raise SystemExit(run(sys.argv[1:]))
