"""Counters and histograms of the server's loop: what a scrape reads of them."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from gateway.telemetry.loop_metrics import BoundedLabel, LoopHistogram
from gateway.telemetry.metrics import Metrics, merge_expositions
from gateway.telemetry.request_metrics import MAX_NAMES

BOUNDS = (0.01, 0.5, 2.0)


@given(st.lists(st.floats(0, 4) | st.sampled_from(BOUNDS)))
def test_a_histogram_reads_as_that_of_the_library(durations: list[float]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    fast = LoopHistogram("gateway_x_seconds", "Durations", ("route", "status"), BOUNDS, ours)
    slow = Histogram(
        "gateway_x_seconds", "Durations", ("route", "status"), registry=theirs, buckets=BOUNDS
    )
    for number, seconds in enumerate(durations):
        values = ("a", "2xx") if number % 2 else ("b", "5xx")
        fast.observe(seconds, *values)
        slow.labels(*values).observe(seconds)
    lines, expected = (
        sorted(
            line for line in generate_latest(registry).decode().splitlines() if "_created" not in line
        )
        for registry in (ours, theirs)
    )
    assert lines == expected


def test_names_beyond_a_bound_share_one_label_value() -> None:
    label = BoundedLabel(2, fixed={"uploads"})
    assert [label.value(name) for name in ("a", "uploads", "b", "c", "a", "d", "uploads")] == [
        "a", "uploads", "b", "other", "a", "other", "uploads",
    ]  # fmt: skip


def test_routes_and_upstreams_have_a_bounded_number_of_series() -> None:
    metrics = Metrics()
    for number in range(MAX_NAMES + 50):
        metrics.requests.record("GET", 200, f"r{number}", 0.1)
        metrics.requests.record_upstream("r0", f"up{number}:80", 0.1)
    text = metrics.render().decode()
    counts = re.findall(r'^gateway_request_seconds_count\{.*route="(.*?)".*\} (\S+)$', text, re.M)
    assert len(counts) == MAX_NAMES + 1
    assert dict(counts)["other"] == "50.0"
    assert len(re.findall(r"^gateway_upstream_seconds_count", text, re.M)) == MAX_NAMES + 1


def test_what_no_one_answered_and_methods_of_clients_have_names_of_their_own() -> None:
    metrics = Metrics()
    metrics.requests.record("BREW", None, "none", 0.1)
    metrics.requests.record("PUT", 101, "none", 0.1)
    text = metrics.render().decode()
    assert 'gateway_requests_total{method="other",status="none"} 1.0' in text
    assert 'gateway_request_seconds_count{route="none",status="none"} 1.0' in text
    assert 'gateway_request_seconds_count{route="none",status="1xx"} 1.0' in text


def test_histograms_of_several_processes_are_merged_bucket_by_bucket() -> None:
    processes = []
    for seconds in (0.02, 0.2):
        metrics = Metrics()
        metrics.requests.record("GET", 200, "orders", seconds)
        processes.append(metrics.render())
    merged = merge_expositions(dict(enumerate(processes))).decode()
    assert merged.count("# TYPE gateway_request_seconds histogram") == 1
    labels = 'le="0.05",process="(\\d)",route="orders",status="2xx"'
    found = re.findall(rf"^gateway_request_seconds_bucket\{{{labels}\}} (\S+)$", merged, re.M)
    assert found == [("0", "1.0"), ("1", "0.0")]
    sums = re.findall(r'^gateway_request_seconds_sum\{process="\d",.*\} (\S+)$', merged, re.M)
    assert sums == ["0.02", "0.2"]
