"""What is removed from a request as soon as its head has arrived: false identities, our cookies."""

from __future__ import annotations

from aiohttp import hdrs
from aiohttp.http import RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.auth.identity_headers import IdentityHeaders
from gateway.auth.sessions.cookie import SessionCookie
from gateway.errors import Refusal
from gateway.http.limits import FilterHead


def head_filter(identity: IdentityHeaders, cookie: SessionCookie | None) -> FilterHead | None:
    """Return the filter of every request's head, None where there is nothing to take."""
    if not identity.are_set and cookie is None:
        return None

    def filter_head(peer: str | None, message: RawRequestMessage) -> RawRequestMessage:
        """Raise `Refusal("bad_request")` where a trusted proxy contradicts itself."""
        if identity.are_set:
            message = _without_identities(identity, peer, message)
        if cookie is None or hdrs.COOKIE not in message.headers:
            return message
        bare_headers = cookie.take(message.headers)
        # The raw lines stay: by them a connection tells whether a request is the same as the last one,
        # and one of another session is not.
        return message if bare_headers is None else message._replace(headers=bare_headers)

    return filter_head


def _without_identities(
    identity: IdentityHeaders, peer: str | None, message: RawRequestMessage
) -> RawRequestMessage:
    if (fault := identity.fault(peer, message.headers)) is not None:
        raise Refusal("bad_request", fault)
    removed = identity.removed(peer, message.headers)
    if not removed:
        return message
    kept = CIMultiDict(item for item in message.headers.items() if item[0].lower() not in removed)
    lines = tuple(
        line for line in message.raw_headers if line[0].decode("latin-1").lower() not in removed
    )
    return message._replace(headers=CIMultiDictProxy(kept), raw_headers=lines)
