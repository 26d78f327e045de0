"""When all objects are searched for garbage: memory has grown, or has been high for long."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref

import pytest

from gateway.server import memory
from gateway.server.memory import MAX_FREE_BYTES, _FullCollections, memory_kept_low, resident_bytes


class _Ring:
    """An object that refers to itself."""

    def __init__(self) -> None:
        self.me = self


def test_the_resident_memory_is_known() -> None:
    assert resident_bytes() > 1 << 20


def test_a_full_collection_is_due_when_memory_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    collections = _FullCollections(0)
    assert not collections.is_due(MAX_FREE_BYTES)
    assert collections.is_due(MAX_FREE_BYTES + 1)
    monkeypatch.setattr(memory, "resident_bytes", lambda: 2 * MAX_FREE_BYTES)
    collections.collect()
    assert not collections.is_due(2 * MAX_FREE_BYTES)
    now = memory.FULL_COLLECTION_INTERVAL + 1
    assert collections.is_due(2 * MAX_FREE_BYTES)
    assert not collections.is_due(MAX_FREE_BYTES)


def test_full_collections_take_a_small_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 1.0, 1.5, 10.0, 102.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    collections = _FullCollections(0)  # at 0.0
    collections.collect()  # from 1.0 to 1.5
    assert not collections.is_due(10 * MAX_FREE_BYTES + resident_bytes())
    assert collections.is_due(10 * MAX_FREE_BYTES + resident_bytes())


async def test_garbage_is_collected_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CHECK_INTERVAL", 0.01)
    threshold = gc.get_threshold()
    gone = asyncio.Event()
    try:
        async with memory_kept_low():
            weakref.finalize(_Ring(), gone.set)
            async with asyncio.timeout(10):
                await gone.wait()
    finally:
        gc.set_threshold(*threshold)
        gc.unfreeze()
