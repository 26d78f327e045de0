"""Makes what a route says of its upstreams: their names, health and TLS.

What is wrong is reported with its place in the document.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

from gateway.endpoints.routing.loading.rule_keys import Report
from gateway.endpoints.routing.proxy.tls import BadTlsFileError, load_context, system_context
from gateway.endpoints.routing.rules import ActiveHealth, PassiveHealth, UpstreamTls
from gateway.plugins.legacy_keys import NO_UPSTREAM
from gateway.plugins.route_models import RouteModel

MAX_PROBE_SECONDS: Final = 60
"""The longest `health.timeout`."""

_AUTHORITY: Final = re.compile(r"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?")
_TARGET: Final = re.compile(r"/[!\"$-~]*")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_ABOUT_UPSTREAMS: Final = ("health", "passive", "upstream_tls")


def upstream_names(model: RouteModel, report: Report) -> tuple[str, ...]:
    """Return the upstreams. Keys that are about upstreams are a fault of a route that has none."""
    names = tuple(upstream.host for upstream in model.upstreams)
    if "upstreams" not in model.model_fields_set and model.redirect is None:
        report("the key `upstreams` is missing: add it")
    for key in _ABOUT_UPSTREAMS:
        if not names and key in model.model_fields_set:
            report(f"`{key}` is about upstreams, and this route has none: remove it", key)
    seen = set[tuple[str, int]]()
    for at, name in enumerate(names):
        if name == NO_UPSTREAM:
            report(f"{NO_UPSTREAM} is no upstream: write `upstreams: []`", "upstreams", at)
            continue
        address = _address(name, upstream_scheme(model))
        if address is None:
            report("an upstream is host or host:port, without a scheme", "upstreams", at)
        elif address in seen:
            report(f"{name} is listed twice: give it a `weight` instead", "upstreams", at)
        else:
            seen.add(address)
    return names


def _address(name: str, scheme: str) -> tuple[str, int] | None:
    """Return the host in its shortest spelling, and the port; None for what is none."""
    match = _AUTHORITY.fullmatch(name)
    if match is None:
        return None
    host, port = match[1].lower(), int(match[2] or _DEFAULT_PORTS[scheme])
    if host.startswith("["):
        try:
            host = str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            return None
    return (host, port) if 0 < port < 1 << 16 else None


def upstream_scheme(model: RouteModel) -> Literal["http", "https"]:
    """Return how the upstreams are called: `http` or `https`."""
    return "https" if model.target and model.target.scheme.startswith("https") else "http"


def passive_health(model: RouteModel) -> PassiveHealth:
    """Return when requests suspend an upstream."""
    passive = model.passive
    return PassiveHealth(passive.failures, frozenset(passive.statuses), passive.aside)


def active_health(model: RouteModel, report: Report) -> ActiveHealth | None:
    """Return how upstreams are probed; None where they are not."""
    health = model.health
    if health is None:
        return None
    if _TARGET.fullmatch(health.path) is None:
        report(
            "`health.path` is a path and a query in ASCII, without blanks and `#`: escape others with %",
            "health",
            "path",
        )
    if health.timeout > MAX_PROBE_SECONDS:
        message = f"a probe lasts {MAX_PROBE_SECONDS} seconds at most: others wait for its place"
        report(message, "health", "timeout")
    for at, status in enumerate(health.expect):
        if status < 200:
            report(f"no response ends with the status {status}", "health", "expect", at)
    return ActiveHealth(health.path, health.every, frozenset(health.expect), health.timeout)


def upstream_tls(model: RouteModel, folder: Path, report: Report) -> UpstreamTls | None:
    """Return the files with their context; None where the system's authorities are trusted. Blocking."""
    names, is_https = model.upstream_tls, upstream_scheme(model) == "https"
    if is_https:
        system_context()  # it is read now, not on the event loop
    if names is None:
        return None
    if not is_https and model.upstreams:
        report("`upstream_tls` needs TLS: add `scheme: https` to `target`", "upstream_tls")
    if names.key is not None and names.cert is None:
        report("a `key` needs its certificate: add `cert`", "upstream_tls", "key")
    ca, cert, key = (
        None if name is None else folder / name for name in (names.ca, names.cert, names.key)
    )
    files = UpstreamTls(ca, cert, key)
    if files == UpstreamTls():
        report("`upstream_tls` names no file: add `ca` or `cert`, or remove it", "upstream_tls")
    try:
        return replace(files, context=load_context(files))
    except BadTlsFileError as error:
        report(str(error), "upstream_tls", error.key)
    return files
