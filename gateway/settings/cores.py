"""How many cores this process may use: what `--processes auto` stands for.

Two limits count. The kernel runs a process on certain cores only (`taskset`, `docker --cpuset-cpus`),
and control groups may give it less time than these have (`docker --cpus`, `limits.cpu` of Kubernetes).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

MAX_PROCESSES: Final = 64

_UNLIMITED: Final = math.inf
_QUOTA_AND_PERIOD: Final = re.compile(r"([0-9]+)\s+([1-9][0-9]*)", re.ASCII)
_WHOLE_NUMBER: Final = re.compile(r"[+-]?[0-9]+", re.ASCII)


def process_count(value: object) -> object:
    """A number of processes; `auto` is one for each usable core, at most `MAX_PROCESSES`."""
    if not isinstance(value, str):
        return value
    if value == "auto":
        return min(usable_cores(), MAX_PROCESSES)
    if not _WHOLE_NUMBER.fullmatch(value):
        raise ValueError("must be a whole number, or auto")
    return value


def usable_cores(root: Path = Path("/")) -> int:
    """Return the number of cores, at least 1; a part of a core counts as one.

    `proc` and `sys` are below `root`. A limit that cannot be read is none.
    """
    cores = len(os.sched_getaffinity(0))
    return max(1, math.ceil(min(cores, *_limits(root))))


def describe_processes(count: int) -> str:
    """Return the line of the start and of doctor: `processes: 2 on 4 cores`."""
    cores = usable_cores()
    return f"processes: {count} on {cores} {'core' if cores == 1 else 'cores'}"


def _limits(root: Path) -> Iterator[float]:
    """Yield the cores that each control group around this process allows (cgroups(7))."""
    mount = root / "sys/fs/cgroup"
    yield _UNLIMITED
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        group = PurePosixPath(path.removeprefix("/"))
        # In a container the path may be that on the host: then only the outermost one is found.
        for around in (group, *group.parents):
            if not controllers:
                yield _limit(_read(mount / around / "cpu.max"))
            elif "cpu" in controllers.split(","):
                files = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
                yield _limit("".join(_read(mount / "cpu" / around / name) for name in files))


def _limit(text: str) -> float:
    """Return the cores of a quota and its period in microseconds; the quota `max` or -1 is no limit."""
    match = _QUOTA_AND_PERIOD.fullmatch(text.strip())
    return int(match[1]) / int(match[2]) if match else _UNLIMITED


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
