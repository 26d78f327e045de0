"""Hosts and ports: their spelling in URLs, and the address by which a machine connects to itself."""

from __future__ import annotations

from typing import Final, NamedTuple

_LOOPBACK_OF: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (compared, not bound)

ALL_INTERFACES: Final = frozenset(_LOOPBACK_OF)
"""Hosts that listen on every interface; a client cannot connect to them."""


class Address(NamedTuple):
    """A host (name or bare IP address, IPv6 without brackets) and a TCP port."""

    host: str
    port: int


def host_port(host: str, port: int) -> str:
    """Return `host:port` with an IPv6 address in brackets (RFC 3986 section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def connectable_host(host: str) -> str:
    """Return loopback of the same family for a host that means all interfaces, else the host."""
    return _LOOPBACK_OF.get(host, host)
