"""Keys of one purpose, derived from those of an installation.

An installation key signs nothing itself: every signature uses a key derived for its purpose (RFC 5869
gives the reason).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from typing import Final

MIN_KEY_BYTES: Final = 32
"""Bytes of an installation key: as many as the hash has (RFC 2104 section 3)."""


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
    signed = b"".join(b"%d:%s," % (len(piece), piece) for piece in pieces)
    return base64.urlsafe_b64encode(hmac.digest(key, signed, hashlib.sha256)).rstrip(b"=").decode()
