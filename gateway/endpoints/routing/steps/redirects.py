"""The step that sends clients to another URL in place of an upstream.

Where they are sent is the operator's choice alone: a value of the path stays within its part of the URL,
and never becomes a host.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import quote

from aiohttp import hdrs

from gateway.domain.addresses import check_host_name
from gateway.domain.template_segments import fill_variables, variable_names
from gateway.endpoints.routing.forwarding import upstream_target
from gateway.endpoints.routing.model import Next, RequestContext
from gateway.errors import Refusal
from gateway.http.responses import GatewayResponse, Response

KEEPS_METHOD: Final = frozenset({307, 308})
"""Statuses after which clients send the same method again; after others many send GET."""

WITHOUT_BODY: Final = frozenset({"GET", "HEAD"})

_URL: Final = re.compile(r"(https?://([^/?#]*))?([^?#]*)(\?[^#]*)?(#.*)?", re.IGNORECASE)
_PLAIN: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")
_SEGMENT: Final = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*(:path)?\}|[^{}]*")
_PORT: Final = re.compile(r":[0-9]{1,5}$")


class _Parts(NamedTuple):
    """A URL: scheme and host (empty: those of the request), path, query with `?`, fragment with `#`."""

    origin: str
    host: str
    path: str
    query: str
    fragment: str


async def redirect(context: RequestContext, call_next: Next) -> GatewayResponse:
    """Respond with the URL that a route redirects to. Raises `Refusal("bad_path")`."""
    rule = context.route.redirect
    if rule is None:
        return await call_next(context)
    raw_query = context.incoming.raw_query
    url = location(rule.url, context.resources, context.raw_resources, raw_query)
    return Response(status=rule.status, headers={hdrs.LOCATION: url})


def location(
    template: str, resources: Mapping[str, str], raw_resources: Mapping[str, str], raw_query: str
) -> str:
    """Return the URL with the variables filled in, and with the query but for our credentials.

    Values in the path stay as the client wrote them, those behind it are encoded anew. Raises
    `Refusal("bad_path")` for a path that would be the host of another site.
    """
    parts = _split(template)
    query, fragment = (
        fill_variables(text, lambda name: quote(resources[name], safe=""))
        for text in (parts.query, parts.fragment)
    )
    target = upstream_target(parts.path + query, raw_resources, raw_query).replace("#", "%23")
    if target.startswith("//"):  # RFC 3986 section 4.2: a host follows
        raise Refusal("bad_path", "the path begins with an empty segment")
    return f"{parts.origin}{target}{fragment}"


def url_fault(template: str, variables: list[str]) -> str | None:
    """Return what is wrong with a URL, for the operator; `variables` are those of the served path."""
    parts = _split(template)
    if parts.origin:
        if fault := _host_fault(parts.host):
            return fault
    elif not template.startswith("/") or template.startswith("//"):
        return "must be a URL with http:// or https://, or a path that begins with one slash"
    segments = parts.path.split("/")[1:]
    if any(_SEGMENT.fullmatch(segment) is None for segment in segments):
        return "has a variable that is no whole segment of the path"
    if {".", ".."} & set(segments) or "" in segments[:-1]:
        return "has an empty segment, `.` or `..` in its path"
    plain = fill_variables(parts.path + parts.query + parts.fragment.removeprefix("#"), lambda _: "")
    if not _PLAIN.fullmatch(plain):
        return "has a character that URLs encode: write it as %XX"
    unknown = sorted(set(variable_names(template)) - set(variables))
    return f"names {{{unknown[0]}}}, a variable that the served path does not have" if unknown else None


def _host_fault(host: str) -> str | None:
    if "{" in host:
        return "has a variable in its host: clients could be sent anywhere"
    try:
        check_host_name(_PORT.sub("", host.lower()))
    except ValueError as error:
        return f"has a host that {error}"
    return None


def _split(template: str) -> _Parts:
    match = _URL.fullmatch(template)
    if match is None:
        return _Parts("", "", template, "", "")
    origin, host, path, query, fragment = (part or "" for part in match.groups())
    return _Parts(origin, host, path or "/", query, fragment)
