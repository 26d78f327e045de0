"""The text of plain requests and responses, and when what was made of the last one counts again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import HttpVersion11
from aiohttp.http import RawResponseMessage
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.endpoints.routing.proxy.connection import PlainResponse
from gateway.endpoints.routing.proxy.plain_call import complete_request, encode_head
from gateway.endpoints.routing.short_path.plain_text import encode_response, recall_request
from gateway.endpoints.routing.table import RouteTable
from gateway.errors import Refusal

Lines = list[tuple[str, str]]


class Connection:
    """A connection with a memo."""

    memo: object = None


def response(connection: Connection, status: int, reason: str, lines: Lines) -> PlainResponse:
    raw = tuple((name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in lines)
    headers = CIMultiDictProxy(CIMultiDict(lines))
    message = RawResponseMessage(HttpVersion11, status, reason, headers, raw, False, None, False, False)
    return PlainResponse(cast(Any, connection), "GET", message, cast(Any, None))


def encoded(
    connection: Connection, lines: Lines, *, status: int = 200, more: dict[str, str] | None = None
) -> list[str]:
    data = encode_response(response(connection, status, "Fine", lines), b"body", more or {}, "id")
    head, _, body = data.partition(b"\r\n\r\n")
    assert body == b"body"
    return head.decode().split("\r\n")


BASE = [("Date", "now"), ("Content-Length", "4"), ("ETag", "a")]
SAME: list[Lines] = [
    BASE,
    [("Date", "then"), *BASE[1:]],
    [("Date", ""), ("Content-Length", "0004"), ("ETag", "a")],
    [*BASE[:2], ("ETag", "b")],
    [("date", "now"), *BASE[1:]],
    BASE[:2],
    [*BASE, ("X", "y")],
    [BASE[1], BASE[0], BASE[2]],
    [("Date", "now"), *BASE],
    [*BASE, ("X-Request-Id", "theirs")],
    [("X-Request-Id", "theirs"), *BASE, ("x-request-id", "too")],
    [("Date", "\udcff"), *BASE[1:]],
]


@pytest.mark.parametrize("first", SAME)
@pytest.mark.parametrize("second", SAME)
def test_a_response_is_the_same_whatever_came_before_it(first: Lines, second: Lines) -> None:
    used = Connection()
    encoded(used, first)
    assert encoded(used, second) == encoded(Connection(), second)
    assert encoded(used, second, status=404) == encoded(Connection(), second, status=404)
    extra = {"RateLimit-Limit": "1"}
    assert encoded(used, second, more=extra) == encoded(Connection(), second, more=extra)
    assert encoded(used, second) == encoded(Connection(), second)


def test_the_head_of_a_response_is_what_the_upstream_sent_but_for_the_id_and_the_way() -> None:
    lines = [
        ("X-Request-Id", "theirs"),
        ("Content-Length", "0004"),
        ("Keep-Alive", "5"),
        ("Date", "now"),
    ]
    assert encoded(Connection(), lines) == [
        "HTTP/1.1 200 Fine", "X-Request-Id: id", "Content-Length: 0004", "Date: now",
        "Via: 1.1 upload-gateway",
    ]  # fmt: skip


def test_a_date_of_the_connection_alone_is_not_passed_on_and_the_length_always_is() -> None:
    lines = [("Connection", "Date, Content-Length"), ("Date", "theirs"), ("Content-Length", "4")]
    head = encoded(Connection(), lines)
    assert head.count("Content-Length: 4") == 1
    [date] = [line for line in head if line.startswith("Date: ")]
    assert date.endswith(" GMT")


@pytest.mark.parametrize("value", ["a\r\nb", "a\nb", "a\0b", "\x01"])
@pytest.mark.parametrize("name", ["Date", "X-A"])
def test_a_value_that_would_end_its_line_is_refused_also_where_the_last_one_was_harmless(
    name: str, value: str
) -> None:
    connection = Connection()
    encoded(connection, [(name, "harmless")])
    with pytest.raises(Refusal) as refused:
        encoded(connection, [(name, value)])
    assert refused.value.code == "bad_gateway"


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [("GET", b"", ""), ("HEAD", b"", ""), ("OPTIONS", b"", ""), ("GET", b"a", "1"), ("POST", b"", "0"),
     ("DELETE", b"", "0"), ("PUT", b"abc", "3")],
)  # fmt: skip
def test_a_request_declares_its_length_where_its_method_expects_a_body(
    method: str, body: bytes, length: str
) -> None:
    head = encode_head(method, "/a?b", CIMultiDict({"X-A": "1", "Host": "up:1"}))
    framing = f"Content-Length: {length}\r\n" if length else ""
    expected = f"{method} /a?b HTTP/1.1\r\nHost: up:1\r\nX-A: 1\r\n{framing}\r\n"
    assert complete_request(head, method, body) == expected.encode() + body


def test_nothing_is_recalled_on_a_connection_without_a_memo() -> None:
    request = SimpleNamespace(connection=Connection())
    assert recall_request(cast(Any, request), RouteTable()) is None
