"""Removes the identity headers that do not count, as soon as a request's head has arrived."""

from __future__ import annotations

from aiohttp.http import RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.auth.identity_headers import IdentityHeaders
from gateway.errors import Refusal
from gateway.http.limits import FilterHead


def identity_filter(identity: IdentityHeaders) -> FilterHead | None:
    """Return the filter of every request's head, None where the settings name no headers."""
    if not identity.are_set:
        return None

    def filter_head(peer: str | None, message: RawRequestMessage) -> RawRequestMessage:
        """Raise `Refusal("bad_request")` where a trusted proxy contradicts itself."""
        if (fault := identity.fault(peer, message.headers)) is not None:
            raise Refusal("bad_request", fault)
        removed = identity.removed(peer, message.headers)
        return _without(removed, message) if removed else message

    return filter_head


def _without(names: frozenset[str], message: RawRequestMessage) -> RawRequestMessage:
    kept = CIMultiDict(item for item in message.headers.items() if item[0].lower() not in names)
    lines = tuple(line for line in message.raw_headers if line[0].decode("latin-1").lower() not in names)
    return message._replace(headers=CIMultiDictProxy(kept), raw_headers=lines)
