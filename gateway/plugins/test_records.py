"""The records that a test begins with, and those it must end with.

One rule: they are in memory and a test's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.records import Records

Kept = Mapping[str, Mapping[str, Any]]
"""Collection to key to item."""


async def keep(records: Records, given: Kept) -> None:
    """Put what a test begins with. Raises `ValueError` for what is no item."""
    for name, items in given.items():
        for key, item in items.items():
            await records(name).put(key, item)


async def judge_records(expected: Kept | None, records: Records) -> list[str]:
    """Return how the items that a test names differ from what is kept; None means that none is."""
    faults = []
    for name, items in (expected or {}).items():
        for key, wanted in items.items():
            found = await records(name).get(key)
            if found is not None and "key" not in (wanted or {}):
                del found["key"]
            if found != wanted:
                faults.append(f"item {key!r} of {name!r} is {found!r}, expected {wanted!r}")
    return faults
