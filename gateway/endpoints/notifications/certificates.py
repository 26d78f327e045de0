"""Certificates of Amazon's notification service, and signatures made with their keys.

One rule: pure. Loaded only where a message is signed: most gateways have no use for its library. May
import the standard library and cryptography.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

_HASHES: Final[Mapping[str, type[hashes.HashAlgorithm]]] = {"1": hashes.SHA1, "2": hashes.SHA256}


class Certificate:
    """A certificate that is good now. Raises `ValueError` for one that is not, with words."""

    def __init__(self, pem: bytes) -> None:
        self._read = x509.load_pem_x509_certificate(pem)
        key = self._read.public_key()
        if not isinstance(key, rsa.RSAPublicKey):
            raise ValueError("it has no RSA key")
        self._key = key
        if not self.is_good:
            raise ValueError("it has expired")

    @property
    def is_good(self) -> bool:
        """Whether it is in force now."""
        now = datetime.now(UTC)
        return self._read.not_valid_before_utc <= now <= self._read.not_valid_after_utc

    def signed(self, text: bytes, signature: bytes, version: str) -> bool:
        """Tell whether `signature` is that of `text`; `version` is what Amazon calls the algorithm."""
        algorithm = _HASHES.get(version)
        if algorithm is None:
            return False
        try:
            self._key.verify(signature, text, padding.PKCS1v15(), algorithm())
        except InvalidSignature:
            return False
        return True
