"""Counting the bytes of a head that arrives in pieces, and judging how fast a client reads."""

from __future__ import annotations

import asyncio
import resource
from typing import cast

import pytest
from aiohttp.http import RawRequestMessage

from gateway.http import limits
from gateway.http.limits import (
    MAX_CONNECTIONS,
    ConnectionLimits,
    HeadCounter,
    WriteProgress,
    connection_share,
    head_size,
)


class _Message:
    """As much of a parsed request as its size needs."""

    method = "GET"
    path = "/abc"
    raw_headers = ((b"Host", b"a"), (b"X", b"12"))


MESSAGE = cast(RawRequestMessage, _Message())
SIZE = len("GET /abc HTTP/1.1\r\nHost: a\r\nX: 12\r\n")


def test_the_size_of_a_head_is_that_of_its_lines() -> None:
    assert head_size(MESSAGE) == SIZE


def test_a_head_may_have_as_many_bytes_as_are_left() -> None:
    head = HeadCounter(100)
    assert head.remaining == 100
    head.add(60)
    assert head.remaining == 40
    head.add(60)
    assert head.remaining == 0


def test_bytes_that_came_with_the_end_of_another_request_count_only_if_the_head_has_them() -> None:
    head = HeadCounter(SIZE)
    assert head.is_small(SIZE)
    head.restart(1000)
    assert head.remaining == SIZE
    assert not head.is_small(10)
    assert head.allows(MESSAGE)
    assert not HeadCounter(SIZE - 1).allows(MESSAGE)


class _Transport:
    """A transport whose client acknowledges what the test says."""

    def __init__(self) -> None:
        self.unsent = 1000
        self.acked: int | None = 0

    def get_write_buffer_size(self) -> int:
        return self.unsent


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> _Transport:
    monkeypatch.setattr(limits, "bytes_acked", lambda transport: transport.acked)
    return _Transport()


def _too_slow(progress: WriteProgress, transport: _Transport, seconds: float) -> bool:
    return progress.is_too_slow(cast(asyncio.Transport, transport), seconds)


def test_a_client_that_reads_nothing_for_the_idle_timeout_is_too_slow(transport: _Transport) -> None:
    progress = WriteProgress(ConnectionLimits(idle_timeout=20))
    transport.acked = 5
    verdicts = [_too_slow(progress, transport, 5) for _ in range(5)]
    assert verdicts == [False, False, False, False, True]  # the first one sees five bytes


def test_a_client_that_reads_less_than_the_least_rate_over_a_minute_is_too_slow(
    transport: _Transport,
) -> None:
    slow = WriteProgress(ConnectionLimits(idle_timeout=20, min_rate=100))
    fast = WriteProgress(ConnectionLimits(idle_timeout=20, min_rate=10))
    verdicts = []
    for second in range(12):
        transport.acked = 100 * second
        verdicts.append((_too_slow(slow, transport, 5), _too_slow(fast, transport, 5)))
    assert verdicts == [(False, False)] * 11 + [(True, False)]


def test_time_without_unsent_bytes_does_not_count(transport: _Transport) -> None:
    progress = WriteProgress(ConnectionLimits(idle_timeout=20, min_rate=100))
    assert not _too_slow(progress, transport, 15)
    transport.unsent = 0
    assert not _too_slow(progress, transport, 1000)
    transport.unsent = 1
    assert not _too_slow(progress, transport, 15)


def test_nobody_is_too_slow_where_the_system_does_not_tell(transport: _Transport) -> None:
    progress = WriteProgress(ConnectionLimits(idle_timeout=20))
    transport.acked = None
    assert not any(_too_slow(progress, transport, 100) for _ in range(3))


@pytest.mark.parametrize("limit", [resource.RLIM_INFINITY, 1 << 40])
def test_without_a_limit_of_descriptors_connections_are_bounded_all_the_same(
    monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert connection_share().total == MAX_CONNECTIONS
