"""What an installation signs for people who sign in: the name of its cookie, sign-ins that have begun.

Pure.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from gateway.signing.keys import derive_keys, sign_texts

_PURPOSE: Final = b"upload-gateway sign-in v1"

_NAME_DIGITS: Final = 8


class SignInSigner:
    """Signs texts that a browser brings back."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = derive_keys(keys, _PURPOSE)

    def __repr__(self) -> str:
        return "<SignInSigner>"

    def sign(self, *texts: str) -> str:
        """Return the signature, 43 characters."""
        return sign_texts(self._keys[0], texts)

    def is_genuine(self, signature: str, *texts: str) -> bool:
        """Tell whether this installation signed these. Every key is tried."""
        genuine = False
        for key in self._keys:
            expected = sign_texts(key, texts)
            genuine |= hmac.compare_digest(expected.encode(), signature.encode("utf-8", "surrogatepass"))
        return genuine

    def cookie_name(self, folder: str) -> str:
        """Return the name of the cookie of the gateway with this state folder."""
        digest = hmac.new(
            self._keys[0], b"cookie " + folder.encode(errors="surrogateescape"), hashlib.sha256
        )
        return f"upload-gateway-{digest.hexdigest()[:_NAME_DIGITS]}"
