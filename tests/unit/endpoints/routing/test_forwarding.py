"""What is passed on and what is not, as pure text."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from gateway.endpoints.routing.forwarding import (
    Hop,
    request_headers,
    response_headers,
    upstream_target,
)
from gateway.errors import Refusal

HOP = Hop("10.0.0.9", "https", "files.example:8443")


def up(*lines: tuple[str, str], hop: Hop = HOP, **changed: str) -> CIMultiDict[str]:
    received = CIMultiDict(lines)
    fields = received.copy()
    fields.update(changed)
    return request_headers(fields, received, hop)


def test_the_origin_is_told_anew_when_the_peer_is_not_trusted() -> None:
    told = [(f"X-Forwarded-{name}", "6.6.6.6") for name in ("For", "Proto", "Host", "Prefix")]
    names = (
        "X-Real-IP", "True-Client-IP", "CF-Connecting-IP", "X-Client-IP", "X-Original-URL",
        "X-Rewrite-URL", "X-Envoy-External-Address", "Fly-Client-IP", "X-Cluster-Client-IP",
    )  # fmt: skip
    told += [(name, "6.6.6.6") for name in names]
    sent = up(("Forwarded", "for=6.6.6.6"), *told)
    assert sent == CIMultiDict({
        "Forwarded": 'for=10.0.0.9;proto=https;host="files.example:8443"', "X-Forwarded-For": "10.0.0.9",
        "X-Forwarded-Proto": "https", "X-Forwarded-Host": "files.example:8443",
        "Via": "1.1 upload-gateway",
    })  # fmt: skip


def test_the_origin_that_a_trusted_proxy_tells_is_kept_and_extended() -> None:
    sent = up(
        ("Forwarded", "for=1.2.3.4"),
        ("X-Forwarded-For", "1.2.3.4"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "public"),
        ("Via", "1.1 edge"),
        hop=Hop("10.0.0.9", "https", "inner", trusted=True),
    )
    assert sent["Forwarded"] == 'for=1.2.3.4, for=10.0.0.9;proto=https;host="inner"'
    assert sent["X-Forwarded-For"] == "1.2.3.4, 10.0.0.1, 10.0.0.9"
    assert (sent["X-Forwarded-Proto"], sent["X-Forwarded-Host"]) == ("http", "public")
    assert sent["Via"] == "1.1 edge, 1.1 upload-gateway"


@pytest.mark.parametrize(
    ("told", "forwarded", "older"),
    [
        (
            ("X-Forwarded-For", "1.2.3.4, ::1, x"),
            'for=1.2.3.4, for="[::1]", for=unknown',
            "1.2.3.4, ::1, x",
        ),
        (("Forwarded", 'by=a;For="[::1]", proto=http'), 'by=a;For="[::1]", proto=http', "::1, unknown"),
    ],
)
def test_both_chains_tell_the_same_where_a_trusted_proxy_wrote_only_one(
    told: tuple[str, str], forwarded: str, older: str
) -> None:
    sent = up(told, hop=Hop("10.0.0.9", "http", None, trusted=True))
    assert sent["Forwarded"] == f"{forwarded}, for=10.0.0.9;proto=http"
    assert sent["X-Forwarded-For"] == f"{older}, 10.0.0.9"


@pytest.mark.parametrize(
    ("peer", "host", "element"),
    [
        ("2001:db8::1", "h", 'for="[2001:db8::1]";proto=http;host="h"'),
        (None, None, "for=unknown;proto=http"),
        ("1.2.3.4", 'a";for=6.6.6.6', "for=1.2.3.4;proto=http"),
    ],
)
def test_forwarded_is_well_formed_whatever_the_client_is(
    peer: str | None, host: str | None, element: str
) -> None:
    assert up(hop=Hop(peer, "http", host))["Forwarded"] == element


def test_a_request_that_goes_round_in_circles_is_stopped() -> None:
    with pytest.raises(Refusal) as refused:
        up(("Via", ", ".join(["1.1 upload-gateway"] * 10)))
    assert refused.value.code == "bad_gateway"


def test_what_connection_names_goes_unless_a_step_has_set_it() -> None:
    lines = (("Connection", "a, B"), ("Connection", "c"), ("A", "1"), ("b", "2"), ("C", "3"), ("D", "4"))
    sent = up(*lines, C="ours")
    assert [name in sent for name in "ABCD"] == [False, False, True, True]


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "a\rb", "a\x00b", "a\x7f"])
def test_a_value_with_control_characters_is_never_written(value: str) -> None:
    with pytest.raises(Refusal) as refused:
        up(("X-Bad", value))
    assert refused.value.code == "bad_request"
    with pytest.raises(Refusal) as broken:
        response_headers(CIMultiDict({"X-Bad": value}))
    assert broken.value.code == "bad_gateway"


def test_bytes_that_are_no_utf8_become_their_latin_1_characters() -> None:
    assert up(("X-Name", b"caf\xe9".decode("utf-8", "surrogateescape")))["X-Name"] == "café"


def test_half_a_surrogate_pair_that_a_script_has_set_is_replaced() -> None:
    assert up(("X-Name", "a\ud83d"))["X-Name"] == "a?"


def test_an_answer_with_both_framings_keeps_neither() -> None:
    kept = response_headers(CIMultiDict({"Content-Length": "5", "Transfer-Encoding": "chunked"}))
    assert list(kept) == ["Via"]


@pytest.mark.parametrize(
    ("template", "resources", "query", "place"),
    [
        ("/v2/{id}", {"id": "a%2Fb"}, "", "/v2/a%2Fb"),
        ("/v2/{rest:path}", {"rest": "a/b%20c"}, "x=%31&y", "/v2/a/b%20c?x=%31&y"),
        ("/fixed?key=1", {}, "q=2", "/fixed?key=1&q=2"),
        ("/{a}", {"a": "b"}, "X-Gateway-Signature=s&q=1&x%2Dgateway-expires=2", "/b?q=1"),
        ("/{a}", {"a": b"\xff\xc3\xa9".decode("utf-8", "surrogateescape")}, "", "/%FF%C3%A9"),
        ("/{a}", {"a": "..."}, "q=..", "/...?q=.."),
    ],
)
def test_the_target_is_filled_with_what_the_client_wrote(
    template: str, resources: dict[str, str], query: str, place: str
) -> None:
    assert upstream_target(template, resources, query) == place


@pytest.mark.parametrize(
    "value",
    ["..", ".", "%2e%2e", "a/../b", "..%2fadmin", "..%5Cadmin", "%252e%252e", "..%252Fx", "a\\..\\b"],
)
def test_a_value_cannot_climb_out_of_its_place(value: str) -> None:
    with pytest.raises(Refusal) as refused:
        upstream_target("/public/{rest:path}", {"rest": value}, "")
    assert refused.value.code == "bad_path"
