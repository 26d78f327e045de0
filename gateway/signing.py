"""Machinery: what the key of an installation proves, as texts. Internal credentials, so far.

The rule: pure. No socket, no loop, no file: a key goes in, a text comes out, and a text is checked
in constant time. May import the standard library only.

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
import time
from collections.abc import Callable, Iterable
from typing import Final

LIFETIME_SECONDS: Final = 60
SKEW_SECONDS: Final = 5
"""How far the clocks of two gateways may lie apart."""

SHORTEST_KEY: Final = 32
"""Bytes of an installation key: as many as the hash has (RFC 2104 section 3)."""

_PURPOSE: Final = b"upload-gateway internal credential v1"
_FORM: Final = re.compile(r"v1\.([0-9]{1,12})\.([A-Za-z0-9_-]{43})", re.ASCII)


class Signer:
    """Makes and checks internal credentials. `clock` returns Unix time in seconds.

    Raises `ValueError` for a key under 32 bytes.
    """

    __slots__ = ("_clock", "_key")

    def __init__(self, key: bytes, clock: Callable[[], float] = time.time) -> None:
        if len(key) < SHORTEST_KEY:
            raise ValueError(f"an installation key has at least {SHORTEST_KEY} bytes")
        self._key = hmac.digest(key, _PURPOSE, hashlib.sha256)
        self._clock = clock

    def __repr__(self) -> str:
        return "<Signer>"

    def credential(self, audience: str, method: str, target: str) -> str:
        """Return the credential of one request, good for a minute.

        `audience` is the `host:port` of the gateway that is called, `target` the path and query as
        they go over the wire (RFC 9112 section 3.2.1). Raises `ValueError` for a line break in them.
        """
        expiry = int(self._clock()) + LIFETIME_SECONDS
        return f"v1.{expiry}.{self._mac(audience, method, target, expiry)}"

    def is_valid(self, credential: str, audiences: Iterable[str], method: str, target: str) -> bool:
        """Tell whether `credential` was made for this request, by this key, for one of `audiences`.

        Every audience is tried, so that the time it takes does not tell which one fits.
        """
        form = _FORM.fullmatch(credential)
        if form is None or "\n" in method or "\n" in target:
            return False
        expiry = int(form[1])
        genuine = False
        for audience in audiences:
            genuine |= hmac.compare_digest(self._mac(audience, method, target, expiry), form[2])
        left = expiry - self._clock()
        return genuine and -SKEW_SECONDS <= left <= LIFETIME_SECONDS + SKEW_SECONDS

    def _mac(self, audience: str, method: str, target: str, expiry: int) -> str:
        lines = (audience, method, target, str(expiry))
        if any("\n" in line for line in lines):
            raise ValueError("a line break in what is signed")
        signed = "\n".join(lines).encode("utf-8", "surrogateescape")
        mac = hmac.digest(self._key, signed, hashlib.sha256)
        return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
