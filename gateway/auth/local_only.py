"""While `--auth` is only the default, nobody beyond this machine may call: two checks of each request.

Anyone who reaches the port may then do everything, and two ways lead there from outside: a proxy on
this machine, and a web page whose name suddenly resolves to 127.0.0.1 (DNS rebinding), which a browser
takes for a page of this gateway. Source: RFC 9110 sections 7.4 and 15.5.20 (421).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

from gateway.domain.addresses import host_name
from gateway.domain.proxy_headers import USUAL_NAMES, shows_proxy
from gateway.errors import Refusal
from gateway.settings import Settings

_LOCALHOST: Final = "localhost"


class LocalOnly:
    """Both checks. `Host` is checked too where the settings list `hosts`, whatever `auth` says."""

    def __init__(self, settings: Settings) -> None:
        self._refuses_proxies = not settings.auth_explicit
        self._checks_host = not settings.auth_explicit or bool(settings.hosts)
        self._hosts = frozenset(_own_names(settings))

    def refuse_proxy(self, headers: Mapping[str, str]) -> None:
        """Refuse a request that shows a proxy: it may be public.

        Raises Refusal `forbidden`, whose message is for the operator.
        """
        if not self._refuses_proxies or USUAL_NAMES.issuperset(headers):
            return
        for name in headers:
            if shows_proxy(name.lower()):
                raise Refusal(
                    "forbidden",
                    f"this request came through a proxy ({name}), so others may reach this gateway."
                    " Operator: start it with `--auth token`, or with `--auth none` if everyone"
                    " may upload",
                )

    def refuse_foreign_host(self, headers: Mapping[str, str]) -> None:
        """Refuse a `Host` that is neither ours nor an address. Raises Refusal `misdirected_request`.

        An address cannot be rebound as a name can. No browser sends a request without `Host`.
        """
        if not self._checks_host:
            return
        name = host_name(headers.get("Host", ""))
        if name is not None and (not name or name in self._hosts or _is_local(name)):
            return
        raise Refusal(
            "misdirected_request",
            "this gateway is not known by the name in the Host header, and so refuses web pages of that"
            " name. Operator: add the name with `--hosts NAME`, or start it with `--auth token`",
        )


def _own_names(settings: Settings) -> Iterable[str]:
    yield from settings.hosts
    if settings.advertise is not None:
        yield settings.advertise.host.lower()
    if settings.public_url is not None:
        yield urlsplit(settings.public_url).hostname or ""
    yield settings.host.lower()


def _is_local(name: str) -> bool:
    """Tell whether a name is an IP address, or always means this machine (RFC 6761 section 6.3)."""
    if name == _LOCALHOST or name.endswith(f".{_LOCALHOST}"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
