"""Routes that are chosen by host, by headers and by the query."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.endpoints.routing.table import MethodNotAllowed, NoRoute, RouteTable
from gateway.errors import Refusal
from tests.support.routing.scripted import find, head_of, load, route
from tests.unit.endpoints.routing.test_table import ANSWER, refused, spec


def of(
    hosts: str, path: str = "/{x:path}", more: str = "", *, name: str = "", auth: str = "none"
) -> str:
    """A route of these hosts, whose name is that of the hosts if it has no other one."""
    name = name or hosts.replace("'", "")
    head = f"name: '{name}'\n" + (f"hosts: [{hosts}]\n" if hosts else "")
    return head + route(path, ANSWER, more, auth=auth)


def when(condition: str, name: str, more: str = "", path: str = "/a") -> str:
    return f"name: '{name}'\nwhen: {condition}\n" + route(path, ANSWER, more)


def name_of(table: RouteTable, target: str, *lines: str, method: str = "GET", host: str = "") -> str:
    try:
        return find(table, target, method, *lines, host=host).route.name
    except Refusal as refusal:
        return refusal.code


HOSTS = [
    "a.example",
    "'*.example'",
    "'*.a.example'",
    "'*.b.a.example'",
    "'[::1]', 10.0.0.1",
    "xn--4ca.de",
]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("a.example", "a.example"),
        ("A.Example", "a.example"),
        ("a.example.", "a.example"),
        ("a.example:8080", "a.example"),
        ("A.EXAMPLE.:80", "a.example"),
        ("a.example:", "a.example"),
        ("c.a.example", "*.a.example"),
        ("c.b.a.example", "*.b.a.example"),
        ("d.c.b.a.example", "*.b.a.example"),
        ("b.a.example", "*.a.example"),
        ("b.example", "*.example"),
        ("x.b.example", "*.example"),
        ("example", "all"),
        ("notexample", "all"),
        (".a.example", "*.example"),
        ("a.example.evil", "all"),
        ("[::1]", "[::1]"),
        ("[0:0::1]:443", "[::1]"),
        ("[::2]", "all"),
        ("10.0.0.1:80", "[::1]"),
        ("xn--4ca.de", "xn--4ca.de"),
        ("", "all"),
    ],
)
def test_the_own_routes_of_a_host_go_before_those_of_a_pattern_and_of_all(
    tmp_path: Path, host: str, expected: str
) -> None:
    texts = [of(hosts, name=hosts.split(",")[0].strip("'")) for hosts in HOSTS]
    table = load(tmp_path, *texts, of("", name="all"))
    assert name_of(table, "/x", host=host) == expected


@pytest.mark.parametrize(
    "host", ["a.example:b", "a.example..", "a@b", "[::1", "[::1]x", "a b", "a%2eexample", "*", "a" * 300]
)
def test_a_host_that_others_may_read_as_another_one_is_refused(tmp_path: Path, host: str) -> None:
    table = load(tmp_path, of("a.example"), of("", name="all"))
    assert name_of(table, "/x", host=host) == "bad_request"


def test_a_path_that_a_host_does_not_have_is_that_of_all_hosts(tmp_path: Path) -> None:
    table = load(
        tmp_path,
        of("a.example", "/own/{x}", spec("GET")),
        of("'*.example'", "/own/{x}/more", name="pattern"),
        of("", "/{x:path}", name="all"),
    )
    for target, expected in (("/own/1", "a.example"), ("/own/1/more", "pattern"), ("/else", "all")):
        assert name_of(table, target, host="a.example") == expected
    assert name_of(table, "/own/1", host="a.example", method="PUT") == "method_not_allowed"
    assert name_of(table, "/own/1", host="b.example", method="PUT") == "all"


def test_only_the_routes_of_the_host_have_a_part_in_allow(tmp_path: Path) -> None:
    table = load(
        tmp_path,
        of("a.example", "/r", spec("GET")),
        of("a.example, b.example", "/r", spec("PUT"), name="both"),
        of("", "/r", spec("DELETE"), name="all"),
    )
    for host, allowed in (("a.example", "GET, PUT"), ("b.example", "PUT"), ("c.example", "DELETE")):
        with pytest.raises(MethodNotAllowed) as caught:
            find(table, "/r", "PATCH", host=host)
        assert caught.value.headers["Allow"] == allowed


WHEN = [
    when("{headers: {X-Version: '2'}}", "two"),
    when("{headers: {X-Version: ['3', '4'], X-Beta: true}}", "beta"),
    when("{headers: {X-Version: ['3', '4', '5']}}", "later"),
    when("{headers: {X-Version: true}}", "other"),
    when("{query: {v: '2'}, headers: {X-Version: false}}", "query"),
    "name: rest\n" + route("/a", ANSWER),
]


@pytest.mark.parametrize(
    ("target", "lines", "expected"),
    [
        ("/a", (), "rest"),
        ("/a", ("x-version: 2",), "two"),
        ("/a", ("X-Version: 3", "X-Beta: "), "beta"),
        ("/a", ("X-Version: 3",), "later"),
        ("/a", ("X-Version: 5", "X-Beta: 1"), "later"),
        ("/a", ("X-Version: 6",), "other"),
        ("/a", ("X-Version: 2", "X-Version: 2"), "other"),
        ("/a", ("X-Version: 2 ",), "other"),
        ("/a?v=2", (), "query"),
        ("/a?%76=%32&w=1", (), "query"),
        ("/a?v=2&v=3", (), "rest"),
        ("/a?v=2", ("X-Version: 7",), "other"),
        ("/a?V=2", (), "rest"),
    ],
)
def test_of_the_routes_whose_conditions_hold_the_one_with_more_of_them_is_chosen(
    tmp_path: Path, target: str, lines: tuple[str, ...], expected: str
) -> None:
    assert name_of(load(tmp_path, *WHEN), target, *lines) == expected


def test_a_route_whose_conditions_do_not_hold_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    table = load(
        tmp_path,
        when("{headers: {X-A: '1'}}", "literal", spec("GET"), path="/p/a"),
        when("{headers: {X-A: '2'}}", "variable", spec("PUT"), path="/p/{x}"),
        when("{headers: {X-A: ['2', '3']}}", "rest", path="/p/{x:path}"),
    )
    for value, expected in (("1", "literal"), ("2", "method_not_allowed"), ("3", "rest")):
        assert name_of(table, "/p/a", f"X-A: {value}") == expected
    assert name_of(table, "/p/a") == "not_found"
    assert name_of(table, "/p/a", "X-A: 1", method="PUT") == "method_not_allowed"


def test_the_query_is_read_only_where_a_condition_needs_it(tmp_path: Path) -> None:
    table = load(tmp_path, when("{query: {v: '1'}}", "one"), "name: free\n" + route("/b", ANSWER))
    assert name_of(table, "/a?v=%ff") == "bad_request"
    assert name_of(table, "/b?v=%ff") == "free"


def test_a_preflight_is_for_the_request_that_it_announces(tmp_path: Path) -> None:
    table = load(tmp_path, *WHEN[:1], *WHEN[-1:])
    announced = {"X-Version": "two", "x-other, x-version": "two", "X-Other": "rest"}
    for names, expected in announced.items():
        headers = f"Access-Control-Request-Headers: {names}"
        match = table.find(head_of("/a", headers), "GET")
        assert match.route.name == expected
    absent = load(tmp_path / "absent", when("{headers: {X-Version: false, Cookie: true}}", "absent"))
    assert absent.find(head_of("/a"), "GET").route.name == "absent"
    with pytest.raises(NoRoute):
        absent.find(head_of("/a", "Access-Control-Request-Headers: X-Version"), "GET")


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ("hosts: [a.example:80]", "0.yaml:1: 'a.example:80' must be the name of a host"),
        ("hosts: [a.example.]", "0.yaml:1: 'a.example.' must be the name of a host"),
        ("hosts: ['https://a.example']", "must be the name of a host"),
        ("hosts: ['']", "'' must be the name of a host"),
        ("hosts: ['*']", "'*' may have a wildcard once, as its first label: *.example.com"),
        ("hosts:\n- a.example\n- 'a.*.example'", "0.yaml:3: 'a.*.example' may have a wildcard once"),
        ("hosts: ['*.*.example']", "'*.*.example' may have a wildcard once"),
        ("hosts: ['*a.example']", "may have a wildcard once"),
        ("hosts: ['*.[::1]']", "'*.[::1]' has a wildcard before an address"),
        ("hosts: ['*.0.0.1']", "'*.0.0.1' has a wildcard before an address"),
        ("hosts: ['::1']", "must be the name of a host"),
        ("hosts: ['[::1']", "'[::1' must be an IPv6 address in brackets"),
        ("hosts: ['[::1]:80']", "must be an IPv6 address in brackets, such as [::1], without a port"),
        ("hosts: [1.2.3]", "'1.2.3' must be the name of a host or an IP address"),
        ("hosts: [\u00e4.example]", "must be ASCII: write an international name as in DNS (xn--...)"),
        (f"hosts: [{'a' * 64}.example]", "must be the name of a host"),
        ("hosts: [a.example, A.example]", "A.example is listed twice: remove one"),
        ("hosts: ['[::1]', '[0::1]']", "[0::1] is listed twice: remove one"),
        ("when:\n  headers: {Host: a}", "0.yaml:2: the Host is compared with `hosts`: use that key"),
        ("when: {headers: {Content-Length: '1'}}", "Content-Length is about the connection"),
        ("when: {headers: {Connection: true}}", "Connection is about the connection"),
        ("when: {headers: {X-A: '1', x-a: '2'}}", "x-a is named twice: remove one"),
        ("when: {headers: {X-A: []}}", "`when.headers.X-A` must be a text"),
        ("when: {headers: {X-A: 1}}", "`when.headers.X-A` must be a text"),
    ],
)
def test_conditions_that_can_never_hold_are_refused_with_their_place(
    tmp_path: Path, keys: str, fault: str
) -> None:
    faults = refused(tmp_path, f"{keys}\n{route('/a', ANSWER)}")
    assert fault in faults[0]
    assert faults[0].startswith("0.yaml:")
