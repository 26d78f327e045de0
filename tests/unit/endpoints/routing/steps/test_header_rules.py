"""Rules for header fields: what cannot be set is refused at load."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.routing.scripted import load, route
from tests.unit.endpoints.routing.test_table import refused

REQUEST, RESPONSE = "request_headers", "response_headers"
BOTH = (REQUEST, RESPONSE)


def ruled(rules: str) -> str:
    return f"{rules}\n{route('/a').replace('[]', '[up]')}"


@pytest.mark.parametrize(
    ("keys", "name", "fault"),
    [
        (BOTH, "Connection", "it is about the connection: HTTP sets it"),
        (BOTH, "Transfer-Encoding", "it is about the connection: HTTP sets it"),
        (BOTH, "content-length", "it is about the connection: HTTP sets it"),
        (BOTH, "Keep-Alive", "it is about the connection: HTTP sets it"),
        (BOTH, "Upgrade", "it is about the connection: HTTP sets it"),
        (BOTH, "Proxy-Authorization", "it is about the connection: HTTP sets it"),
        (BOTH, "Expect", "it is about the connection: HTTP sets it"),
        (BOTH, "X-Gateway-User", "names with X-Gateway- are the gateway's own"),
        (BOTH, "X-Request-Id", "the gateway sets it"),
        ((REQUEST,), "Via", "the gateway sets it"),
        ((REQUEST,), "Forwarded", "the gateway sets it"),
        ((REQUEST,), "x-forwarded-for", "the gateway sets it"),
        ((RESPONSE,), "Host", "it is about the connection: HTTP sets it"),
    ],
)
def test_fields_of_the_connection_and_of_the_gateway_are_refused(
    tmp_path: Path, keys: tuple[str, ...], name: str, fault: str
) -> None:
    for key in keys:
        for verb, rules in (("set", f"{{{name}: a}}"), ("removed", f"[{name}]")):
            text = ruled(f"{key}:\n  {verb.removesuffix('d')}: {rules}")
            place = tmp_path / f"{key}{verb}"
            [error] = [each for each in refused(place, text) if "cannot" in each]
            assert error == f"0.yaml:2: {name} cannot be {verb}: {fault}"


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ('"a\\r\\nX-Evil: 1"', "has a line break or another control character"),
        ('"a\\nb"', "has a line break or another control character"),
        ('"a\\0"', "has a line break or another control character"),
        ('"a\\tb"', "has a line break or another control character"),
        ('"a\\x85b"', "has a line break or another control character"),
        ('" a"', "begins or ends with a blank"),
        ("'{user}'", "has an unknown {user}: only {principal}, {remote}, {request_id} are replaced"),
        ("'{principal} {Remote}'", "has an unknown {Remote}"),
    ],
)
@pytest.mark.parametrize("key", BOTH)
def test_values_that_no_header_can_have_are_refused(
    tmp_path: Path, key: str, value: str, fault: str
) -> None:
    [error] = refused(tmp_path, ruled(f"{key}:\n  set:\n    X-A: {value}"))
    assert error.startswith(f"0.yaml:3: the value of X-A {fault}")


@pytest.mark.parametrize(
    ("rules", "fault"),
    [
        ("request_headers: {set: {Host: 'a b'}}", "the value of Host must be host or host:port"),
        ("request_headers: {set: {Host: '{principal}'}}", "the value of Host must be host or host:port"),
        ("request_headers: {set: {Host: ''}}", "the value of Host must be host or host:port"),
        ("request_headers: {remove: [Host]}", "Host cannot be removed: an HTTP request needs it"),
        ("request_headers: {remove: [X-Forwarded-Host]}", "X-Forwarded-Host cannot be removed"),
        ("request_headers: {set: {X-A: a, x-a: b}}", "x-a is set twice: remove one"),
        ("request_headers: {set: {'X A': a}}", "must be the name of a header"),
        ("request_headers: {set: {X-A: 1}}", "should be a valid string"),
    ],
)
def test_other_rules_that_cannot_be_right_are_refused(tmp_path: Path, rules: str, fault: str) -> None:
    assert fault in refused(tmp_path, ruled(rules))[0]


def test_braces_that_are_no_word_stay(tmp_path: Path) -> None:
    text = ruled("""response_headers: {set: {X-Json: '{"a": {}, "b": "{principal}"}'}}""")
    [loaded] = load(tmp_path, text).routes
    assert loaded.response_headers.set == {"X-Json": '{"a": {}, "b": "{principal}"}'}
