"""Redirects: where clients are sent is the operator's choice alone."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.endpoints.routing.steps.redirects import location
from gateway.endpoints.routing.table import MethodNotAllowed, RouteTable
from gateway.errors import Refusal
from tests.support.routing.scripted import find, head_of, load
from tests.unit.endpoints.routing.test_table import refused

HERE = "https://gateway.example/some/page"


def redirect(url: str, path: str = "/old/{rest:path}", more: str = "") -> str:
    return f"redirect: '{url}'\nproxy: {{path: '{path}', authorization: {{auth: none}}}}\n{more}"


def sent_to(table: RouteTable, target: str) -> str:
    match = find(table, target)
    assert match.route.redirect is not None
    raw_query = head_of(target).raw_query
    return location(match.route.redirect.url, match.resources, match.raw_resources, raw_query)


@pytest.mark.parametrize(
    ("url", "target", "expected"),
    [
        ("/new/{rest}", "/old/a/b", "/new/a/b"),
        ("/new/{rest:path}", "/old/", "/new/"),
        ("/new/{rest}", "/old/a%20b/%2e%2e.txt", "/new/a%20b/%2e%2e.txt"),
        ("/new/{rest}", "/old/\u00e4", "/new/%C3%A4"),
        ("/new/{rest}", "/old/a?x=1&y=%20", "/new/a?x=1&y=%20"),
        ("/new/{rest}", "/old/a?X-Gateway-Token=1&x=2", "/new/a?x=2"),
        ("/new/{rest}", "/old/a?%58-gateway-Expires=1", "/new/a"),
        ("/new", "/old/a", "/new"),
        ("https://new.example", "/old/a?x", "https://new.example/?x"),
        ("https://new.example:8443/v2/{rest}", "/old/a/b", "https://new.example:8443/v2/a/b"),
        ("http://[::1]/{rest}", "/old/a", "http://[::1]/a"),
        (
            "/find?q={rest}&lang=en#top",
            "/old/a&b%26=c/d?x=1",
            "/find?q=a%26b%26%3Dc%2Fd&lang=en&x=1#top",
        ),
        ("/new#{rest}", "/old/a b", "/new#a%20b"),
    ],
)
def test_values_of_the_path_and_the_query_are_kept(
    tmp_path: Path, url: str, target: str, expected: str
) -> None:
    assert sent_to(load(tmp_path, redirect(url)), target) == expected


HOSTILE = [
    "/evil.example", "//evil.example", "/%2Fevil.example", "%2F/evil.example", "%5Cevil.example",
    "\\evil.example", "/\\evil.example", "%5c%5cevil.example", "%09/evil.example", "%0d%0aX-Evil:1",
    "%0a//evil.example", "..//evil.example", "%2e%2e//evil.example", "http://evil.example",
    "http:/evil.example", "@evil.example", "javascript:alert(1)", ";//evil.example",
    "a#//evil.example", "?//evil.example", "%00", "%u002f", "\u2028//evil.example",
    "\uff0f\uff0fevil.example", "%3Fx", "%23x",
]  # fmt: skip


@pytest.mark.parametrize("raw_path", ["", "target: {raw_path: true}\n"])
@pytest.mark.parametrize("url", ["/{rest}", "/new/{rest}", "https://new.example/{rest}"])
@pytest.mark.parametrize("rest", HOSTILE)
def test_a_hostile_path_leads_to_no_other_site(
    tmp_path: Path, rest: str, url: str, raw_path: str
) -> None:
    table = load(tmp_path, redirect(url, more=raw_path))
    expected = "new.example" if url.startswith("https:") else "gateway.example"
    try:
        place = sent_to(table, f"/old/{rest}")
    except Refusal as refusal:
        assert refusal.code == "bad_path"  # noqa: PT017
        return
    assert place.isascii()
    assert place.isprintable()
    assert not set(place) & set(' \\"<>')
    assert urlsplit(urljoin(HERE, place)).netloc == expected
    assert place.count("#") == 0


@given(rest=st.text(max_size=30), query=st.text(max_size=20))
@example(rest="/evil.example", query="")
@example(rest="\\evil.example", query="#")
def test_no_path_leads_to_another_site(rest: str, query: str) -> None:
    try:
        place = location("/{rest}", {"rest": rest}, {"rest": rest}, query)
    except Refusal:
        return
    assert place[:1] == "/"
    assert place[1:2] not in {"/", "\\"}
    assert all("!" <= letter <= "~" for letter in place)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (redirect("new"), "0.yaml:1: the URL must be a URL with http:// or https://, or a path"),
        (redirect("//evil.example/"), "or a path that begins with one slash"),
        (redirect("/\\\\evil"), "has a character that URLs encode"),
        (redirect("ftp://new.example/"), "the URL must be a URL with http:// or https://"),
        (redirect("https:///x"), "has a host that must be the name of a host"),
        (redirect("https://a@new.example/"), "has a host that must be the name of a host"),
        (redirect("https://{rest}/"), "has a variable in its host"),
        (redirect("https://{rest}.example/x"), "has a variable in its host"),
        (redirect("https://new.example{rest}"), "has a variable in its host"),
        (redirect("/new-{rest}"), "has a variable that is no whole segment"),
        (redirect("/a/../{rest}"), "has an empty segment, `.` or `..` in its path"),
        (redirect("/a//{rest}"), "has an empty segment"),
        (redirect("/a b"), "has a character that URLs encode: write it as %XX"),
        (redirect("/%zz"), "has a character that URLs encode"),
        (redirect("/{other}"), "names {other}, a variable that the served path does not have"),
        (redirect("/new?x={other}"), "names {other}"),
        (redirect("/old/{rest}"), "this leads back to the same path"),
        (redirect("/new", more="upstreams: [up]\n"), "`upstreams` has no effect beside `redirect`"),
        (redirect("/new", more="request_script: return 1\n"), "`request_script` has no effect beside"),
        (redirect("/new", more="websocket: true\n"), "`websocket` has no effect beside `redirect`"),
        (redirect("/new", more="target: {path: /x}\n"), "nothing is called beside `redirect`"),
        (redirect("/new", more="request_headers: {remove: [X-A]}\n"), "nothing goes upstream here"),
        (
            redirect("/new", more="spec: [{method: POST}]\n").replace(
                "'/new'", "{url: /new, status: 301}"
            ),
            "0.yaml:3: clients may send GET after 301: write status 307 or 308, or remove POST",
        ),
        (redirect("/new").replace("'/new'", "{url: /new, status: 200}"), "`redirect.status`"),
    ],
)
def test_a_redirect_that_cannot_be_right_is_refused_at_load(
    tmp_path: Path, text: str, fault: str
) -> None:
    assert fault in refused(tmp_path, text)[0]


@pytest.mark.parametrize(
    ("status", "spec", "methods"),
    [
        (301, "", "GET, HEAD"),
        (303, "", "GET, HEAD"),
        (303, "spec: [{method: POST}]\n", "POST"),
        (308, "spec: [{method: GET}, {method: PUT}]\n", "GET, HEAD, PUT"),
    ],
)
def test_methods_that_a_redirect_would_change_are_not_served(
    tmp_path: Path, status: int, spec: str, methods: str
) -> None:
    text = redirect("/new", more=spec).replace("'/new'", f"{{url: /new, status: {status}}}")
    table = load(tmp_path, text)
    with pytest.raises(MethodNotAllowed) as caught:
        find(table, "/old/x", "PATCH")
    assert caught.value.headers["Allow"] == methods


def test_a_redirect_that_keeps_the_method_serves_all(tmp_path: Path) -> None:
    table = load(tmp_path, redirect("/new"))
    assert {find(table, "/old/x", method).route.redirect for method in ("GET", "POST", "DELETE")}
