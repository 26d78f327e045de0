"""Cross-origin requests of browsers: preflights, and the headers that let a page read a response.

Errors carry the headers too: a page cannot read them otherwise. A page needs no answer to do harm:
what it may send without a preflight is refused where nothing else authorizes it. Sources: Fetch
standard, CORS protocol; w3.org/TR/fetch-metadata.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import hdrs, web

from gateway.auth.foreign_pages import is_cross_site
from gateway.auth.request import RequestHead
from gateway.errors import Refusal
from gateway.http.responses import GatewayResponse, Response


@dataclass(frozen=True, slots=True)
class CorsPolicy:
    """Which pages may call, with what, and what they read. No `headers`: any. `max_age`: seconds."""

    origins: tuple[str, ...]
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    credentials: bool = False
    max_age: int = 600


EXPOSED_HEADERS: Final = (
    *("Content-Disposition", "Content-Range", "ETag", "Link", "Location"),
    *("RateLimit", "RateLimit-Policy", "Repr-Digest", "Retry-After", "X-Request-Id"),
    # tus 1.0.0, and the IETF draft of resumable uploads
    *("Tus-Checksum-Algorithm", "Tus-Extension", "Tus-Max-Size", "Tus-Resumable", "Tus-Version"),
    *("Upload-Complete", "Upload-Concat", "Upload-Defer-Length", "Upload-Draft-Interop-Version"),
    *("Upload-Expires", "Upload-Length", "Upload-Limit", "Upload-Metadata", "Upload-Offset"),
)
"""Headers of responses about files that a page may read; browsers hide what is not listed."""

SIGNED_URLS: Final = CorsPolicy(
    origins=("*",),
    methods=("GET", "HEAD", "PUT", "PATCH", "DELETE"),
    expose=EXPOSED_HEADERS,
    max_age=3600,
)
"""Any page may use a signed URL: the signature is in the URL, and a browser adds no credentials of
its own, so a foreign page has nothing to borrow. PATCH and DELETE are those of an upload that a signed
URL has begun."""


def files_policy(origins: tuple[str, ...], methods: tuple[str, ...]) -> CorsPolicy | None:
    """Return the policy of endpoints for files, with `--cors-origins`; None where no origin is named."""
    return CorsPolicy(origins, methods, expose=EXPOSED_HEADERS) if origins else None


Serve = Callable[[], Awaitable[GatewayResponse]]

_RESPONSE_HEADERS: Final = (
    hdrs.ACCESS_CONTROL_ALLOW_ORIGIN,
    hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS,
    hdrs.ACCESS_CONTROL_EXPOSE_HEADERS,
)


_FORM_TYPES: Final = frozenset(
    {"", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain"}
)
"""Media types of what a page may post without asking (Fetch standard, CORS-safelisted headers)."""


def refuse_cross_site(request: web.BaseRequest | RequestHead, policy: CorsPolicy | None) -> None:
    """Refuse what a page whose origin `policy` does not name may post without asking.

    Before other methods and types a browser asks with a preflight, and sends them only if the gateway or
    the upstream allows it: an upstream may have rules of its own. Raises `Refusal("forbidden")`.
    """
    if request.method != hdrs.METH_POST:
        return
    mime = request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()
    if mime not in _FORM_TYPES or not is_cross_site(request):
        return
    if policy is None or not _allows(policy, request.headers.get(hdrs.ORIGIN)):
        raise Refusal(
            "forbidden",
            "this request comes from a page of another origin, which may not call here. Operator: name"
            " the origin in `cors` of the route, or in --cors-origins",
        )


def refuse_foreign_origin(headers: Mapping[str, str], policy: CorsPolicy | None) -> None:
    """Refuse requests of pages whose origin is neither this host nor named in `policy`.

    Programs send no `Origin`. This is for WebSocket handshakes, which browsers send without a preflight,
    and whose responses pages may read (RFC 6455 section 10.2). Raises `Refusal("forbidden")`.
    """
    origin = headers.get(hdrs.ORIGIN)
    if origin is None or _is_of_host(origin, headers.get(hdrs.HOST, "")):
        return
    if policy is None or not _allows(policy, origin):
        raise Refusal(
            "forbidden",
            "pages of this origin may not connect here. Operator: name the origin in `cors` of the"
            " route, or in --cors-origins; a proxy in front has to pass `Host` on",
        )


def _is_of_host(origin: str, host: str) -> bool:
    """Tell whether an origin is that of a host, whatever the scheme; default ports may be named."""
    scheme, _, authority = origin.lower().partition("://")
    default = {"http": ":80", "https": ":443"}.get(scheme)
    if default is None or not authority:
        return False
    return authority.removesuffix(default) == host.lower().removesuffix(default)


def preflight_method(request: web.BaseRequest) -> str | None:
    """Return the method that a preflight asks for; None if the request is no preflight."""
    if request.method != "OPTIONS" or hdrs.ORIGIN not in request.headers:
        return None
    return request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_METHOD)


async def serve_cross_origin(
    request: web.BaseRequest, policy: CorsPolicy, methods: Sequence[str], serve: Serve
) -> GatewayResponse:
    """Respond to a preflight; else serve the request, and set the headers for its origin.

    `methods` are allowed if the policy names none. Raises what `serve` raises, and
    `Refusal("forbidden")` for a preflight of an origin that may not call.
    """
    if preflight_method(request) is not None:
        return preflight_response(request, policy, policy.methods or methods)
    try:
        response = await serve()
    except Refusal as refusal:
        set_cors_headers(request.headers, policy, refusal.headers)
        raise
    for name in _RESPONSE_HEADERS:  # an upstream's own are meant for its own address
        response.headers.popall(name, None)
    set_cors_headers(request.headers, policy, response.headers)
    return response


def preflight_response(request: web.BaseRequest, policy: CorsPolicy, methods: Sequence[str]) -> Response:
    """Respond to a preflight. Raises `Refusal("forbidden")` for an origin that may not call."""
    response = Response(status=204)
    if not set_cors_headers(request.headers, policy, response.headers):
        raise Refusal("forbidden", "pages of this origin may not call here", {hdrs.VARY: "Origin"})
    response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = ", ".join(methods)
    requested = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "")
    headers = ", ".join(policy.headers) or requested
    if headers:
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = headers
    response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = str(policy.max_age)
    response.headers[hdrs.VARY] = ", ".join(
        ("Origin", hdrs.ACCESS_CONTROL_REQUEST_METHOD, hdrs.ACCESS_CONTROL_REQUEST_HEADERS)
    )
    return response


def set_cors_headers(
    sent: Mapping[str, str], policy: CorsPolicy, headers: MutableMapping[str, str]
) -> bool:
    """Set in `headers` those for the origin of a request that `sent` its own; tell whether it may call.

    `Vary` is set for every request: a cache must not give a page the response to a program.
    """
    headers[hdrs.VARY] = _with_origin(headers.get(hdrs.VARY))
    origin = sent.get(hdrs.ORIGIN)
    if origin is None or not _allows(policy, origin):
        return False
    any_origin = "*" in policy.origins and not policy.credentials
    headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = "*" if any_origin else origin
    if policy.credentials:
        headers[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"
    if policy.expose:
        headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = ", ".join(policy.expose)
    return True


def _allows(policy: CorsPolicy, origin: str | None) -> bool:
    """Tell whether a policy names an origin; scheme and host have no case (RFC 6454 section 4)."""
    if origin is None:
        return False
    return "*" in policy.origins or origin.lower() in map(str.lower, policy.origins)


def _with_origin(vary: str | None) -> str:
    if not vary:
        return "Origin"
    names = {name.strip().lower() for name in vary.split(",")}
    return vary if names & {"origin", "*"} else f"{vary}, Origin"
