"""Pages of other origins: what they make a browser send with credentials that the page does not have.

A browser adds by itself what a proxy in front takes for a user's session, and a client certificate. So
where one of these says who sends a request, a foreign page could act for that user. Sources: Fetch
standard; w3.org/TR/fetch-metadata.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, Protocol

from gateway.auth.request import RequestHead
from gateway.domain.method_overrides import named_methods
from gateway.errors import Refusal

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110 section 9.2.1), unless the request names another one."""


class _WithHeaders(Protocol):
    @property
    def headers(self) -> Mapping[str, str]: ...


def is_cross_site(request: _WithHeaders) -> bool:
    """Tell whether a page of another origin made a browser send this request.

    Pages cannot set `Sec-Fetch-Site`. Old browsers send `Origin` alone, and so do all browsers to
    other machines over plain HTTP.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site.lower() not in {"same-origin", "none"}
    origin = request.headers.get("Origin")
    if origin is None:
        return False
    host = origin.partition("://")[2].lower()
    return not host or host != request.headers.get("Host", "").lower()


def refuse_foreign_page(head: RequestHead, origins: Collection[str]) -> None:
    """Refuse what may change something, from a page whose origin is not one of `origins`.

    `*` names no origin here: it lets every page act for the user. Raises `Refusal("forbidden")`.
    """
    if not is_cross_site(head):
        return
    if head.method in SAFE_METHODS and next(named_methods(head.headers, head.params), None) is None:
        return
    origin = head.headers.get("Origin", "").lower()
    if origin and origin != "*" and origin in map(str.lower, origins):
        return
    raise Refusal(
        "forbidden",
        "this request comes from a page of another origin, which may not act for the user. Operator:"
        " name the origin, not *, in `cors` of the route, or in --cors-origins",
    )
