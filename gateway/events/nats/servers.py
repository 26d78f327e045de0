"""The addresses of the NATS servers, TLS and credentials.

User, password, token and keys come from a file that only its owner may read, and stand in no log and no
message. Blocking.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.errors import ConfigError
from gateway.settings import Settings
from gateway.storage.keyfile import GROUP_MAY_READ, read_key_file

DEFAULT_PORT: Final = 4222
_CREDS: Final = "-----BEGIN NATS USER JWT-----"


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers of one cluster. `shown` is for logs and messages."""

    urls: tuple[str, ...]
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    credentials: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def shown(self) -> str:
        """The servers as one URL, without any secret."""
        scheme = self.urls[0].partition("://")[0]
        return f"{scheme}://" + ",".join(url.partition("://")[2] for url in self.urls)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts alone, IPv6 in brackets."""
        return tuple(url.partition("://")[2].rpartition(":")[0] for url in self.urls)

    def options(self) -> dict[str, Any]:
        """Return the connect options of the client library."""
        options: dict[str, Any] = {"servers": list(self.urls), **self.credentials}
        return {**options, "tls": self.tls} if self.tls is not None else options


def nats_servers(settings: Settings) -> Servers:
    """Return the servers of `--events`. Raises `ConfigError` for a file that cannot be used."""
    scheme, _, rest = settings.events.partition("://")
    urls = tuple(f"{scheme}://{_with_port(place)}" for place in rest.split(","))
    tls = _tls(settings.events_ca) if scheme == "tls" or settings.events_ca else None
    return Servers(urls, tls, _credentials(settings.events_credentials))


def _with_port(address: str) -> str:
    host, colon, port = address.rpartition(":")
    return address if colon and port.isdigit() and host else f"{address}:{DEFAULT_PORT}"


def _tls(ca: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca is not None:
        try:
            context.load_verify_locations(cafile=str(ca))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"the CA of the NATS servers cannot be read ({error}): it must be a PEM file", str(ca)
            ) from error
    return context


def _credentials(path: Path | None) -> dict[str, Any]:
    """Read the file: a `.creds` file of NATS, `user:password`, or a token."""
    if path is None:
        return {}
    text = read_key_file(path, GROUP_MAY_READ).decode(errors="replace").strip()
    if _CREDS in text:
        return {"user_credentials": str(_with_nkeys(path))}
    if not text or "\n" in text:
        raise ConfigError(
            "must hold one line, `user:password` or a token, or be a .creds file of NATS", str(path)
        )
    user, colon, password = text.partition(":")
    return {"user": user, "password": password} if colon else {"token": text}


def _with_nkeys(path: Path) -> Path:
    try:
        import nkeys  # noqa: F401  # only .creds files need it
    except ImportError:
        raise ConfigError(
            "a .creds file needs the package nkeys: pip install nkeys", str(path)
        ) from None
    return path
