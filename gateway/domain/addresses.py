"""Hosts and ports: their spelling in URLs, and the address by which a machine connects to itself."""

from __future__ import annotations

import functools
import ipaddress
import re
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

IPAddress = IPv4Address | IPv6Address

_LOOPBACK_OF: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (compared, not bound)

ALL_INTERFACES: Final = frozenset(_LOOPBACK_OF)
"""Hosts that listen on every interface; a client cannot connect to them."""


MAX_CACHED_HOSTS: Final = 64
"""Values of `Host` whose name is remembered: nearly all requests have the same few."""

MAX_CACHED_ADDRESSES: Final = 1024

MAX_HOST_LETTERS: Final = 253
"""Characters of the longest name (RFC 1035 section 2.3.4, without the last dot)."""

_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._~-]*?)\.?(?::[0-9]*)?")
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


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


@functools.lru_cache(maxsize=MAX_CACHED_HOSTS)
def host_name(host: str) -> str | None:
    """Return the name or address of a `Host` field; None if it has neither, "" if it is empty.

    In lower case, without port and last dot; IPv6 addresses in brackets and in their shortest spelling.
    """
    match = _HOST.fullmatch(host.strip().lower()) if len(host) <= 2 * MAX_HOST_LETTERS else None
    if match is None or match[1].endswith(".") or len(match[1]) > MAX_HOST_LETTERS:
        return None
    return _bracketed(match[1]) if match[1].startswith("[") else match[1]


@functools.lru_cache(maxsize=MAX_CACHED_ADDRESSES)
def ip_address(text: str) -> IPAddress | None:
    """Return an IP address, None for anything else; IPv4 inside IPv6 (`::ffff:10.0.0.1`) as IPv4."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (address.version == 6 and address.ipv4_mapped) or address


def check_host_name(text: str) -> None:
    """Check a name or address, in lower case, that an operator wrote. Raises `ValueError`."""
    if not text.isascii():
        raise ValueError("must be ASCII: write an international name as in DNS (xn--...)")
    if text.startswith("["):
        if _bracketed(text) is None:
            raise ValueError("must be an IPv6 address in brackets, such as [::1], without a port")
        return
    labels = text.split(".")
    if len(text) > MAX_HOST_LETTERS or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError(
            "must be the name of a host, such as api.example.com, without port and last dot"
        )
    if labels[-1].isdecimal():
        try:
            ipaddress.IPv4Address(text)
        except ValueError:
            raise ValueError("must be the name of a host or an IP address") from None


def _bracketed(text: str) -> str | None:
    """Return an IPv6 address in brackets in its shortest spelling, None for anything else."""
    try:
        address = ipaddress.IPv6Address(text[1:-1])
    except ValueError:
        return None
    return f"[{address}]" if text.endswith("]") and address.scope_id is None else None
