"""Makes the rules of a route of its keys: which requests it serves, whose, and what becomes of
their headers.

What is wrong is reported with its place in the document, and the rule is left out.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from typing import Final, Literal

from gateway.domain.addresses import host_name
from gateway.domain.template_segments import variable_names
from gateway.endpoints.routing.conditions import check_host_pattern
from gateway.endpoints.routing.forwarding import FRAMING, is_hop_by_hop
from gateway.endpoints.routing.model import Operation
from gateway.endpoints.routing.rules import (
    ClientNetworks,
    Condition,
    HeaderRules,
    Redirect,
    RequestConditions,
)
from gateway.endpoints.routing.steps.header_rules import name_fault, value_fault
from gateway.endpoints.routing.steps.redirects import KEEPS_METHOD, WITHOUT_BODY, url_fault
from gateway.plugins.route_models import HeaderRulesModel, RouteModel, Wanted

RulesKey = Literal["request_headers", "response_headers"]
REQUEST_RULES: Final[RulesKey] = "request_headers"
RESPONSE_RULES: Final[RulesKey] = "response_headers"

BESIDE_REDIRECT: Final = (
    "upstreams", "websocket", "health", "upstream_tls", "request_script", "response_script",
)  # fmt: skip
"""Keys that say what would happen where no redirect answers."""

SEE_OTHER: Final = 303
"""Its purpose is that a client sends GET (RFC 9110 section 15.4.4)."""

Report = Callable[..., None]
"""Reports an error: a message, then the keys that lead to its place."""

_MAPPED: Final = IPv6Network("::ffff:0:0/96")
"""IPv4 addresses inside IPv6 (RFC 4291 section 2.5.5.2)."""


def request_conditions(model: RouteModel, report: Report) -> RequestConditions:
    """Return which requests a route serves."""
    hosts: dict[str, int] = {}
    for at, text in enumerate(model.hosts):
        host = text.lower()
        try:
            check_host_pattern(host)
        except ValueError as error:
            report(f"{text!r} {error}", "hosts", at)
            continue
        host = host_name(host) or host  # an IPv6 address in its shortest spelling
        if host in hosts:
            report(f"{text} is listed twice: remove one", "hosts", at)
        hosts[host] = at
    headers: dict[str, Condition] = {}
    for name, wanted in model.when.headers.items():
        key = name.lower()
        if key == "host":
            report("the Host is compared with `hosts`: use that key", "when", "headers", name)
        elif key in FRAMING or is_hop_by_hop(key):
            report(
                f"{name} is about the connection: a route cannot depend on it", "when", "headers", name
            )
        elif key in headers:
            report(f"{name} is named twice: remove one", "when", "headers", name)
        headers[key] = _condition(wanted)
    query = {name: _condition(wanted) for name, wanted in model.when.query.items()}
    return RequestConditions(tuple(hosts), headers, query)


def client_networks(model: RouteModel) -> ClientNetworks:
    """Return whose requests a route takes."""
    allow, deny = (tuple(map(_network, names)) for names in (model.allow, model.deny))
    return ClientNetworks(allow, deny)


def header_rules(model: RouteModel, key: RulesKey, report: Report) -> HeaderRules:
    """Return what changes header fields of requests, or of responses."""
    rules: HeaderRulesModel = getattr(model, key)
    of_request = key == REQUEST_RULES
    for at, name in enumerate(rules.remove):
        if fault := name_fault(name, of_request=of_request, is_set=False):
            report(f"{name} cannot be removed: {fault}", key, "remove", at)
    names: set[str] = set()
    for name, value in rules.set.items():
        if fault := name_fault(name, of_request=of_request, is_set=True):
            report(f"{name} cannot be set: {fault}", key, "set", name)
        elif fault := value_fault(name, value):
            report(f"the value of {name} {fault}", key, "set", name)
        if name.lower() in names:
            report(f"{name} is set twice: remove one", key, "set", name)
        names.add(name.lower())
    if of_request and rules.model_fields_set and not model.upstreams:
        report("nothing goes upstream here: remove this key, or add `upstreams`", key)
    return HeaderRules(tuple(rules.remove), dict(rules.set))


def redirect_rule(model: RouteModel, report: Report) -> Redirect | None:
    """Return where a route sends clients; it has no upstreams and no scripts then."""
    if model.redirect is None:
        return None
    if fault := url_fault(model.redirect.url, variable_names(model.proxy.path)):
        report(f"the URL {fault}", *("redirect", "url"))
    if model.redirect.url == model.proxy.path.replace(":path}", "}"):
        report("this leads back to the same path", *("redirect", "url"))
    for key in BESIDE_REDIRECT:
        if getattr(model, key) and key in model.model_fields_set:
            report(f"`{key}` has no effect beside `redirect`: remove one of them", key)
    if model.target is not None and model.target.path is not None:
        report("nothing is called beside `redirect`: remove this path", "target", "path")
    if model.redirect.status not in KEEPS_METHOD:
        for at, spec in enumerate(model.spec):
            if spec.method not in WITHOUT_BODY and model.redirect.status != SEE_OTHER:
                message = f"clients may send GET after {model.redirect.status}: write status 307 or 308"
                report(f"{message}, or remove {spec.method}", "spec", at, "method")
    return Redirect(**dict(model.redirect))


def redirected_operations(model: RouteModel) -> dict[str, Operation]:
    """Return the methods of a route that lists none: all, but where a redirect would change them."""
    if model.redirect is None or model.redirect.status in KEEPS_METHOD:
        return {}
    return {"GET": Operation("GET", "")}


def _condition(wanted: Wanted) -> Condition:
    if isinstance(wanted, bool):
        return wanted
    return (wanted,) if isinstance(wanted, str) else tuple(wanted)


def _network(text: str) -> IPv4Network | IPv6Network:
    """Return a network; one inside `::ffff:0:0/96` as IPv4, as the address of a client."""
    network = ipaddress.ip_network(text)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        return IPv4Network((int(network[0]) & 0xFFFFFFFF, network.prefixlen - 96))
    return network
