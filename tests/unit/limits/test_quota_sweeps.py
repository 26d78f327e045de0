"""What runs in the background does a bounded piece at a time, so that uploads come in between."""

from __future__ import annotations

import pytest

from gateway.limits import quota_sweeps
from gateway.limits.quota_operations import replace_file
from gateway.limits.quota_rows import CountedFile
from gateway.limits.quota_statements import add_to_day
from gateway.limits.quota_sweeps import DAYS_PAGE, PAGE, files_page, prune_days, see_files
from tests.support.quotas import PLACE, CountersInMemory


@pytest.fixture
def counters() -> CountersInMemory:
    return CountersInMemory()


def test_a_page_of_files_ends_also_where_all_of_them_were_seen(counters: CountersInMemory) -> None:
    names = [f"/{number:04}" for number in range(PAGE + 5)]
    for name in names:
        counters(replace_file(PLACE, name, None, CountedFile("", "v", 1, {}, ("k",))))
    counters(see_files(PLACE, [(name, 1) for name in names if name != names[-2]], seen=3))
    assert counters(files_page(PLACE, "", 3)) == ([], names[PAGE - 1])
    unseen, reached = counters(files_page(PLACE, names[PAGE - 1], 3))
    assert ([item.path for item in unseen], reached) == ([names[-2]], names[-1])
    assert counters(files_page(PLACE, names[-1], 3)) == ([], None)


def test_days_are_pruned_in_pieces(counters: CountersInMemory) -> None:
    for number in range(DAYS_PAGE + 5):
        counters(add_to_day([f"k{number}"], 7, 1))
    counters(add_to_day(["today"], 8, 1))
    assert counters(prune_days(8))
    assert counters.days() == 6
    assert not counters(prune_days(8))
    assert counters.days() == 1


def test_of_too_many_days_the_smallest_of_the_oldest_go(
    counters: CountersInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota_sweeps, "MAX_DAY_ROWS", 2)
    for key, day, size in (("a", 8, 1), ("b", 8, 9), ("c", 7, 5), ("d", 8, 5)):
        counters(add_to_day([key], day, size))
    assert not counters(prune_days(0))
    rows = counters.db.execute("SELECT key FROM quota_days ORDER BY key").fetchall()
    assert rows == [("b",), ("d",)]
