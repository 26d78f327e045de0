"""The disk without HTTP: yardsticks of synced uploads, with the same durability and least overhead."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from pathlib import Path

from bench.samples import BenchError, Sample

BATCH = 64


def dd(source: Path, folder: Path, turn: str) -> Sample:
    """Copy `source` with `dd conv=fsync`; what it wrote is removed."""
    copy = folder / turn
    started = time.perf_counter()
    words = ["dd", f"if={source}", f"of={copy}", "bs=1M", "conv=fsync", "status=none"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise BenchError(f"dd failed: {done.stderr}")
    copy.unlink()
    return Sample(seconds, source.stat().st_size)


def batches(folder: Path, turn: str, seconds: float, size: int = BATCH) -> Sample:
    """Store files of 4 KiB in batches of `size`, each as safe as after a 2xx, for `seconds`.

    A batch: write into `incoming`, start writing back all, sync each (faster than any other order and
    than threads), one SQLite transaction with a row a file (WAL, FULL), rename all, sync both folders.
    `p50_ms` and `p99_ms` are of a batch.
    """
    home = folder / turn
    incoming, landed = home / "incoming", home / "upload"
    for place in (incoming, landed):
        place.mkdir(parents=True)
    journal = _journal(home / "journal")
    body = os.urandom(4096)
    times: list[float] = []
    started = now = time.perf_counter()
    while not times or now - started < seconds:
        names = [f"{len(times)}-{number}" for number in range(size)]
        _batch(incoming, landed, journal, names, body)
        before, now = now, time.perf_counter()
        times.append((now - before) * 1000)
    journal.close()
    ranked = sorted(times)
    p99 = ranked[int(len(ranked) * 0.99)]
    return Sample(now - started, len(times) * size, ranked[len(ranked) // 2], p99)


def _journal(path: Path) -> sqlite3.Connection:
    journal = sqlite3.connect(path, isolation_level=None)
    journal.execute("PRAGMA journal_mode=WAL")
    journal.execute("PRAGMA synchronous=FULL")
    journal.execute("CREATE TABLE uploads (name TEXT PRIMARY KEY, event TEXT)")
    return journal


def _batch(
    incoming: Path, landed: Path, journal: sqlite3.Connection, names: list[str], body: bytes
) -> None:
    files = []
    for name in names:
        file = os.open(incoming / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        os.write(file, body)
        files.append(file)
    for file in files:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)  # starts the write without waiting
    for file in files:
        os.fsync(file)
        os.close(file)
    journal.execute("BEGIN")
    journal.executemany("INSERT INTO uploads VALUES (?, ?)", [(name, "x" * 400) for name in names])
    journal.execute("COMMIT")
    for name in names:
        os.rename(incoming / name, landed / name)
    for folder in (landed, incoming):
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
