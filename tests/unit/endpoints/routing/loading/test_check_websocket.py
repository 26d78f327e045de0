"""`gateway check` and WebSocket routes: their `tests:`, and what cannot be served."""

from __future__ import annotations

import pytest

from tests.support.cli import Check
from tests.support.routing.scripted import route

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
FIELDS = (
    f"Upgrade: websocket, Connection: Upgrade, Sec-WebSocket-Version: '13', Sec-WebSocket-Key: {KEY}"
)
TEXT = route("/live", more="websocket: true\n", auth="token").replace("[]", "[up]")


def case(fields: str, expect: str, more: str = "") -> str:
    request = f"{{method: GET, {more}headers: {{{fields}}}}}"
    return f"tests:\n- name: the case\n  request: {request}\n  expect: {expect}\n"


@pytest.mark.parametrize(
    ("fields", "expect", "more"),
    [
        (FIELDS, "{status: 101, sent: {method: GET, target: /live}}", "principal: {name: ada}, "),
        (FIELDS, "{status: 401}", "principal: null, "),
        (FIELDS.replace("13", "8"), "{status: 426}", "principal: {name: ada}, "),
        (FIELDS.replace(KEY, "short"), "{status: 400}", "principal: {name: ada}, "),
        (f"{FIELDS}, Origin: 'http://evil.example'", "{status: 403}", "principal: {name: ada}, "),
    ],
)
def test_cases_of_handshakes_pass(check_text: Check, fields: str, expect: str, more: str) -> None:
    code, out, err = check_text(TEXT + case(fields, expect, more))
    assert (code, err) == (0, ""), out
    assert "ok    /live: the case\n" in out


@pytest.mark.parametrize(
    ("kind", "origins", "status"),
    [
        ("proxy", "'*'", 403), ("certificate", "'*'", 403), ("token", "'*'", 101),
        ("proxy", "'*', 'http://page.example'", 101),
    ],
)  # fmt: skip
def test_a_page_acts_for_a_user_of_a_proxy_or_certificate_only_where_its_origin_is_named(
    check_text: Check, kind: str, origins: str, status: int
) -> None:
    text = TEXT.replace("auth: token", "auth: default") + f"cors: {{origins: [{origins}]}}\n"
    principal = f"principal: {{name: ada, kind: {kind}}}, "
    fields = f"{FIELDS}, Origin: 'http://page.example'"
    code, out, err = check_text(text + case(fields, f"{{status: {status}}}", principal))
    assert (code, err) == (0, ""), out


def test_a_case_of_a_route_without_the_key_fails(check_text: Check) -> None:
    text = TEXT.replace("websocket: true\n", "")
    code, out, _ = check_text(text + case(FIELDS, "{}", "principal: {name: ada}, "))
    assert code == 1
    assert "it answered 400 (bad_request: this path takes no WebSocket connections" in out


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (route("/live", "return 1", "websocket: true\n"), "WebSocket connections need an upstream"),
        (f"{TEXT}spec: [{{method: PUT}}]\n", "WebSocket handshakes are GET requests"),
    ],
)
def test_a_route_that_cannot_take_a_handshake_is_not_loaded(
    check_text: Check, text: str, fault: str
) -> None:
    code, out, err = check_text(text)
    line = text.splitlines().index("websocket: true") + 1
    assert code != 0
    assert f"x.yaml:{line}: {fault}" in out + err
