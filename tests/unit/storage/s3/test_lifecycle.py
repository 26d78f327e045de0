"""Lifecycle rules of a bucket: when unfinished multipart uploads are aborted."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.storage.s3.lifecycle import abort_days


def rule(days: int, prefix: str = "", status: str = "Enabled") -> dict[str, Any]:
    abort = {"DaysAfterInitiation": days}
    return {
        "Status": status,
        "Filter": {"Prefix": prefix},
        "AbortIncompleteMultipartUpload": abort,
    }


@pytest.mark.parametrize(
    ("rules", "days"),
    [
        ([], None),
        ([rule(7)], 7),
        ([rule(7), rule(3, "a ")], 3),
        ([rule(7), rule(3, "other/")], 7),
        ([rule(3, status="Disabled")], None),
        ([{"Status": "Enabled", "Filter": {}, "Expiration": {"Days": 1}}], None),
    ],
)
def test_the_earliest_rule_of_a_prefix_counts(rules: list[dict[str, Any]], days: int | None) -> None:
    assert abort_days(rules, "a prefix/") == days
