"""The client's address of a request that came through proxies.

Only proxies that the operator named are trusted. Pure: headers are any mapping of names to values.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from gateway.domain.addresses import IPAddress, ip_address

MAX_REMEMBERED: Final = 1024
"""Peers of which it is remembered whether they are trusted."""


class Proxies:
    """The trusted proxies, by address."""

    def __init__(self, networks: Sequence[IPv4Network | IPv6Network]) -> None:
        self._networks = tuple(networks)
        self._is_trusted = functools.lru_cache(maxsize=MAX_REMEMBERED)(self._find)

    def trusts(self, peer: str | None) -> bool:
        """Tell whether the peer of a connection is a trusted proxy."""
        return bool(peer and self._networks) and self._is_trusted(peer)

    def _find(self, peer: str) -> bool:
        address = _parsed(peer)
        return address is not None and self._trusted(address)

    def client_address(self, peer: str | None, headers: Mapping[str, str]) -> str | None:
        """Return the client's address, as trusted proxies report it.

        The right-most address that is no trusted proxy of `Forwarded` (RFC 7239) or
        `X-Forwarded-For`; where the two disagree neither counts.
        """
        origins = self._origins(peer, headers)
        return str(origins.pop()) if origins and len(origins) == 1 else peer

    def client_speaks_https(self, peer: str | None, headers: Mapping[str, str]) -> bool | None:
        """Return whether the client of a trusted proxy speaks HTTPS; None where no such proxy tells."""
        if not self.trusts(peer):
            return None
        schemes = [scheme.lower() for scheme in _listed(headers, "x-forwarded-proto")]
        return "https" in schemes if schemes else None

    def believes(self, peer: str | None, headers: Mapping[str, str]) -> bool:
        """Tell whether the peer is a trusted proxy, and its headers name one client at most.

        A proxy that writes one of the two headers passes on what a client wrote into the other.
        """
        origins = self._origins(peer, headers)
        return origins is not None and len(origins) < 2

    def _origins(self, peer: str | None, headers: Mapping[str, str]) -> set[IPAddress] | None:
        """Return the clients that the headers name; None if the peer is no trusted proxy."""
        address = _parsed(peer or "") if self._networks else None
        if address is None or not self._trusted(address):
            return None
        chains = (list(_forwarded(headers)), list(_listed(headers, "x-forwarded-for")))
        return {self._origin(address, chain) for chain in chains if chain}

    def _origin(self, nearest: IPAddress, chain: Sequence[str]) -> IPAddress:
        """Walk from the nearest proxy to the client, up to the first address that is not trusted."""
        for text in reversed(chain):
            address = _parsed(text)
            if address is None:  # `unknown`, an obfuscated name or garbage
                return nearest
            nearest = address
            if not self._trusted(address):
                return nearest
        return nearest

    def _trusted(self, address: IPAddress) -> bool:
        return any(address in network for network in self._networks)


def _values(headers: Mapping[str, str], name: str) -> Iterator[str]:
    """Yield every line of a header in order: the client's line must not hide the proxy's."""
    return (value for key, value in headers.items() if key.lower() == name)


def _listed(headers: Mapping[str, str], name: str) -> Iterator[str]:
    for value in _values(headers, name):
        yield from (piece.strip() for piece in value.split(","))


def _forwarded(headers: Mapping[str, str]) -> Iterator[str]:
    """Yield the `for` of each element; an element without one is `unknown` (RFC 7239 section 4)."""
    for element in _listed(headers, "forwarded"):
        pairs = (pair.partition("=") for pair in element.split(";"))
        named = {key.strip().lower(): value.strip().strip('"') for key, _, value in pairs}
        yield named.get("for", "unknown")


def _parsed(text: str) -> IPAddress | None:
    """Parse an address with or without a port; IPv4 inside IPv6 (`::ffff:10.0.0.1`) counts as IPv4."""
    bare = text.strip().strip('"')
    if bare.startswith("["):
        bare = bare[1:].partition("]")[0]
    elif bare.count(":") == 1:
        bare = bare.partition(":")[0]
    return ip_address(bare)
