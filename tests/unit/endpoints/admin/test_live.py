"""What is shown live: rates of one process, and the parts of several as one snapshot."""

from __future__ import annotations

import pytest

from gateway.domain.model import Upload
from gateway.endpoints.admin.live_rates import RateSampler, merge_rates, percentiles
from gateway.endpoints.admin.live_views import MAX_ACTIVE, MAX_LATEST, merge_parts, own_views
from gateway.endpoints.admin.viewers import Viewer
from gateway.endpoints.inflight import Inflight
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.request_metrics import BOUNDS

ALICE, BOB = Viewer("alice", "key"), Viewer("bob", "key")


class Clock:
    """Steady seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def upload(number: int, owner: Viewer | None = None) -> Upload:
    principal = None if owner is None else owner.principal
    return Upload(f"u{number:05}", f"/upload/{number}", principal=principal, remote=f"r{number}")


def test_rates_are_averages_of_the_latest_seconds_and_unknown_before_the_first_sample() -> None:
    clock, inflight, metrics = Clock(), Inflight(), Metrics()
    sampler = RateSampler(inflight, metrics, clock)
    unknown = merge_rates([sampler.counts()])
    assert unknown["bytes_per_second"] is unknown["requests_per_second"] is None
    assert unknown["uploads_per_minute"] is None
    progress = inflight.begin_upload(upload(1))
    for second in range(1, 11):
        clock.now += 1
        progress.received += 1000 * second
        metrics.requests.record("PUT", 201, "uploads", 0.003)
        metrics.requests.record("GET", None, "files", 100.0)
        sampler.sample()
    inflight.end_stored("u00001", "stored", "/upload/1", progress.received)
    metrics.uploads.add("stored")
    metrics.uploads.add("too_large")
    clock.now += 10
    sampler.sample()
    rates = merge_rates([sampler.counts()])
    assert rates["bytes_per_second"] == pytest.approx((7 + 8 + 9 + 10) * 1000 / 14)
    assert rates["by_status"] == {"2xx": pytest.approx(4 / 14), "none": pytest.approx(4 / 14)}
    assert rates["uploads_per_minute"] == rates["failed_per_minute"] == 1
    assert rates["durations"]["uploads"] == {"count": 10, "p50": 0.005, "p95": 0.005, "p99": 0.005}
    assert rates["durations"]["routes"] == {"count": 10, "p50": None, "p95": None, "p99": None}


def test_the_bytes_of_an_upload_count_once_also_those_that_an_earlier_request_has_brought() -> None:
    inflight = Inflight()
    first = inflight.begin_upload(upload(1))
    first.received = 500
    assert inflight.measure(1.0) == 500
    assert first.rate == 500
    first.received = 600
    inflight.end_upload("u00001")
    inflight.end_upload("u00001")
    assert inflight.measure(1.0) == 600
    second = inflight.begin_upload(upload(1))
    second.resume_at(600)
    second.received = 650
    assert inflight.measure(1.0) == 650
    second.received = 600  # what came was dropped again
    assert inflight.measure(1.0) == 650


def test_a_share_of_requests_took_at_most_the_bound_of_its_bucket() -> None:
    counts = [0] * (len(BOUNDS) + 1)
    counts[2], counts[5], counts[-1] = 50, 45, 5
    assert percentiles(counts) == {"count": 100, "p50": BOUNDS[2], "p95": BOUNDS[5], "p99": None}
    assert percentiles([0] * len(counts)) == {"count": 0, "p50": None, "p95": None, "p99": None}


def test_an_uploader_sees_its_own_uploads_and_no_rates() -> None:
    inflight = Inflight()
    for number in range(3 * MAX_ACTIVE):
        inflight.begin_upload(upload(number, ALICE if number % 2 else BOB))
    for number in range(MAX_LATEST, 3 * MAX_LATEST):
        owner = ALICE if number % 2 else BOB
        inflight.record_failed(upload(1000 + number, owner), "too_large", number)
    inflight.begin_upload(upload(9999))
    alice, everything = own_views(inflight, [ALICE, None])
    assert alice["active_count"] == 3 * MAX_ACTIVE // 2
    assert everything["active_count"] == 3 * MAX_ACTIVE + 1
    assert len(alice["active"]) == len(everything["active"]) == MAX_ACTIVE
    assert {row["principal"]["name"] for row in alice["active"] + alice["latest"]} == {"alice"}
    assert everything["active"][0]["upload_id"] == "u09999"
    assert [row["bytes"] for row in alice["latest"][:2]] == [59, 57]
    counts = RateSampler(inflight, Metrics()).counts()
    part = {"views": [alice, everything], "counts": counts}
    snapshots = merge_parts([ALICE, None], {0: part}, {"time": "now"}, {"queue": {"dead": 1}})
    assert {"rates", "queue"} & snapshots[ALICE].keys() == set()
    assert {"rates", "queue"} <= snapshots[None].keys()


def test_the_parts_of_processes_are_one_snapshot_which_names_the_silent_ones() -> None:
    parts = {}
    for slot in range(2):
        clock, inflight, metrics = Clock(), Inflight(), Metrics()
        sampler = RateSampler(inflight, metrics, clock)
        for number in range(MAX_ACTIVE):
            inflight.begin_upload(upload(number * 2 + slot)).since = 1e9 + number * 2 + slot
        metrics.requests.record("GET", 200, "files", 0.0005)
        clock.now += 1 + slot  # one was started earlier: its rate is over a longer time
        sampler.sample()
        parts[slot] = {"views": own_views(inflight, [None]), "counts": sampler.counts()}
    snapshot = merge_parts([None], {**parts, 2: None}, {"time": "now"}, {"queue": None})[None]
    assert (snapshot["processes"], snapshot["silent_processes"]) == (3, [2])
    assert snapshot["active_count"] == 2 * MAX_ACTIVE
    assert [row["upload_id"] for row in snapshot["active"][:3]] == ["u00199", "u00198", "u00197"]
    assert len(snapshot["active"]) == MAX_ACTIVE
    assert snapshot["rates"]["requests_per_second"] == 1 + 1 / 2
    assert snapshot["rates"]["durations"]["routes"]["count"] == 2
    assert snapshot["queue"] is None


def test_without_any_answer_nothing_is_said_of_rates() -> None:
    snapshot = merge_parts([None], {0: None}, {}, {"queue": None})[None]
    assert snapshot["rates"]["bytes_per_second"] is None
    assert snapshot["rates"]["durations"] == {}
