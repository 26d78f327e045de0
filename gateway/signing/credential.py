"""Internal credentials, by which the gateways of one installation authenticate their requests. Pure.

An internal credential is `v1.<expiry>.<mac>`. The MAC is HMAC-SHA256 (RFC 2104) under a key that is
derived from the installation's for this purpose alone. It covers, a line each: audience, method, target
and expiry; so it is valid for exactly this request to that gateway, now. It does not cover the body.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from yarl import URL

from gateway.signing.keys import derive_keys

CREDENTIAL_TTL: Final = 60
CREDENTIAL_SKEW: Final = 5
"""Seconds by which the clocks of two gateways may differ."""

_PURPOSE: Final = b"upload-gateway internal credential v1"
_FORM: Final = re.compile(r"v1\.([0-9]{1,12})\.([A-Za-z0-9_-]{43})", re.ASCII)


@dataclass(frozen=True, slots=True, repr=False)
class TrustedCall:
    """How to call a gateway of this installation: URL, credential, trusted certificates."""

    url: URL
    credential: str
    tls: ssl.SSLContext | bool


FindCredentials = Callable[[str, URL], TrustedCall | None]
"""Returns how to call a URL with a method if a gateway of this installation serves it, else None."""


class CredentialSigner:
    """Makes and checks internal credentials. `clock` returns Unix time in seconds.

    The first of `keys` signs, all of them verify. Raises `ValueError` for none, or one under 32 bytes.
    """

    __slots__ = ("_clock", "_keys")

    def __init__(self, keys: Sequence[bytes], clock: Callable[[], float] = time.time) -> None:
        self._keys = derive_keys(keys, _PURPOSE)
        self._clock = clock

    def __repr__(self) -> str:
        return "<CredentialSigner>"

    def credential(self, audience: str, method: str, target: str) -> str:
        """Return the credential of one request, valid for a minute.

        `audience` is the `host:port` of the gateway that is called, `target` the path and query as
        they go over the wire (RFC 9112 section 3.2.1). Raises `ValueError` for a line break in them.
        """
        expiry = int(self._clock()) + CREDENTIAL_TTL
        return f"v1.{expiry}.{_mac(self._keys[0], audience, method, target, expiry)}"

    def is_valid(self, credential: str, audiences: Iterable[str], method: str, target: str) -> bool:
        """Tell whether `credential` was made for this request, by this key, for one of `audiences`.

        Every audience and key is tried, so that the time taken does not tell which one matches.
        """
        form = _FORM.fullmatch(credential)
        if form is None or "\n" in method or "\n" in target:
            return False
        expiry = int(form[1])
        genuine = False
        for audience in audiences:
            for key in self._keys:
                mac = _mac(key, audience, method, target, expiry)
                genuine |= hmac.compare_digest(mac, form[2])
        left = expiry - self._clock()
        return genuine and -CREDENTIAL_SKEW <= left <= CREDENTIAL_TTL + CREDENTIAL_SKEW


def _mac(key: bytes, audience: str, method: str, target: str, expiry: int) -> str:
    lines = (audience, method, target, str(expiry))
    if any("\n" in line for line in lines):
        raise ValueError("the signed text has a line break")
    signed = "\n".join(lines).encode("utf-8", "surrogateescape")
    mac = hmac.digest(key, signed, hashlib.sha256)
    return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
