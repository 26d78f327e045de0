"""The least rate of a transfer."""

from __future__ import annotations

import pytest

from gateway.errors import Refusal
from gateway.limits import MinRate


def test_a_trickle_is_too_slow_once_a_minute_of_waiting_is_over() -> None:
    meter = MinRate(1024).meter()
    assert not meter.too_slow(59.0, 1)
    assert meter.too_slow(59.0, 1)


def test_a_fast_start_does_not_pay_for_a_trickle() -> None:
    meter = MinRate(1024).meter()
    assert not meter.too_slow(61.0, 1 << 30)
    with pytest.raises(Refusal, match="at least 1024 bytes a second"):
        meter.check(61.0, 1)


def test_bytes_that_come_at_once_cost_no_time() -> None:
    meter = MinRate(1024).meter()
    assert not any(meter.too_slow(0.0, 1) for _ in range(1000))


def test_no_least_rate_allows_any_trickle() -> None:
    meter = MinRate(0).meter()
    assert not any(meter.too_slow(59.0, 0) for _ in range(10))
