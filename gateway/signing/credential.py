"""Internal credentials, by which the gateways of one installation know their calls.

The rule: pure. A key goes in, a text comes out, and a text is checked in constant time.

An internal credential is `v1.<expiry>.<mac>`. The MAC is HMAC-SHA256 (RFC 2104) under a key that is
derived from the installation's for this one purpose, so that no other kind of signature can ever
be mistaken for it. It covers, a line each: audience, method, target and expiry. It says: a gateway
of this installation sends this very request to that very gateway, now. It does not cover the body.
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
"""How far the clocks of two gateways may lie apart."""

_PURPOSE: Final = b"upload-gateway internal credential v1"
_FORM: Final = re.compile(r"v1\.([0-9]{1,12})\.([A-Za-z0-9_-]{43})", re.ASCII)


@dataclass(frozen=True, slots=True, repr=False)
class TrustedCall:
    """How to call a gateway of this installation: where, with which credential, trusting whom."""

    url: URL
    credential: str
    tls: ssl.SSLContext | bool


FindCredentials = Callable[[str, URL], TrustedCall | None]
"""Of a method and a URL: how to call it if it is a gateway of this installation, else None."""


class CredentialSigner:
    """Makes and checks internal credentials. `clock` returns Unix time in seconds.

    The first of `keys` signs, all of them verify. Raises `ValueError` for none, or one under 32 bytes.
    """

    __slots__ = ("_clock", "_keys")

    def __init__(self, keys: Sequence[bytes], clock: Callable[[], float] = time.time) -> None:
        self._keys = derive_keys(keys, _PURPOSE)
        self._clock = clock

    def __repr__(self) -> str:
        return "<Signer>"

    def credential(self, audience: str, method: str, target: str) -> str:
        """Return the credential of one request, good for a minute.

        `audience` is the `host:port` of the gateway that is called, `target` the path and query as
        they go over the wire (RFC 9112 section 3.2.1). Raises `ValueError` for a line break in them.
        """
        expiry = int(self._clock()) + CREDENTIAL_TTL
        return f"v1.{expiry}.{_mac(self._keys[0], audience, method, target, expiry)}"

    def is_valid(self, credential: str, audiences: Iterable[str], method: str, target: str) -> bool:
        """Tell whether `credential` was made for this request, by this key, for one of `audiences`.

        Every audience and key is tried, so that the time it takes does not tell which one fits.
        """
        form = _FORM.fullmatch(credential)
        if form is None or "\n" in method or "\n" in target:
            return False
        expiry = int(form[1])
        genuine = False
        for audience in audiences:
            for key in self._keys:
                made = _mac(key, audience, method, target, expiry)
                genuine |= hmac.compare_digest(made, form[2])
        left = expiry - self._clock()
        return genuine and -CREDENTIAL_SKEW <= left <= CREDENTIAL_TTL + CREDENTIAL_SKEW


def _mac(key: bytes, audience: str, method: str, target: str, expiry: int) -> str:
    lines = (audience, method, target, str(expiry))
    if any("\n" in line for line in lines):
        raise ValueError("a line break in what is signed")
    signed = "\n".join(lines).encode("utf-8", "surrogateescape")
    mac = hmac.digest(key, signed, hashlib.sha256)
    return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
