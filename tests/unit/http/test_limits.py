"""Counting the bytes of a request's head that arrives in pieces."""

from __future__ import annotations

from typing import cast

from aiohttp.http import RawRequestMessage

from gateway.http.limits import HeadCounter, head_size


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
