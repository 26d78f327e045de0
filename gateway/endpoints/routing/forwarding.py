"""Header fields and targets that are forwarded to the upstream, and fields that come back.

What belongs to one connection, or what only a trusted proxy may set, is never forwarded; what a
step set always is. Pure text: no system call, no event loop.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

from multidict import CIMultiDict, CIMultiDictProxy

from gateway.domain.proxy_headers import tells_origin
from gateway.domain.template_segments import fill_variables
from gateway.errors import Refusal

PSEUDONYM: Final = "upload-gateway"
"""The gateway's name in `Via` (RFC 9110 section 7.6.3)."""

MAX_HOPS: Final = 10
"""A request that has passed this gateway so often is in a loop."""

HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""Fields of one connection only (RFC 9110 section 7.6.1); `Proxy-*` goes with them."""

FRAMING: Final = frozenset({"host", "content-length", "expect"})
"""Fields that the proxy writes anew, not as the client wrote them."""

GATEWAY_PREFIX: Final = "x-gateway-"
"""Credentials of the gateway, in headers and query names: never forwarded."""

UNDERSCORE: Final = "_"
"""Names with it are not forwarded from clients: RFC 3875 section 4.1.18 makes one variable of `X-User`
and `X_User`, so behind CGI and WSGI a client could add to, or replace, what the gateway sets."""

_REQUEST_ID: Final = "x-request-id"
"""The gateway sets its own, which is that of a trusted proxy where that is plain."""

_FORBIDDEN: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f]")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HOST: Final = re.compile(r"[A-Za-z0-9._:\[\]-]+")
_FOR: Final = re.compile(r'(?:^|;)\s*for="?\[?([^;,"\]]+)', re.IGNORECASE)
_LITERAL: Final = "%:/?#[]@!$&'()*+,;=-._~"

_Fields = CIMultiDict[str] | CIMultiDictProxy[str]


@dataclass(frozen=True, slots=True)
class Hop:
    """The connection that a request came over; `trusted`: its peer is a proxy the operator named."""

    peer: str | None
    scheme: str
    host: str | None
    trusted: bool = False


# -- to the upstream


def request_headers(
    fields: _Fields, received: _Fields, hop: Hop, ours: Container[str] = ()
) -> CIMultiDict[str]:
    """Return the header fields for the upstream, without those of FRAMING.

    `fields` is what the steps made of `received`, the client's own. A field that a step set stays,
    even if the client names it in `Connection`, and so do those of `ours` (names in lower case) with
    the same value as the client's. Raises `Refusal`: `bad_request` for a value that is not allowed in
    a header, `bad_gateway` for a request in a loop.
    """
    options = connection_options(received)
    kept: CIMultiDict[str] = CIMultiDict()
    for name, value in fields.items():
        key = name.lower()
        if is_hop_by_hop(key) or key in FRAMING or key.startswith(GATEWAY_PREFIX):
            continue
        untrusted = key in options or UNDERSCORE in key or key == _REQUEST_ID
        untrusted = untrusted or (not hop.trusted and tells_origin(key))
        if untrusted and key not in ours and received.getall(name, None) == fields.getall(name):
            continue  # the client's own, which no step set
        kept.add(name, value)
    _set_origin(kept, hop)
    _add_via(kept)
    return encodable_fields(kept, "bad_request")


def connection_options(fields: _Fields) -> frozenset[str]:
    """Return the names in `Connection`, in lower case (RFC 9110 section 7.6.1)."""
    if "Connection" not in fields:
        return frozenset()
    lines = ",".join(fields.getall("Connection", ()))
    return frozenset(option.strip().lower() for option in lines.split(",")) - {""}


def is_hop_by_hop(key: str) -> bool:
    """Tell whether a field, whose name is in lower case, is about one connection only."""
    return key in HOP_BY_HOP or key.startswith("proxy-")


def _set_origin(fields: CIMultiDict[str], hop: Hop) -> None:
    """Set `Forwarded` (RFC 7239) and the older `X-Forwarded-*`, extending what was kept."""
    _complete_origin(fields)
    host = hop.host if hop.host and _HOST.fullmatch(hop.host) else None
    element = f"for={_node(hop.peer)};proto={hop.scheme}"
    _append(fields, "Forwarded", f'{element};host="{host}"' if host else element)
    _append(fields, "X-Forwarded-For", hop.peer or "unknown")
    fields.setdefault("X-Forwarded-Proto", hop.scheme)
    if host:
        fields.setdefault("X-Forwarded-Host", host)


def _complete_origin(fields: CIMultiDict[str]) -> None:
    """Derive one chain from the other if a trusted proxy set only one (RFC 7239 section 7.4)."""
    if "Forwarded" not in fields and "X-Forwarded-For" not in fields:
        return
    forwarded, addresses = (
        ",".join(fields.getall(name, ())) for name in ("Forwarded", "X-Forwarded-For")
    )
    if addresses and not forwarded:
        for address in addresses.split(","):
            _append(fields, "Forwarded", f"for={_node(address.strip())}")
    if forwarded and not addresses:
        for element in forwarded.split(","):
            match = _FOR.search(element)
            _append(fields, "X-Forwarded-For", match[1] if match else "unknown")


@functools.lru_cache(maxsize=1024)
def _node(peer: str | None) -> str:
    """Return a node of `Forwarded` (RFC 7239 section 6): IPv6 addresses in brackets and quotes."""
    try:
        address = ipaddress.ip_address(peer or "")
    except ValueError:
        return "unknown"
    return f'"[{address}]"' if address.version == 6 else str(address)


def _append(fields: CIMultiDict[str], name: str, value: str) -> None:
    if name in fields:
        value = ", ".join([*fields.popall(name), value])
    fields[name] = value


def _add_via(fields: CIMultiDict[str]) -> None:
    """Add the gateway to `Via`. Raises `Refusal("bad_gateway")` for more than MAX_HOPS."""
    _append(fields, "Via", f"1.1 {PSEUDONYM}")
    if fields["Via"].count(PSEUDONYM) > MAX_HOPS:
        raise Refusal("bad_gateway", "request loop: a route leads back to this gateway")


def upstream_target(template: str, raw_resources: Mapping[str, str], raw_query: str) -> str:
    """Return path and query for the upstream: `template` with its `{variables}` filled in.

    Values stay encoded as the client wrote them, so that nothing is decoded twice; bytes that are
    not ASCII are escaped. Raises `Refusal("bad_path")` for a value with dot segments.
    """
    filled = fill_variables(template, lambda name: _value(name, raw_resources))
    path, mark, query = filled.partition("?")
    query = "&".join(part for part in (query, _without_credentials(raw_query)) if part)
    target = f"{path}?{query}" if mark or query else path
    return quote(target.encode("utf-8", "surrogateescape"), safe=_LITERAL)


def _value(name: str, raw_resources: Mapping[str, str]) -> str:
    raw = raw_resources[name]
    if "." not in raw and "%" not in raw and "?" not in raw:
        return raw
    if has_dot_segment(unquote(raw)):
        raise Refusal("bad_path", f"{name!r} in the path contains a dot segment")
    return raw.replace("?", "%3F")


def has_dot_segment(text: str) -> bool:
    """Tell whether an upstream may see `.` or `..` as a segment of a text that was decoded once.

    It may decode once more, take a backslash for a slash, and drop what follows a semicolon.
    """
    if "." not in text and "%" not in text:
        return False
    segments = re.split(r"[/\\]", unquote(text))
    return any(segment.partition(";")[0] in {".", ".."} for segment in segments)


def _without_credentials(raw_query: str) -> str:
    """Return the query without the gateway's own credentials."""
    if not raw_query:
        return ""
    fields = raw_query.split("&")
    return "&".join(field for field in fields if not unquote(field).lower().startswith(GATEWAY_PREFIX))


# -- to the client


def response_headers(received: _Fields) -> CIMultiDict[str]:
    """Return an upstream's fields for the client. Raises `Refusal("bad_gateway")` for invalid ones."""
    options = connection_options(received)
    kept: CIMultiDict[str] = CIMultiDict()
    for name, value in received.items():
        key = name.lower()
        if not is_hop_by_hop(key) and key not in options:
            kept.add(name, value)
    if "Transfer-Encoding" in received:
        # RFC 9112 section 6.3: it overrides the length, which must not be sent beside it.
        kept.popall("Content-Length", None)
    _append(kept, "Via", f"1.1 {PSEUDONYM}")
    return encodable_fields(kept, "bad_gateway")


def encodable_fields(fields: CIMultiDict[str], code: str) -> CIMultiDict[str]:
    """Return `fields` as they can be sent: a byte that is not UTF-8 as its Latin-1 character.

    Raises `Refusal` with `code` for invalid names and for control characters in values.
    """
    checked: CIMultiDict[str] = CIMultiDict()
    for name, value in fields.items():
        if not _TOKEN.fullmatch(name) or _FORBIDDEN.search(value):
            raise Refusal(code, "a header field has an invalid name or a control character")
        checked.add(name, _text(value))
    return checked


def _text(value: str) -> str:
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        pass
    else:
        return value
    try:
        return value.encode("utf-8", "surrogateescape").decode("latin-1")
    except UnicodeEncodeError:  # half a surrogate pair, which a script has set
        return value.encode("utf-8", "replace").decode()
