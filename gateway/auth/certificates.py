"""The name of a client in its TLS certificate: `--tls-client-ca`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

MAX_NAME_CHARS: Final = 255


def certificate_name(certificate: Mapping[str, Any] | None) -> str | None:
    """Return the common name of a verified certificate, else its first alternative name.

    `certificate` is as `ssl.SSLSocket.getpeercert` returns it, None where the client sent none. Of
    several common names the last counts, the most specific one. None for a name that is too long or not
    printable: such a client has no principal.
    """
    names = list(_names(certificate or {}))
    if not names or len(names[0]) > MAX_NAME_CHARS or not names[0].isprintable():
        return None
    return names[0]


def _names(certificate: Mapping[str, Any]) -> Iterable[str]:
    subject: Iterable[Iterable[tuple[str, str]]] = certificate.get("subject", ())
    common = [value for part in subject for key, value in part if key == "commonName"]
    yield from filter(None, reversed(common))
    alternatives: Iterable[tuple[str, object]] = certificate.get("subjectAltName", ())
    yield from (value for _, value in alternatives if isinstance(value, str) and value)
