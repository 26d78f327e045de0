"""Listening sockets and the TLS certificate."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
from typing import Final

from gateway.domain.addresses import host_port
from gateway.errors import ConfigError
from gateway.settings import Settings
from gateway.storage.local.state_dir import StateDirectory

UPLOAD_DESCRIPTORS: Final = 4
"""The connection, its duplicate for a thread, the file, and the folder that it goes to."""


def owner_socket(state: StateDirectory) -> socket.socket:
    """Bind the Unix socket in the state folder, and replace one that is left there; mode 0600."""
    with contextlib.suppress(FileNotFoundError):
        state.socket.unlink()
    with state.short_socket_path() as path:
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        bound.bind(path)
    state.socket.chmod(0o600)
    return bound


def listening_socket(settings: Settings) -> socket.socket:
    """Bind, but do not listen yet: the port must be known before the first event is delivered.

    Raises `ConfigError` for an address that cannot be bound.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ConfigError(
            f"--host {settings.host}: no such name ({error.strerror}); give an address of this machine,"
            " such as 127.0.0.1 or 0.0.0.0"
        ) from error
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise ConfigError(_bind_error(settings, error)) from error
    return bound


def _bind_error(settings: Settings, error: OSError) -> str:
    place = host_port(settings.host, settings.port)
    match error.errno:
        case errno.EADDRINUSE:
            return f"{place} is in use: stop the other program, or choose another --port (0: a free one)"
        case errno.EADDRNOTAVAIL:
            return (
                f"--host {settings.host} is not an address of this machine; give one that is, such as"
                " 127.0.0.1 or 0.0.0.0"
            )
        case errno.EACCES:
            return f"{place} cannot be bound without privileges: choose a --port of 1024 or higher"
        case _:
            return f"{place} cannot be bound ({error.strerror}): choose another --host or --port"


def descriptors_left() -> bool:
    """Tell whether this process can open as much as one upload needs at once."""
    opened: list[int] = []
    try:
        while len(opened) < UPLOAD_DESCRIPTORS:
            opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return True


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Return a TLS context as the files are now, None for plain HTTP. Blocking. Raises `ConfigError`.

    With `tls_client_ca` each client needs a certificate. Sessions would outlive it: with TLS 1.3 none
    is resumed. With TLS 1.2 they are, by their ids, which Python cannot switch off; a new context knows
    those of no other.
    """
    if settings.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(str(settings.tls_cert), str(settings.tls_key))
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(
            f"the certificate and its key cannot be used ({error}): check that they are PEM files "
            "and belong together",
            str(settings.tls_cert),
        ) from error
    if settings.tls_client_ca is not None:
        _require_certificates(context, str(settings.tls_client_ca))
    return context


def _require_certificates(context: ssl.SSLContext, file: str) -> None:
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an intermediate alone is enough
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    try:
        context.load_verify_locations(cafile=file)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(
            f"holds no certificate that can be used ({error}): it must be a PEM file with those of"
            " your certificate authorities",
            file,
        ) from error
