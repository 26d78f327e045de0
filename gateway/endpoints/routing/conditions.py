"""Conditions of routes, `hosts` and `when`: whether a request meets them, and how two of them compare.

A header in several lines, or a field of the query that is given several times, has none of the texts of
a condition: upstreams differ in which one they read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from gateway.auth.request import RequestHead
from gateway.domain.addresses import check_host_name, host_name
from gateway.endpoints.routing.rules import Condition, RequestConditions

WILDCARD: Final = "*."
"""What stands before the suffix of a pattern: `*.example.com` is each name below `example.com`."""

_OF_BROWSERS: Final = frozenset(
    {"accept", "accept-language", "content-language", "content-type", "cookie", "origin", "referer"}
    | {"user-agent"}
)
"""Headers that a page's request may have though its preflight does not name them (Fetch standard)."""

_BROAD: Final = 1_000_000
"""As how many texts `true` counts: more than any list has."""

Holds = Callable[[RequestConditions], bool]
"""Tells whether a request meets the conditions of a route, beside its hosts."""


# -- one request


def request_holds(head: RequestHead) -> Holds:
    """Return what tells whether this request has what a route's `when` asks for.

    It raises `Refusal("bad_request")` for a query that cannot be read.
    """

    def holds(conditions: RequestConditions) -> bool:
        headers, query = conditions.headers, conditions.query
        return all(_is_met(wanted, _lines(head, name)) for name, wanted in headers.items()) and all(
            _is_met(wanted, head.params.get(name, ())) for name, wanted in query.items()
        )

    return holds


def preflight_holds(head: RequestHead) -> Holds:
    """Return what tells whether the request that this preflight announces may meet a `when`.

    A preflight names the headers of that request, without their values.
    """
    lines = ",".join(_lines(head, "access-control-request-headers"))
    names = {name.strip().lower() for name in lines.split(",")}

    def may_be_met(name: str, wanted: Condition) -> bool:
        if name in names:
            return wanted is not False
        return wanted is False or name in _OF_BROWSERS or name.startswith("sec-")

    def holds(conditions: RequestConditions) -> bool:
        headers, query = conditions.headers, conditions.query
        return all(may_be_met(name, wanted) for name, wanted in headers.items()) and all(
            _is_met(wanted, head.params.get(name, ())) for name, wanted in query.items()
        )

    return holds


def _lines(head: RequestHead, name: str) -> list[str]:
    """Return the lines of a header, whose name is in lower case."""
    return [value for key, value in head.headers.items() if key.lower() == name]


def _is_met(wanted: Condition, values: Sequence[str]) -> bool:
    if isinstance(wanted, bool):
        return bool(values) is wanted
    return len(values) == 1 and values[0] in wanted


# -- the patterns of a host


def suffixes(host: str) -> Iterator[str]:
    """Yield the patterns with a wildcard that a name matches, the longest first."""
    at = host.find(".", 1)
    while at > 0:
        yield f"*{host[at:]}"
        at = host.find(".", at + 1)


def are_met(conditions: RequestConditions, head: RequestHead) -> bool:
    """Tell whether a request meets the conditions of a route, its hosts too."""
    if conditions.hosts:
        name = host_name(head.headers.get("Host", ""))
        if name is None or set(conditions.hosts).isdisjoint((name, *suffixes(name))):
            return False
    return request_holds(head)(conditions)


def example_host(conditions: RequestConditions) -> str:
    """Return a host that a route with `hosts` serves."""
    return conditions.hosts[0].replace("*", "www")


def check_host_pattern(text: str) -> None:
    """Check a name, or `*.` and a name, in lower case. Raises `ValueError`."""
    name = text.removeprefix(WILDCARD)
    if "*" in name:
        raise ValueError("may have a wildcard once, as its first label: *.example.com")
    if name != text and (name.startswith("[") or name.rpartition(".")[2].isdecimal()):
        raise ValueError("has a wildcard before an address: write the address, or leave `hosts` out")
    check_host_name(name)


def can_share_host(conditions: RequestConditions, others: RequestConditions) -> bool:
    """Tell whether a host can match both."""
    if not conditions.hosts or not others.hosts:
        return True
    return any(_overlap(host, other) for host in conditions.hosts for other in others.hosts)


def have_same_host(conditions: RequestConditions, others: RequestConditions) -> bool:
    """Tell whether both have a pattern in common, so that neither goes first for its hosts."""
    if not conditions.hosts or not others.hosts:
        return conditions.hosts == others.hosts
    return not set(conditions.hosts).isdisjoint(others.hosts)


def _overlap(host: str, other: str) -> bool:
    return host == other or _is_below(host, other) or _is_below(other, host)


def _is_below(host: str, pattern: str) -> bool:
    """Tell whether a name, or all that match a pattern, match `pattern`."""
    return pattern.startswith(WILDCARD) and host.endswith(pattern[1:]) and host != pattern[1:]


# -- for operators


def shown_when(conditions: RequestConditions) -> str:
    """Return the names of a `when`, as the line at start shows them; values may be secrets."""
    headers = [_shown(name, wanted) for name, wanted in conditions.headers.items()]
    query = [_shown(f"?{name}", wanted) for name, wanted in conditions.query.items()]
    return f" when {', '.join(headers + query)}" if headers or query else ""


def _shown(name: str, wanted: Condition) -> str:
    return f"no {name}" if wanted is False else name


# -- two routes


def precedence(conditions: RequestConditions) -> tuple[int, int]:
    """Return the key by which routes of one path are tried: more conditions first, then fewer texts."""
    wanted = [*conditions.headers.values(), *conditions.query.values()]
    return -len(wanted), sum(len(each) if isinstance(each, tuple) else _BROAD for each in wanted)


def exclude_each_other(conditions: RequestConditions, others: RequestConditions) -> bool:
    """Tell whether no request can meet both `when`: one name, and different values."""
    return _differ(conditions.headers, others.headers) or _differ(conditions.query, others.query)


def has_narrower(conditions: RequestConditions, others: RequestConditions) -> bool:
    """Tell whether the requests of one `when` are some of those of the other, and not all of them."""
    return _is_within(conditions, others) != _is_within(others, conditions)


def _is_within(conditions: RequestConditions, others: RequestConditions) -> bool:
    return _implies(conditions.headers, others.headers) and _implies(conditions.query, others.query)


def _implies(wanted: Mapping[str, Condition], others: Mapping[str, Condition]) -> bool:
    return all(name in wanted and _is_part(wanted[name], other) for name, other in others.items())


def _is_part(wanted: Condition, other: Condition) -> bool:
    if isinstance(wanted, bool) or isinstance(other, bool):
        return wanted == other or (other is True and wanted is not False)
    return set(wanted) <= set(other)


def _differ(wanted: Mapping[str, Condition], others: Mapping[str, Condition]) -> bool:
    return any(_exclude(wanted[name], others[name]) for name in wanted.keys() & others.keys())


def _exclude(wanted: Condition, other: Condition) -> bool:
    if isinstance(wanted, bool) or isinstance(other, bool):
        return (wanted is False) != (other is False)
    return set(wanted).isdisjoint(other)
