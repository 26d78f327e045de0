"""Doctor: the directory, its file system, rename, fsync, and the clock that stamps the files.

The rule: what the promise rests on is tried, not deduced: a file is really renamed and really
synced. Where DIRECTORY is missing only `directory` says so.
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
EARLIEST: Final = 1_735_689_600.0
"""2025-01-01 as a Unix time: a clock that shows less was never set."""

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
_FLEETING: Final = ("tmpfs", "ramfs", "overlay")


def directory(settings: Settings) -> Iterator[Finding]:
    """DIRECTORY is a folder that this user may write to."""
    folder = settings.directory
    if not folder.is_dir():
        yield Finding("FAIL", f"directory {folder} is not there", "create it, or say --directory")
    elif not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        user = os.geteuid()
        yield Finding(
            "FAIL", f"directory {folder} is not writable by user {user}", f"chown {user} {folder}"
        )
    else:
        yield Finding("ok", f"directory {folder} is writable")


def free_space(settings: Settings) -> Iterator[Finding]:
    """Free space is above the watermark below which uploads are refused (507)."""
    if not settings.directory.is_dir():
        return
    free, floor = shutil.disk_usage(settings.directory).free, settings.min_free_bytes
    what = f"free space: {free // 2**20} MiB, of which {floor // 2**20} MiB stay free"
    if free <= floor:
        yield Finding("FAIL", what, "every upload gets 507: make room or lower --min-free-bytes")
    elif free < 10 * floor:
        yield Finding("warn", what, "little room for uploads")
    else:
        yield Finding("ok", what)


def file_system(settings: Settings) -> Iterator[Finding]:
    """The file system is local and lasting: locks, rename and fsync mean what they say there."""
    if not settings.directory.is_dir():
        return
    kind = mounted_as(settings.directory.resolve(), _mounts())
    if kind is None:
        yield Finding("warn", "file system: unknown", "there is no /proc/mounts to read")
    elif kind.startswith(_NETWORK):
        advice = "locks and fsync depend on the server: the promise holds on a local disk only"
        yield Finding("warn", f"file system: {kind}, over the network", advice)
    elif kind in _FLEETING:
        advice = "files end with the container or the power: use a volume or a disk"
        yield Finding("warn", f"file system: {kind}", advice)
    else:
        yield Finding("ok", f"file system: {kind}")


def publishing(settings: Settings) -> Iterator[Finding]:
    """A received body can be renamed to where uploads land: one file system, one mount."""
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
        advice = "uploads there are refused: mount the volume at DIRECTORY, not below it"
        yield Finding("FAIL", f"{target} is another file system than the state folder", advice)
    finally:
        probe.unlink(missing_ok=True)
        moved.unlink(missing_ok=True)


def fsync(settings: Settings) -> Iterator[Finding]:
    """A file and its folder can be synced; how long that takes is how long an upload waits."""
    if not settings.directory.is_dir():
        return
    folder = _state_or_directory(settings)
    probe = _probe(folder)
    try:
        file_ms, folder_ms = _sync_ms(probe, os.O_RDWR), _sync_ms(folder, os.O_RDONLY)
    finally:
        probe.unlink()
    what = f"fsync: file {file_ms:.1f} ms, folder {folder_ms:.1f} ms"
    if max(file_ms, folder_ms) > SLOW_FSYNC_MS:
        yield Finding("warn", what, "a slow disk: each batch of uploads waits this long for its answer")
    else:
        yield Finding("ok", what)


def clock(settings: Settings) -> Iterator[Finding]:
    """The clock was set, and the file system stamps files with the same time."""
    now = time.time()
    if now < EARLIEST:
        yield Finding(
            "FAIL", f"clock: {time.ctime(now)} is past", "set it (NTP): retries and ids need it"
        )
        return
    if not settings.directory.is_dir():
        return
    probe = _probe(_state_or_directory(settings))
    apart = abs(probe.stat().st_mtime - time.time())
    probe.unlink()
    if apart > 5:
        yield Finding(
            "warn", f"clock: files are stamped {apart:.0f} s off", "set the file server's clock (NTP)"
        )
    else:
        yield Finding("ok", "clock: set, and files are stamped with it")


def mounted_as(path: Path, mounts: str) -> str | None:
    """Return the file system type of the mount that holds `path`; `mounts` reads as proc(5) says."""
    best, kind = -1, None
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = fields[1].encode().decode("unicode_escape")  # blanks are written as \\040
        if path.is_relative_to(point) and len(point) >= best:  # a later mount covers an earlier one
            best, kind = len(point), fields[2]
    return kind


def _mounts() -> str:
    try:
        return _MOUNTS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _state_or_directory(settings: Settings) -> Path:
    """Where a probe may be written: the state folder once there is one."""
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
        begun = time.perf_counter()
        os.fsync(descriptor)
        return (time.perf_counter() - begun) * 1000
    finally:
        os.close(descriptor)
