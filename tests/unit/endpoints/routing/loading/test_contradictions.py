"""Routes of hosts and of conditions that contradict each other, or lead around each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.routing.scripted import find, load, route
from tests.unit.endpoints.routing.test_conditions import name_of, of, when
from tests.unit.endpoints.routing.test_table import ANSWER, RAW, bad_path, refused, spec

TWO = "{headers: {X-Version: '2'}}"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (of("a.example", name="1"), of("a.example", name="2")),
        (of("a.example, b.example", name="1"), of("b.example, c.example", name="2")),
        (of("'*.example'", name="1"), of("'*.EXAMPLE'", name="2")),
        (when(TWO, "1"), when(TWO, "2")),
        (when(TWO, "1"), when("{headers: {x-version: ['2', '3'], X-B: true}}", "2")),
        (when(TWO, "1"), when("{query: {v: '2'}}", "2")),
        (when("{headers: {X-A: ['1', '2']}}", "1"), when("{headers: {X-A: ['2', '3']}}", "2")),
        (when("{headers: {X-A: true}}", "1"), when("{headers: {X-B: false}}", "2")),
    ],
)
def test_routes_for_the_same_requests_are_refused_with_both_places(
    tmp_path: Path, first: str, second: str
) -> None:
    [fault] = refused(tmp_path, first, second)
    assert fault.endswith("both serve every method: change one, or set them apart by `hosts` or `when`")
    assert fault.startswith("1.yaml:4: this and the path at ")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (of("a.example"), of("b.example")),
        (of("a.example"), of("'*.example'")),
        (of("'*.a.example'"), of("'*.example'")),
        (of("a.example"), of("", name="all")),
        (of("a.example", more=spec("GET"), name="1"), of("a.example", more=spec("PUT"), name="2")),
        (when(TWO, "1"), "name: '2'\n" + route("/a", ANSWER)),
        (when(TWO, "1"), when("{headers: {X-Version: '3'}}", "2")),
        (when(TWO, "1"), when("{headers: {X-Version: false}}", "2")),
        (when(TWO, "1"), when("{headers: {X-Version: true}}", "2")),
        (when(TWO, "1"), when("{headers: {X-Version: ['1', '2']}}", "2")),
        (when(TWO, "1"), when("{headers: {X-Version: '2'}, query: {v: true}}", "2")),
        (when("{query: {v: '1'}}", "1"), when("{query: {v: ['2', '3']}, headers: {X-A: true}}", "2")),
    ],
)
def test_routes_of_which_one_goes_first_stand_together(tmp_path: Path, first: str, second: str) -> None:
    assert len(load(tmp_path, first, second).routes) == 2
    assert len(load(tmp_path / "turned", second, first).routes) == 2


def test_routes_whose_methods_and_paths_are_the_same_need_names(tmp_path: Path) -> None:
    first, second = (f"when: {{headers: {{X-A: '{n}'}}}}\n{route('/a', ANSWER)}" for n in (1, 2))
    [fault] = refused(tmp_path, first, second)
    assert fault.endswith("there is another route for /a at 0.yaml:3: give this one a `name`")
    hosts = [f"hosts: [{host}]\n{route('/a', ANSWER)}" for host in ("a.example", "b.example")]
    assert {route.name for route in load(tmp_path / "hosts", *hosts).routes} == {
        "a.example/a",
        "b.example/a",
    }


# -- other spellings


ADMIN = "/admin/{x:path}"


def test_another_spelling_of_a_stricter_route_of_the_host_never_falls_to_an_open_one(
    tmp_path: Path,
) -> None:
    table = load(
        tmp_path,
        of("a.example", ADMIN, auth="token"),
        of("'*.example'", "/pattern/{x}", auth="token", name="pattern"),
        of("", name="open"),
    )
    for path in ("/ADMIN/x", "/admin.%20/x", "/admin", "/PATTERN/x", "/pattern/x/"):
        assert name_of(table, path, host="A.EXAMPLE.:80") == "bad_path"
        assert name_of(table, path, host="a.other") == "open"
    assert name_of(table, "/admin/x", host="a.example") == "a.example"
    assert name_of(table, "/admin", host="b.example") == "open"
    assert name_of(table, "/public", host="a.example") == "open"


def test_a_route_of_all_hosts_is_in_no_way_of_that_of_a_host(tmp_path: Path) -> None:
    table = load(
        tmp_path,
        of("a.example", "/Admin/{x}", name="host"),
        of("", "/{x:path}", auth="token", name="all"),
    )
    assert name_of(table, "/Admin/x", host="a.example") == "host"
    assert name_of(table, "/admin/x", host="a.example") == "all"


def test_a_stricter_route_counts_only_where_its_conditions_hold(tmp_path: Path) -> None:
    strict = when("{headers: {X-A: '1'}}", "strict", path=ADMIN).replace("none", "token")
    table = load(tmp_path, strict, of("", name="open"))
    assert name_of(table, "/ADMIN/x", "X-A: 1") == "bad_path"
    assert name_of(table, "/ADMIN/x") == name_of(table, "/admin/x") == "open"


def test_raw_path_is_refused_only_where_the_stricter_route_has_its_hosts(tmp_path: Path) -> None:
    stricter = of("a.example", "/r/{x}", auth="token")
    for hosts in ("", "a.example", "'*.example'"):
        [fault] = refused(tmp_path, of(hosts, "/r/{x:path}", RAW, name="raw"), stricter)
        assert "requests could avoid what a.example/r/{x} asks for" in fault
    load(tmp_path, of("b.example", "/r/{x:path}", RAW, name="raw"), stricter)
    table = load(tmp_path, of("", "/r/{x:path}", name="raw"), stricter)
    assert bad_path(table, "/r/a%2Fb")
    assert find(table, "/r/a/b").route.name == "raw"


# -- open routes over protected ones


def site(route_hosts: str, protected_hosts: str, *, conditions: tuple[str, str] = ("", "")) -> str:
    documents = []
    for name, hosts, path, auth, condition in (
        ("open", route_hosts, "/{x:path}", "none", conditions[0]),
        ("strict", protected_hosts, ADMIN, "token", conditions[1]),
    ):
        keys = (f"hosts: [{hosts}]\n" if hosts else "") + (f"when: {condition}\n" if condition else "")
        proxy = f"proxy: {{path: '{path}', authorization: {{auth: {auth}}}}}\n"
        documents.append(f"name: {name}\nupstreams: [up:1]\n{keys}{proxy}")
    return "---\n".join(documents)


@pytest.mark.parametrize(
    "hosts",
    [
        ("", ""), ("", "a.example"), ("a.example", ""), ("a.example", "a.example"),
        ("'*.example'", "a.example"), ("a.example", "b.example"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "conditions",
    [
        ("", ""), ("", "{headers: {X-Role: admin}}"), ("{headers: {X-Role: guest}}", ""),
        ("{headers: {X-Role: guest}}", "{headers: {X-Role: admin}}"),
    ],
)  # fmt: skip
def test_a_load_warns_of_an_open_route_over_a_protected_one_that_only_the_client_sets_apart(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    hosts: tuple[str, str],
    conditions: tuple[str, str],
) -> None:
    load(tmp_path, site(*hosts, conditions=conditions))
    [record] = caplog.records
    assert "is open to all and covers" in record.getMessage()


def test_the_same_path_of_another_host_is_covered_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load(tmp_path, site("a.example", "b.example").replace(ADMIN, "/{x:path}"))
    assert len(caplog.records) == 1


def test_routes_of_different_hosts_with_different_targets_do_not_cover_each_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_route, strict = site("a.example", "b.example").split("---\n")
    load(tmp_path, f"{open_route}target: {{path: '/public/{{x:path}}'}}\n---\n{strict}")
    assert not caplog.records


def test_networks_of_clients_count_as_authorization(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    networks = "allow: [10.0.0.0/8]\n"
    text = (
        site("", "")
        .replace("auth: token", "auth: none")
        .replace("name: strict\n", f"name: strict\n{networks}")
    )
    table = load(tmp_path, text)
    assert len(caplog.records) == 1
    assert name_of(table, "/ADMIN/x") == "bad_path"
    assert name_of(table, "/admin/x") == "strict"
    stricter = f"{networks}{route(ADMIN, ANSWER)}"
    [fault] = refused(tmp_path / "raw", route("/{x:path}", ANSWER, RAW), stricter)
    assert "requests could avoid what /admin/{x:path} asks for" in fault
    caplog.clear()
    load(tmp_path / "same", text.replace("name: open\n", f"name: open\n{networks}"))
    assert not caplog.records
