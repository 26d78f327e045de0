"""The id of a request: one of our own, or the one that a trusted proxy gave it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from gateway.auth.trusted_proxies import Proxies
from gateway.domain.model import random_bytes

REQUEST_ID: Final = "X-Request-Id"

_PLAIN: Final = re.compile(r"[A-Za-z0-9._~+/=:-]{1,128}")


def request_id(proxies: Proxies, peer: str | None, headers: Mapping[str, str]) -> str:
    """Return the plain `X-Request-Id` of a trusted proxy, else 16 hexadecimal digits of our own."""
    given = headers.get(REQUEST_ID)
    if given is None or not _PLAIN.fullmatch(given) or not proxies.believes(peer, headers):
        return random_bytes(8).hex()
    is_only = sum(name.lower() == "x-request-id" for name, _ in headers.items()) == 1
    return given if is_only else random_bytes(8).hex()
