"""What is counted of quotas: never more than is allowed, and always what the rows say."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from gateway.domain.quotas import BoundQuota, QuotaLimits
from gateway.limits.quota_operations import (
    Exceeded,
    PresentFile,
    SettleResult,
    StoredVersion,
    free,
    replace_file,
    reserve,
    settle,
)
from gateway.limits.quota_rows import MAX_SHARED, CountedFile, read_file, read_reservation
from gateway.limits.quota_sweeps import largest, left_of, prune_days
from tests.support.quotas import PLACE, CountersInMemory, bound, reservation

KEY = "per principal acme (token)"


@pytest.fixture
def counters() -> CountersInMemory:
    return CountersInMemory()


def begin(
    counters: CountersInMemory, upload_id: str, path: str, size: int, *quotas: BoundQuota, **terms: bool
) -> bool:
    """Reserve; tell whether it fits."""
    wanted = reservation(upload_id, path, size, *quotas, **terms)
    return not isinstance(counters(reserve(PLACE, wanted, quotas)), Exceeded)


def publish(counters: CountersInMemory, upload_id: str, path: str, size: int) -> None:
    version = StoredVersion(upload_id, path, f"v-{upload_id}", size)
    current = PresentFile(version.version, size)
    while counters(settle(PLACE, version, current)) is SettleResult.RETRY:
        pass


def test_what_is_reserved_counts_as_what_is_stored_does(counters: CountersInMemory) -> None:
    quota = bound(bytes=100)
    assert begin(counters, "A", "/a", 60, quota)
    assert not begin(counters, "B", "/b", 41, quota)
    assert begin(counters, "C", "/c", 40, quota)
    publish(counters, "A", "/a", 60)
    assert counters.usage() == {KEY: (100, 2)}
    counters(free(PLACE, "C"))
    counters(free(PLACE, "C"))
    assert counters.usage() == {KEY: (60, 1)}


def test_who_has_taken_an_upload_over_is_the_one_who_frees_it(counters: CountersInMemory) -> None:
    assert begin(counters, "A", "/a", 60, bound(bytes=100))
    counters(free(PLACE, "A", ("", 1)))
    assert counters.usage() == {KEY: (60, 1)}
    counters(free(PLACE, "A", ("", 0)))
    assert counters.usage() == {}


def test_a_refusal_names_the_quota_and_what_is_used_and_changes_nothing(
    counters: CountersInMemory,
) -> None:
    wide, narrow = bound("per address 192.0.2.1", bytes=1000), bound(bytes=100)
    assert begin(counters, "A", "/a", 60, wide, narrow)
    wanted = reservation("B", "/b", 41, wide, narrow)
    assert counters(reserve(PLACE, wanted, [wide, narrow])) == Exceeded(narrow, "bytes", 60)
    assert counters.usage() == {KEY: (60, 1), "per address 192.0.2.1": (60, 1)}
    assert counters(read_reservation("B")) is None


def test_a_file_that_replaces_one_takes_no_name_more_but_its_bytes_until_then(
    counters: CountersInMemory,
) -> None:
    quota = bound(bytes=100, files=1)
    assert begin(counters, "A", "/a", 60, quota)
    publish(counters, "A", "/a", 60)
    assert not begin(counters, "B", "/a", 60, quota)
    assert begin(counters, "C", "/a", 40, quota)
    assert not begin(counters, "D", "/d", 0, quota)
    assert not begin(counters, "E", "/a", 0, quota, shared=False)  # `rename` gives it a name of its own
    publish(counters, "C", "/a", 40)
    assert counters.usage() == {KEY: (40, 1)}


def test_a_name_stays_taken_while_an_upload_will_replace_a_removed_file(
    counters: CountersInMemory,
) -> None:
    quota = bound(files=1)
    assert begin(counters, "A", "/a", 1, quota)
    publish(counters, "A", "/a", 1)
    assert begin(counters, "B", "/a", 1, quota)
    before = counters(read_file(PLACE, "/a"))
    assert counters(replace_file(PLACE, "/a", before, None)) is SettleResult.DONE
    assert not begin(counters, "C", "/c", 1, quota)
    counters(free(PLACE, "B"))
    assert begin(counters, "C", "/c", 1, quota)


def test_of_two_uploads_that_replace_one_file_the_one_that_is_there_counts(
    counters: CountersInMemory,
) -> None:
    quota = bound(bytes=1000)
    assert begin(counters, "A", "/x", 10, quota)
    assert begin(counters, "B", "/x", 20, quota)
    first, second = (StoredVersion(name, "/x", f"v-{name}", 10) for name in "AB")
    # A was published, then B; A looked before that, but is settled last.
    assert (
        counters(settle(PLACE, replace(second, bytes=20), PresentFile("v-B", 20))) is SettleResult.DONE
    )
    assert counters(settle(PLACE, first, PresentFile("v-A", 10))) is SettleResult.RETRY
    assert counters(settle(PLACE, first, PresentFile("v-B", 20))) is SettleResult.DONE
    assert counters.usage() == {KEY: (20, 1)}
    file = counters(read_file(PLACE, "/x"))
    assert file is not None
    assert file.upload_id == "B"


def test_what_was_removed_before_it_was_settled_counts_no_more(counters: CountersInMemory) -> None:
    quota = bound(bytes=1000)
    assert begin(counters, "A", "/x", 10, quota)
    assert counters(settle(PLACE, StoredVersion("A", "/x", "v-A", 10), None)) is SettleResult.DONE
    assert counters.usage() == {}


def test_an_upload_that_got_another_name_counts_there(counters: CountersInMemory) -> None:
    quota = bound(bytes=1000, files=5)
    assert begin(counters, "A", "/x", 10, quota)
    publish(counters, "A", "/x-1", 10)
    assert counters(read_file(PLACE, "/x")) is None
    assert counters.usage() == counters.expected_usage() == {KEY: (10, 1)}


def test_a_true_size_takes_the_place_of_a_guess(counters: CountersInMemory) -> None:
    quota = bound(bytes=100, bytes_per_day=100)
    assert begin(counters, "A", "/a", 1, quota)
    assert begin(counters, "A", "/a", 80, quota)
    assert not begin(counters, "A", "/a", 101, quota)
    assert begin(counters, "A", "/b", 30, quota)
    publish(counters, "A", "/b", 30)
    (left,) = counters(left_of([quota], 7))
    assert (left.left("bytes"), left.left("bytes_per_day")) == (70, 70)


def test_bytes_of_a_day_come_back_by_a_failure_and_not_by_a_removal(counters: CountersInMemory) -> None:
    quota = bound(bytes_per_day=100)
    assert begin(counters, "A", "/a", 60, quota)
    publish(counters, "A", "/a", 60)
    assert begin(counters, "B", "/b", 40, quota)
    assert not begin(counters, "C", "/c", 1, quota)
    counters(free(PLACE, "B"))
    assert begin(counters, "C", "/c", 40, quota)
    wanted = reservation("D", "/d", 100, quota, day=8)
    assert not isinstance(counters(reserve(PLACE, wanted, [quota])), Exceeded)
    assert counters.usage() == {}


def test_a_quota_that_was_made_smaller_lets_nothing_grow_but_everything_end(
    counters: CountersInMemory,
) -> None:
    assert begin(counters, "A", "/a", 60, bound(bytes=100))
    smaller = bound(bytes=10)
    assert begin(counters, "A", "/a", 50, smaller)
    assert not begin(counters, "A", "/a", 51, smaller)
    publish(counters, "A", "/a", 50)
    assert counters.usage() == {KEY: (50, 1)}


def test_many_uploads_of_one_path_do_not_read_each_other(counters: CountersInMemory) -> None:
    quota = bound(files=1000)
    for number in range(MAX_SHARED + 5):
        assert begin(counters, f"U{number:02}", "/x", 1, quota)
    assert counters.usage() == counters.expected_usage() == {KEY: (MAX_SHARED + 5, 6)}
    for number in range(MAX_SHARED + 5):
        publish(counters, f"U{number:02}", "/x", 1)
    assert counters.usage() == {KEY: (1, 1)}


def test_the_largest_are_reported_and_old_days_forgotten(counters: CountersInMemory) -> None:
    for number in range(5):
        begin(
            counters, f"U{number}", f"/{number}", number, bound(f"k{number}", bytes=9, bytes_per_day=9)
        )
    assert [item.key for item in counters(largest(2, 7))] == ["k4", "k3"]
    assert counters.days() == 4  # an empty file has no row
    assert not counters(prune_days(7))
    assert counters.days() == 4
    assert not counters(prune_days(8))
    assert counters.days() == 0


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_in_whatever_order_the_counters_say_what_the_rows_say(seed: int) -> None:
    rng, counters = random.Random(seed), CountersInMemory()
    quotas = [
        bound("a", bytes=300, files=4), bound("b", files=5), bound("c", bytes=500, bytes_per_day=900),
    ]  # fmt: skip
    disk: dict[str, PresentFile] = {}
    waiting: dict[str, tuple[str, int]] = {}
    unsettled: dict[str, StoredVersion] = {}
    for number in range(200):
        step, path = rng.randrange(6), rng.choice(("/x", "/y", "/z", "/z-1"))
        if step <= 1:
            size, own = rng.randrange(120), rng.sample(quotas, rng.randrange(1, 4))
            if begin(counters, f"U{number:03}", path, size, *own, shared=rng.random() < 0.7):
                waiting[f"U{number:03}"] = path, size
        elif step == 2 and waiting:
            upload_id = rng.choice(sorted(waiting))
            path, size = waiting.pop(upload_id)
            path = rng.choice((path, path, "/z-1"))
            disk[path] = PresentFile(f"v-{upload_id}", size)
            unsettled[upload_id] = StoredVersion(upload_id, path, f"v-{upload_id}", size)
        elif step == 3 and unsettled:
            version = unsettled.pop(rng.choice(sorted(unsettled)))
            while counters(settle(PLACE, version, disk.get(version.path))) is SettleResult.RETRY:
                pass
        elif step == 4 and waiting:
            upload_id = rng.choice(sorted(waiting))
            del waiting[upload_id]
            counters(free(PLACE, upload_id))
        else:
            disk.pop(path, None)
            counters(replace_file(PLACE, path, counters(read_file(PLACE, path)), None))
        assert counters.usage() == counters.expected_usage()
        for key, limit in (("a", 300), ("c", 500)):
            assert counters.usage().get(key, (0, 0))[0] <= limit
    for upload_id in waiting:
        counters(free(PLACE, upload_id))
    for version in unsettled.values():
        while counters(settle(PLACE, version, disk.get(version.path))) is SettleResult.RETRY:
            pass
    rows = counters.db.execute("SELECT path, version FROM quota_files").fetchall()
    assert set(rows) <= {(path, current.version) for path, current in disk.items()}
    assert counters.usage() == counters.expected_usage()


def test_a_file_that_was_counted_meanwhile_is_looked_at_again(counters: CountersInMemory) -> None:
    file = CountedFile("", "v", 5, {}, ("k",))
    assert counters(replace_file(PLACE, "/f", None, file)) is SettleResult.DONE
    assert counters(replace_file(PLACE, "/f", None, file)) is SettleResult.RETRY
    assert counters.usage() == {"k": (5, 1)}


def test_what_comes_through_a_link_counts_for_ever_and_frees_what_does_not_come(
    counters: CountersInMemory,
) -> None:
    link = BoundQuota("link abcdefgh", QuotaLimits(bytes=100, files=2))
    assert begin(counters, "A", "/a", 60, link)
    assert not begin(counters, "B", "/b", 41, link)
    counters(free(PLACE, "A"))
    assert counters.usage() == {}
    assert begin(counters, "C", "/c", 60, link)
    publish(counters, "C", "/renamed", 50)
    assert counters.usage() == {"link abcdefgh": (50, 1)}
    counters(replace_file(PLACE, "/renamed", None, None))
    assert begin(counters, "D", "/c", 10, link)
    assert begin(counters, "D", "/c", 50, link)  # it has grown
    assert not begin(counters, "E", "/e", 0, link)
    publish(counters, "D", "/c", 50)
    assert counters.usage() == {"link abcdefgh": (100, 2)}


def test_a_link_without_limits_is_counted(counters: CountersInMemory) -> None:
    link = BoundQuota("link abcdefgh", QuotaLimits())
    for number in range(3):
        assert begin(counters, f"U{number}", f"/{number}", 10, link)
        publish(counters, f"U{number}", f"/{number}", 10)
    assert counters.usage() == {"link abcdefgh": (30, 3)}
