"""Checks of the directory, its file system, rename, fsync and clock.

A probe file is renamed and synced for real. If DIRECTORY is missing, only `directory` reports it.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.cli.doctor.finding import Finding
from gateway.settings import Settings

SLOW_FSYNC_MS: Final = 50.0
MIN_INODES: Final = 10_000
"""Free inodes below which a warning is due."""

MIN_TIME: Final = 1_735_689_600.0
"""2025-01-01 as a Unix time: an earlier clock was never set."""

_MOUNTS: Final = Path("/proc/mounts")
_NETWORK: Final = (
    "nfs",
    "cifs",
    "smb",
    "9p",
    "ceph",
    "gluster",
    "fuse.gluster",
    "lustre",
    "fuse.sshfs",
    "afs",
)
_VOLATILE: Final = ("tmpfs", "ramfs", "overlay")


def directory(settings: Settings) -> Iterator[Finding]:
    """DIRECTORY is a folder that this user may write to."""
    folder = settings.directory
    if not folder.is_dir():
        yield Finding("FAIL", f"directory {folder} does not exist", "create it, or set --directory")
    elif not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        user = os.geteuid()
        yield Finding(
            "FAIL", f"directory {folder} is not writable by user {user}", f"chown {user} {folder}"
        )
    else:
        yield Finding("ok", f"directory {folder} is writable")


def free_space(settings: Settings) -> Iterator[Finding]:
    """Free space is above --min-free-bytes, below which uploads are refused (507)."""
    if not settings.directory.is_dir():
        return
    free, floor = shutil.disk_usage(settings.directory).free, settings.min_free_bytes
    summary = f"free space: {free // 2**20} MiB, of which {floor // 2**20} MiB stay free"
    if free <= floor:
        yield Finding(
            "FAIL", summary, "every upload gets 507: free some space or lower --min-free-bytes"
        )
    elif free < 10 * floor:
        yield Finding("warn", summary, "little space for uploads")
    else:
        yield Finding("ok", summary)


def inodes(settings: Settings) -> Iterator[Finding]:
    """The file system has inodes for new files; without one uploads are refused (507)."""
    if not settings.directory.is_dir():
        return
    status = os.statvfs(settings.directory)
    if status.f_files == 0:
        return  # this file system allocates them on demand
    summary = f"free inodes: {status.f_favail} of {status.f_files}"
    if not status.f_favail:
        yield Finding("FAIL", summary, "every upload gets 507: remove files")
    elif status.f_favail < MIN_INODES:
        yield Finding("warn", summary, "room for few more files")
    else:
        yield Finding("ok", summary)


def file_system(settings: Settings) -> Iterator[Finding]:
    """The file system is local and persistent, so that locks, rename and fsync are reliable."""
    if not settings.directory.is_dir():
        return
    kind = mounted_as(settings.directory.resolve(), _mounts())
    if kind is None:
        yield Finding("warn", "file system: unknown", "/proc/mounts cannot be read")
    elif kind.startswith(_NETWORK):
        advice = "locks and fsync depend on the server: the promise holds on a local disk only"
        yield Finding("warn", f"file system: {kind}, over the network", advice)
    elif kind in _VOLATILE:
        advice = "files are lost with the container or on power loss: use a volume or a disk"
        yield Finding("warn", f"file system: {kind}", advice)
    else:
        yield Finding("ok", f"file system: {kind}")


def publishing(settings: Settings) -> Iterator[Finding]:
    """A received body can be renamed to its upload path: one file system, one mount."""
    if not settings.directory.is_dir():
        return
    target = _existing(settings.directory / "upload")
    probe = _probe(_state_or_directory(settings))
    moved = target / f".gateway-doctor-{os.getpid()}"
    try:
        os.rename(probe, moved)
        yield Finding("ok", f"rename works from the state folder to {target}")
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        advice = "uploads to it are refused: mount the volume at DIRECTORY, not below it"
        yield Finding("FAIL", f"{target} is another file system than the state folder", advice)
    finally:
        probe.unlink(missing_ok=True)
        moved.unlink(missing_ok=True)


def fsync(settings: Settings) -> Iterator[Finding]:
    """A file and its folder can be synced; every upload waits for that long."""
    if not settings.directory.is_dir():
        return
    folder = _state_or_directory(settings)
    probe = _probe(folder)
    try:
        file_ms, folder_ms = _sync_ms(probe, os.O_RDWR), _sync_ms(folder, os.O_RDONLY)
    finally:
        probe.unlink()
    summary = f"fsync: file {file_ms:.1f} ms, folder {folder_ms:.1f} ms"
    if max(file_ms, folder_ms) > SLOW_FSYNC_MS:
        yield Finding(
            "warn", summary, "slow disk: each batch of uploads waits this long for its response"
        )
    else:
        yield Finding("ok", summary)


def clock(settings: Settings) -> Iterator[Finding]:
    """The clock is set, and agrees with the timestamps of the file system."""
    now = time.time()
    if now < MIN_TIME:
        yield Finding(
            "FAIL", f"clock: {time.ctime(now)} is in the past", "set it (NTP): retries and ids need it"
        )
        return
    if not settings.directory.is_dir():
        return
    probe = _probe(_state_or_directory(settings))
    difference = abs(probe.stat().st_mtime - time.time())
    probe.unlink()
    if difference > 5:
        yield Finding(
            "warn",
            f"clock: file timestamps are {difference:.0f} s off",
            "set the file server's clock (NTP)",
        )
    else:
        yield Finding("ok", "clock: set, and file timestamps agree with it")


def mounted_as(path: Path, mounts: str) -> str | None:
    """Return the file system type of the mount that holds `path`; `mounts` reads as proc(5) says."""
    best, kind = -1, None
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = fields[1].encode().decode("unicode_escape")  # a blank is written as \\040
        if path.is_relative_to(point) and len(point) >= best:  # a later mount covers an earlier one
            best, kind = len(point), fields[2]
    return kind


def _mounts() -> str:
    try:
        return _MOUNTS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _state_or_directory(settings: Settings) -> Path:
    """Return the folder of probe files: the state folder if it exists."""
    return settings.state if settings.state.is_dir() else settings.directory


def _existing(folder: Path) -> Path:
    return folder if folder.is_dir() else folder.parent


def _probe(folder: Path) -> Path:
    """Write a small hidden file; the caller removes it."""
    descriptor, name = tempfile.mkstemp(prefix=".gateway-doctor-", dir=folder)
    with os.fdopen(descriptor, "wb") as file:
        file.write(b"probe")
    return Path(name)


def _sync_ms(path: Path, flags: int) -> float:
    descriptor = os.open(path, flags)
    try:
        started = time.perf_counter()
        os.fsync(descriptor)
        return (time.perf_counter() - started) * 1000
    finally:
        os.close(descriptor)
