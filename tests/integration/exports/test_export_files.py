"""plugins/exports: what is in the zip, whatever the records hold, and what is left behind: nothing."""

from __future__ import annotations

import resource

import pytest

from tests.support.export_modules import Spool


@pytest.mark.slow
def test_memory_does_not_grow_with_the_records() -> None:
    item = {"key": "k", "text": "0123456789" * 200}
    spool = Spool()
    spool.add([item] * 1000)
    spool.zipped("warm").close()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(100):
        spool.add([item] * 1000)
    spool.zipped("photos").close()
    spool.close()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 32 * 1024, f"{grown} KiB for 200 MB of records"
