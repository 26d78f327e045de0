"""Certificates of Amazon SNS and signatures made with their keys.

A module of its own, imported when a signed message arrives: most gateways need no `cryptography` here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_END: Final = b"-----END CERTIFICATE-----"
_HASHES: Final[Mapping[str, type[hashes.HashAlgorithm]]] = {"1": hashes.SHA1, "2": hashes.SHA256}


class Certificate:
    """A certificate in its validity period. Raises `ValueError` with a reason for any other."""

    def __init__(self, pem: bytes) -> None:
        text = pem.strip()
        if not text.startswith(_BEGIN) or not text.endswith(_END) or text.count(_BEGIN) != 1:
            raise ValueError("it is not one PEM and nothing else")
        self._certificate = x509.load_pem_x509_certificate(pem)
        key = self._certificate.public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            raise ValueError("it has no RSA key")
        self._key = key
        if not self.is_current:
            raise ValueError("it has expired")

    @property
    def is_current(self) -> bool:
        """Whether now is in its validity period."""
        now = datetime.now(UTC)
        return self._certificate.not_valid_before_utc <= now <= self._certificate.not_valid_after_utc

    def verifies(self, text: bytes, signature: bytes, version: str) -> bool:
        """Return whether `signature` is that of `text`; `version` is Amazon's name of the algorithm."""
        algorithm = _HASHES.get(version)
        if algorithm is None:
            return False
        try:
            self._key.verify(signature, text, padding.PKCS1v15(), algorithm())
        except InvalidSignature:
            return False
        return True
