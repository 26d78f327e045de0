"""TLS to upstreams: whom a route trusts, and the certificate that it shows."""

from __future__ import annotations

import functools
import ssl
from pathlib import Path

from gateway.endpoints.routing.model import Route
from gateway.endpoints.routing.rules import UpstreamTls


class BadTlsFileError(Exception):
    """A file cannot be used. `key` is that of `upstream_tls` which names it."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def tls_of(route: Route) -> ssl.SSLContext:
    """Return the context for connections to the upstreams of a route."""
    own = route.upstream_tls and route.upstream_tls.context
    return own or system_context()


@functools.cache
def system_context() -> ssl.SSLContext:
    """Return a context that trusts the system's authorities. The first call reads them, and blocks."""
    return _context(None)


def load_context(files: UpstreamTls) -> ssl.SSLContext:
    """Return a context of these files. Blocking. Raises `BadTlsFileError`."""
    for key, path in (("ca", files.ca), ("cert", files.cert), ("key", files.key)):
        if path is not None:
            _check_readable(key, path)
    try:
        context = _context(files.ca)
    except ssl.SSLError as error:
        message = f"{files.ca} has no certificates that can be used ({error.reason}): give a PEM file"
        raise BadTlsFileError("ca", message) from error
    if files.cert is not None:
        try:
            # The password: without one, OpenSSL asks for that of an encrypted key on the terminal.
            context.load_cert_chain(files.cert, files.key, password="")
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            message = (
                f"the certificate and its key cannot be used ({reason}): check that they are PEM files,"
                " belong together, and that the key is not encrypted"
            )
            raise BadTlsFileError("cert", message) from error
    return context


def _context(ca: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _check_readable(key: str, path: Path) -> None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise BadTlsFileError(key, f"{path} cannot be read: {error.strerror}") from error
