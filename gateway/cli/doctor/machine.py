"""Checks of the machine: cores, open files, and the certificate's dates and names."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509

from gateway.cli.doctor.finding import Finding
from gateway.errors import ConfigError
from gateway.http.sockets import tls_context
from gateway.settings import Settings, describe_processes, usable_cores

MIN_OPEN_FILES: Final = 4096
"""An upload needs a connection and a file, a proxied request two connections."""

EXPIRES_SOON: Final = timedelta(days=14)


def processes(settings: Settings) -> Iterator[Finding]:
    """There are no more processes than cores."""
    summary = describe_processes(settings.processes)
    if settings.processes > usable_cores():
        yield Finding("warn", summary, "more processes than cores only take memory")
    else:
        yield Finding("ok", summary)


def open_files(settings: Settings) -> Iterator[Finding]:
    """The limit of open files, which a start raises as far as it may, allows many connections."""
    del settings
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= MIN_OPEN_FILES:
        yield Finding("ok", f"open files: {'unlimited' if hard == resource.RLIM_INFINITY else hard}")
    else:
        advice = "raise it: LimitNOFILE= in the unit, or `ulimit -Hn`"
        yield Finding("warn", f"open files: at most {hard}", advice)


def certificate(settings: Settings) -> Iterator[Finding]:
    """The certificate belongs to its key, has not expired, and names the address of links."""
    if settings.tls_cert is None:
        return
    try:
        tls_context(settings)
        leaf = x509.load_pem_x509_certificate(settings.tls_cert.read_bytes())
    except (ConfigError, ValueError) as error:
        yield Finding("FAIL", f"certificate: {error}", "uploads over HTTPS fail until it is replaced")
        return
    names, now = _names(leaf), datetime.now(UTC)
    ends = leaf.not_valid_after_utc
    summary = f"certificate for {', '.join(names) or 'no name'}, valid until {ends:%Y-%m-%d}"
    if not leaf.not_valid_before_utc <= now < ends:
        yield Finding("FAIL", summary, "it is not valid now: replace it, then send SIGHUP")
    elif ends - now < EXPIRES_SOON:
        yield Finding("warn", summary, "it expires soon: replace it, then send SIGHUP")
    else:
        yield Finding("ok", summary)
    if (host := _public_host(settings)) and not _covers(names, host):
        yield Finding("warn", f"the certificate does not name {host}", "clients will refuse it")


def _names(leaf: x509.Certificate) -> list[str]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = names.get_values_for_type(x509.IPAddress)
    return [*names.get_values_for_type(x509.DNSName), *map(str, addresses)]


def _public_host(settings: Settings) -> str | None:
    """Return the host by which clients know the gateway, where the settings name it."""
    if settings.public_url is not None:
        return urlsplit(settings.public_url).hostname
    return settings.advertise.host if settings.advertise is not None else None


def _covers(names: Sequence[str], host: str) -> bool:
    """Tell whether one of the names is the host; `*` stands for its first label (RFC 9525)."""
    wildcard = "*." + host.partition(".")[2]
    return any(name.lower() in {host.lower(), wildcard.lower()} for name in names)
