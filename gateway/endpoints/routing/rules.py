"""What a route says of its requests, its upstreams and its headers: plain data of the YAML keys."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final

Condition = tuple[str, ...] | bool
"""What a header or a query field must be: one of the texts; True: present; False: absent."""


@dataclass(frozen=True, slots=True)
class RequestConditions:
    """Which requests a route serves, beside its path and methods.

    `hosts` are names in lower case, or `*.` and a name. `headers` (names in lower case) and `query`
    must all hold.
    """

    hosts: tuple[str, ...] = ()
    headers: Mapping[str, Condition] = field(default_factory=dict)
    query: Mapping[str, Condition] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClientNetworks:
    """Whose requests a route takes, by address: none of `deny`, and only `allow` if there is any."""

    allow: tuple[IPv4Network | IPv6Network, ...] = ()
    deny: tuple[IPv4Network | IPv6Network, ...] = ()


@dataclass(frozen=True, slots=True)
class PassiveHealth:
    """When requests suspend an upstream: after so many failures in a row, for `aside` seconds at first.

    A response with one of `statuses` is a failure, too.
    """

    failures: int = 3
    statuses: frozenset[int] = frozenset()
    aside: float = 5.0


@dataclass(frozen=True, slots=True)
class ActiveHealth:
    """GET `path` of each upstream every `every` seconds: one of `expect` within `timeout` is health."""

    path: str
    every: float
    expect: frozenset[int]
    timeout: float


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """Files (PEM): whom to trust in place of the system's authorities, and the client certificate.

    `context` is made of them at each load.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    context: ssl.SSLContext | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class HeaderRules:
    """Header fields that are removed, then those that are set."""

    remove: tuple[str, ...] = ()
    set: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Tell whether there is any rule."""
        return bool(self.remove or self.set)

    @property
    def set_names(self) -> frozenset[str]:
        """The names that are set, in lower case."""
        return frozenset(map(str.lower, self.set)) if self.set else NO_NAMES


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where clients are sent: a template with variables of the path, and the status."""

    url: str
    status: int


NO_NAMES: Final[frozenset[str]] = frozenset()
ANY_REQUEST: Final = RequestConditions()
ANY_CLIENT: Final = ClientNetworks()
NO_RULES: Final = HeaderRules()
DEFAULT_PASSIVE: Final = PassiveHealth()
