"""Signs webhooks as Standard Webhooks say, with HMAC-SHA256. Pure.

Source: github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

PREFIX: Final = "whsec_"
"""A secret is this word and the base64 of its bytes."""

MIN_BYTES, MAX_BYTES = 24, 64
"""Bytes of a secret, as the specification says."""


def read_secret(text: str) -> bytes:
    """Return the bytes of a secret `whsec_<base64>`. Raises `ValueError`, whose text quotes nothing."""
    if not text.startswith(PREFIX):
        raise ValueError(f"begins with {PREFIX}")
    try:
        secret = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"has base64 behind {PREFIX}") from None
    if not MIN_BYTES <= len(secret) <= MAX_BYTES:
        raise ValueError(f"has {MIN_BYTES} to {MAX_BYTES} bytes in base64 behind {PREFIX}")
    return secret


def sign_webhook(secrets: Sequence[bytes], message_id: str, timestamp: int, payload: bytes) -> str:
    """Return the header `webhook-signature`: one signature for each secret, separated by spaces.

    `timestamp` is the Unix time of the request in seconds.
    """
    signed = b".".join((message_id.encode(), str(timestamp).encode(), payload))
    digests = (hmac.digest(secret, signed, hashlib.sha256) for secret in secrets)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)
