"""Keys of an installation, and what they sign beside URLs. Pure.

An installation key signs nothing itself: every signature uses a key derived for its purpose (RFC 5869
gives the reason). Each signer makes with the first of its `keys` and verifies with all of them; it
raises `ValueError` for none, or one under 32 bytes.
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

MIN_KEY_BYTES: Final = 32
"""Bytes of an installation key: as many as the hash has (RFC 2104 section 3)."""

CREDENTIAL_TTL: Final = 60
CREDENTIAL_SKEW: Final = 5
"""Seconds by which the clocks of two gateways may differ."""

_CREDENTIAL_PURPOSE: Final = b"upload-gateway internal credential v1"
_MARK_PURPOSE: Final = b"upload-gateway stored object v1"
_SECRET_PURPOSE: Final = b"upload-gateway partial upload v1"
_LINK_PURPOSE: Final = b"upload-gateway link password v1"

UPLOAD_SECRET_LENGTH: Final = 22
"""Characters of the secret of a partial upload: at least 128 bits in URL-safe base64."""
_FORM: Final = re.compile(r"v1\.([0-9]{1,12})\.([A-Za-z0-9_-]{43})", re.ASCII)


def derive_keys(keys: Sequence[bytes], purpose: bytes) -> tuple[bytes, ...]:
    """Return the key of `purpose` for each of `keys`, in order.

    Raises `ValueError` for no key, or one under 32 bytes.
    """
    if not keys or any(len(key) < MIN_KEY_BYTES for key in keys):
        raise ValueError(f"an installation key has at least {MIN_KEY_BYTES} bytes")
    return tuple(hmac.digest(key, purpose, hashlib.sha256) for key in keys)


def sign_texts(key: bytes, texts: Iterable[str]) -> str:
    """Sign a list of texts, each prefixed with its length, so that no two lists sign the same bytes."""
    pieces = [text.encode("utf-8", "surrogatepass") for text in texts]
    return _sign(key, b"".join(b"%d:%s," % (len(piece), piece) for piece in pieces))


def _sign(key: bytes, signed: bytes) -> str:
    return base64.urlsafe_b64encode(hmac.digest(key, signed, hashlib.sha256)).rstrip(b"=").decode()


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

    By them the gateways of one installation authenticate their requests. One is `v1.<expiry>.<mac>`.
    The MAC is HMAC-SHA256 (RFC 2104) under a key that is derived for this purpose alone. It covers, a
    line each: audience, method, target and expiry; so it is valid for exactly this request to that
    gateway, now. It does not cover the body.
    """

    __slots__ = ("_clock", "_keys")

    def __init__(self, keys: Sequence[bytes], clock: Callable[[], float] = time.time) -> None:
        self._keys = derive_keys(keys, _CREDENTIAL_PURPOSE)
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


class ObjectMarker:
    """Makes and checks marks, by which gateways recognise the objects that one of them stored.

    A mark covers one upload under one path: copied to an object of another name it is invalid.
    """

    __slots__ = ("_keys",)

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = derive_keys(keys, _MARK_PURPOSE)

    def __repr__(self) -> str:
        return "<ObjectMarker>"

    def mark(self, upload_id: str, path: str) -> str:
        """Return the mark of what an upload stores at a path."""
        return sign_texts(self._keys[0], (upload_id, path))

    def is_genuine(self, mark: str, upload_id: str, path: str) -> bool:
        """Tell whether a gateway of this installation stored this upload at this path.

        Every key is tried, so that the time taken does not tell which one matches.
        """
        genuine = False
        for key in self._keys:
            expected = sign_texts(key, (upload_id, path))
            genuine |= hmac.compare_digest(expected.encode(), mark.encode("utf-8", "surrogatepass"))
        return genuine


class UploadSecrets:
    """Makes and checks the secrets in the URLs of partial uploads.

    A secret is no stored value: every process and every gateway of an installation computes it from the
    id of the upload, also when the upload is complete.
    """

    __slots__ = ("_keys",)

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = derive_keys(keys, _SECRET_PURPOSE)

    def __repr__(self) -> str:
        return "<UploadSecrets>"

    def secret(self, upload_id: str) -> str:
        """Return the secret of an upload."""
        return sign_texts(self._keys[0], (upload_id,))[:UPLOAD_SECRET_LENGTH]

    def is_genuine(self, secret: str, upload_id: str) -> bool:
        """Tell whether an upload has this secret.

        Every key is tried, so that the time taken does not tell which one matches.
        """
        genuine = False
        for key in self._keys:
            expected = sign_texts(key, (upload_id,))[:UPLOAD_SECRET_LENGTH]
            genuine |= hmac.compare_digest(expected.encode(), secret.encode("utf-8", "surrogatepass"))
        return genuine


class LinkSigner:
    """Signs that the password of a link was right, until a Unix time.

    `password_hash` has a random salt: another link, or the same one with another password, has another.
    """

    __slots__ = ("_keys",)

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = derive_keys(keys, _LINK_PURPOSE)

    def __repr__(self) -> str:
        return "<LinkSigner>"

    def sign(self, link_id: str, password_hash: str, expiry: int) -> str:
        """Return the signature, 43 characters."""
        return sign_texts(self._keys[0], (link_id, password_hash, str(expiry)))

    def is_genuine(self, signature: str, link_id: str, password_hash: str, expiry: int) -> bool:
        """Tell whether a gateway of this installation signed this. Every key is tried."""
        genuine = False
        for key in self._keys:
            expected = sign_texts(key, (link_id, password_hash, str(expiry)))
            genuine |= hmac.compare_digest(expected.encode(), signature.encode("utf-8", "surrogatepass"))
        return genuine


def _mac(key: bytes, audience: str, method: str, target: str, expiry: int) -> str:
    lines = (audience, method, target, str(expiry))
    if any("\n" in line for line in lines):
        raise ValueError("the signed text has a line break")
    return _sign(key, "\n".join(lines).encode("utf-8", "surrogateescape"))
