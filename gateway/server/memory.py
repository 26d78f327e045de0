"""Keeps the resident memory of a process close to what it uses.

Requests leave no reference cycles that hold a body (`http.tracebacks`), but libraries and scripts may:
their garbage is collected by time and by memory, not only by number. And glibc keeps freed memory in
its heaps: it is told to return it.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from gateway.telemetry.logs import event

log = logging.getLogger("gateway")

COLLECTION_THRESHOLD: Final = 50_000
"""New objects after which the garbage collector runs; a request creates about a hundred."""

CHECK_INTERVAL: Final = 1.0
"""Seconds between two collections of young objects; each takes 0.1 to 3 ms."""

FULL_COLLECTION_INTERVAL: Final = 30.0
"""Seconds between two full collections while memory is above its level at the start."""

FULL_COLLECTION_SHARE: Final = 0.01
"""Full collections may take this share of the time: with many live objects they come less often."""

TRIM_INTERVAL: Final = 3.0
"""Seconds between two returns of free memory. With nothing to return one takes 0.3 ms, with 500 MiB
40 ms, in a thread."""

MAX_FREE_BYTES: Final = 32 << 20
"""Resident bytes above those of the start that may be free memory."""


@asynccontextmanager
async def memory_kept_low() -> AsyncIterator[None]:
    """Collect garbage and return free memory while in this context. Call it at the end of the start.

    The objects of the start are never looked at again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECTION_THRESHOLD, 20, 50)
    task = asyncio.create_task(_keep_memory_low(resident_bytes(), _find_malloc_trim()))
    try:
        yield
    finally:
        task.cancel()


async def _keep_memory_low(start_bytes: int, trim: Callable[[int], int]) -> None:
    collector, trimmed = _FullCollections(start_bytes), time.monotonic()
    while True:
        await asyncio.sleep(CHECK_INTERVAL)
        resident = resident_bytes()
        if collector.is_due(resident):
            collector.collect()
        else:
            gc.collect(1)
        if resident - start_bytes > MAX_FREE_BYTES and time.monotonic() - trimmed >= TRIM_INTERVAL:
            await asyncio.to_thread(trim, 0)
            trimmed = time.monotonic()
            log.debug(
                "free memory was returned",
                extra=event("memory.trimmed", before=resident, after=resident_bytes()),
            )


class _FullCollections:
    """Decides when all objects are searched for garbage. On the event loop, which waits for it."""

    def __init__(self, start_bytes: int) -> None:
        self._start_bytes = start_bytes
        self._bytes_after = start_bytes
        self._ended = time.monotonic()
        self._duration = 0.0

    def is_due(self, resident: int) -> bool:
        """Tell whether memory has grown since the last one, or been high for long."""
        waited = time.monotonic() - self._ended
        if waited < self._duration / FULL_COLLECTION_SHARE:
            return False
        if resident - self._bytes_after > MAX_FREE_BYTES:
            return True
        return resident - self._start_bytes > MAX_FREE_BYTES and waited > FULL_COLLECTION_INTERVAL

    def collect(self) -> None:
        """Search all objects."""
        started = time.monotonic()
        gc.collect()
        self._ended = time.monotonic()
        self._duration = self._ended - started
        self._bytes_after = resident_bytes()


def resident_bytes() -> int:
    """Return the resident memory of this process; 0 where the system does not tell."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _find_malloc_trim() -> Callable[[int], int]:
    """Return glibc's `malloc_trim(3)`; elsewhere a function that does nothing."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return lambda _: 0
    trim.argtypes = [ctypes.c_size_t]
    trim.restype = ctypes.c_int

    def call(pad: int) -> int:
        return int(trim(pad))

    return call
