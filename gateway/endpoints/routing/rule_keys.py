"""Makes the rules of a route of its keys: which requests it serves, and whose.

What is wrong is reported with its place in the document, and the rule is left out.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from gateway.domain.addresses import host_name
from gateway.endpoints.routing.conditions import check_host_pattern
from gateway.endpoints.routing.proxy.forwarding import FRAMING, HOP_BY_HOP
from gateway.endpoints.routing.rules import ClientNetworks, Condition, RequestConditions
from gateway.plugins.route_models import RouteModel, Wanted

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
        elif key in FRAMING or key in HOP_BY_HOP:
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
