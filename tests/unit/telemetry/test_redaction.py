"""Redaction: what is secret is replaced whatever its spelling, and the original is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.redaction import MAX_HIDDEN, REDACTED, SECRET_HEADERS, Redaction

NAMES = ["Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "X-Auth-Token", "X-Api-Key"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spell", [str, str.lower, str.upper, str.title])
def test_secret_headers_are_redacted_in_every_spelling(name: str, spell: type[str]) -> None:
    given_headers = {spell(name): "hunter2", "X-Plain": "shown"}
    assert Redaction().headers(given_headers) == {spell(name): REDACTED, "X-Plain": "shown"}
    assert given_headers[spell(name)] == "hunter2"


def test_the_operator_can_name_more() -> None:
    redaction = Redaction(["X-Custom"])
    assert redaction.headers({"x-CUSTOM": "1", "Cookie": "2", "X-Customs": "3"}) == {
        "x-CUSTOM": REDACTED,
        "Cookie": REDACTED,
        "X-Customs": "3",
    }
    assert redaction.params({"X-custom": ["1"]}) == {"X-custom": [REDACTED]}


@pytest.mark.parametrize(
    "name", ["X-Gateway-Signature", "x-amz-credential", "TOKEN", "access_token", "sig", "cookie"]
)
def test_secret_query_values_are_redacted_each_of_them(name: str) -> None:
    params = {name: ["1", "2"], "page": ["3", ""]}
    assert Redaction().params(params) == {name: [REDACTED, REDACTED], "page": ["3", ""]}
    assert params[name] == ["1", "2"]


@given(st.dictionaries(st.text() | st.sampled_from(NAMES), st.text()))
def test_names_stay_and_only_secret_values_change(headers: dict[str, str]) -> None:
    told = Redaction().headers(headers)
    assert list(told) == list(headers)
    for name, value in headers.items():
        assert told[name] == (REDACTED if name.lower() in SECRET_HEADERS else value)


@pytest.mark.parametrize("name", ["Referer", "X-Original-URI"])
def test_a_signed_url_in_any_header_loses_its_values(name: str) -> None:
    url = "https://a.example/-/objects/b.png?x=1&X-Gateway-Key=1f&x-amz-Signature=abc%2F#top"
    assert Redaction().headers({name: f"{url}, {url}"}) == {
        name: ", ".join([url.replace("1f", REDACTED).replace("abc%2F", REDACTED)] * 2)
    }


def test_a_header_of_nothing_but_beginnings_is_looked_through_in_one_go() -> None:
    # The square of its length would be hours.
    header = "=" + "?x-amz-a" * 500_000
    assert Redaction().headers({"Referer": header}) == {"Referer": header}
    assert Redaction().headers({"Referer": header + "=1"}) == {"Referer": f"{header}={REDACTED}"}


def test_the_values_of_a_request_are_its_secret_headers_whole_and_their_long_words() -> None:
    token, cookie = "Bearer abcdefghijklmnopqrstuvwxyz", "a=0123456789abcdef0123; b=short"
    values = Redaction().values(
        {"Authorization": token, "Cookie": cookie, "X-Api-Key": "hunter2"}, "sig=abc1"
    )
    assert set(values) == {
        token, "abcdefghijklmnopqrstuvwxyz", cookie, "0123456789abcdef0123", "hunter2", "abc1",
    }  # fmt: skip
    assert values == sorted(values, key=len, reverse=True)


@pytest.mark.parametrize(
    "value", ["failed", "RuntimeError", "handler failed", "incomplete_body", "up: no"]
)
def test_short_words_of_a_client_blank_no_line_of_the_log(value: str) -> None:
    assert Redaction().values({"X-Api-Key": value, "Cookie": value}, f"token={value}") == []


def test_the_values_of_a_request_are_bounded() -> None:
    words = " ".join(f"{number:016d}" for number in range(50_000))
    assert len(Redaction().values({"Cookie": words})) == MAX_HIDDEN
