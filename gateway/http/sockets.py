"""The sockets and the certificate that we listen with."""

from __future__ import annotations

import contextlib
import socket
import ssl

from gateway.errors import ConfigError
from gateway.settings import Settings
from gateway.storage.local.state_dir import StateDirectory


def owner_socket(state: StateDirectory) -> socket.socket:
    """Bind the Unix socket in the state folder, instead of one that was left there; mode 0600."""
    with contextlib.suppress(FileNotFoundError):
        state.socket.unlink()
    with state.short_socket_path() as path:
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        bound.bind(path)
    state.socket.chmod(0o600)
    return bound


def listening_socket(settings: Settings) -> socket.socket:
    """Bind, but do not listen yet: the port must be known before the first event is delivered.

    Raises `ConfigError` for an address that cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as fault:
        raise ConfigError(
            f"{settings.host}:{settings.port} cannot be bound ({fault.strerror}): stop what uses it, "
            "or choose another --port (0 picks a free one)"
        ) from fault
    return bound


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Return what HTTPS needs, None where plain HTTP is served. Raises `ConfigError`."""
    if settings.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_certificate(context, settings)
    return context


def load_certificate(context: ssl.SSLContext, settings: Settings) -> None:
    """Read the certificate and key (again): new connections get them. Raises `ConfigError`."""
    try:
        context.load_cert_chain(str(settings.tls_cert), str(settings.tls_key))
    except (ssl.SSLError, OSError) as fault:
        raise ConfigError(
            f"the certificate and its key cannot be used ({fault}): check that they are PEM files "
            "and belong together",
            str(settings.tls_cert),
        ) from fault
