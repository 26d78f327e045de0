"""Who a request counts for: its principal, else the network of its address."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Mapping
from typing import Any, Final

IPV6_CLIENT_BITS: Final = 64
"""Bits of an IPv6 address that one client has to itself: it can call from all addresses below."""

MAX_CACHED: Final = 4096
"""Addresses whose network is remembered."""

SHARED_KINDS: Final = frozenset({"signed"})
"""Kinds of principals that stand for many clients: these count by address."""


def client_key(principal: Mapping[str, Any] | None, address: str | None) -> str:
    """Return the key that a client's requests are counted by.

    `address` is that of the client as trusted proxies report it; None on a Unix socket.
    """
    if principal is not None and principal["kind"] not in SHARED_KINDS:
        return f"principal {principal['kind']} {principal['name']}"
    return f"address {client_network(address or '')}"


@functools.lru_cache(maxsize=MAX_CACHED)
def client_network(address: str) -> str:
    """Return an IPv4 address as it is, and the network of an IPv6 one that a single client can have."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, IPV6_CLIENT_BITS), strict=False))
