"""Who may send notifications.

One rule: whoever is known to the gateway, or shows the shared secret in one of the ways that object
stores have; nobody else, except where all of `/-/` is open to this machine alone. Secrets are
compared in constant time and never quoted.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.errors import Refusal

SIGNATURE: Final = "X-Hub-Signature-256"
"""`sha256=` and the HMAC of the body in hex. Source: w3.org/TR/websub, section 7."""

CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="upload-gateway", Bearer realm="upload-gateway"'}
"""Amazon SNS sends the password of its URL only to those who ask for it like this."""

LONGEST: Final = 2000


@dataclass(frozen=True, slots=True)
class NotificationAuthenticator:
    """`secrets` are those in force, any of them good; `open_here` admits all where there is none."""

    secrets: Sequence[str] = field(default=(), repr=False)
    open_here: bool = False

    def known(self, headers: Mapping[str, str]) -> bool | None:
        """Tell whether a stranger's headers are enough; None where his body may be."""
        if not self.secrets:
            return self.open_here
        return True if self._any([*_bearer(headers), *_password(headers)]) else None

    def signed(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Tell whether the body is signed with the secret."""
        said, found = headers.get(SIGNATURE, "")[:LONGEST].encode("utf-8", "replace"), False
        for secret in self.secrets:
            made = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
            found |= hmac.compare_digest(made.encode(), said)
        return found

    def repeated(self, told: Sequence[str | None]) -> bool:
        """Tell whether every record repeats the secret: none that was slipped in between comes along."""
        return bool(told) and all(one is not None and self._any([one]) for one in told)

    def _any(self, presented: Sequence[str]) -> bool:
        found = False
        for one in presented:
            for secret in self.secrets:  # all of them: the time must not tell which one fits
                found |= hmac.compare_digest(_digest(one), _digest(secret))
        return found


def unknown() -> Refusal:
    """Return the refusal of a sender that nobody knows."""
    return Refusal(
        "unauthorized",
        "notifications are taken from known senders: show a token, or the notifications' secret as"
        f" Bearer token, as password of the URL, as opaqueData or in {SIGNATURE}",
        CHALLENGE,
    )


def _digest(text: str) -> bytes:
    return hashlib.sha256(text[:LONGEST].encode("utf-8", "surrogateescape")).digest()


def _bearer(headers: Mapping[str, Any]) -> list[str]:
    scheme, _, credentials = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return [credentials.strip()]
    # MinIO sends its `auth_token` as it is where it holds a scheme of its own, or is one word.
    return [scheme] if scheme and not credentials else []


def _password(headers: Mapping[str, Any]) -> list[str]:
    """Return the password of RFC 7617; the user's name may be anything."""
    scheme, _, credentials = headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return []
    try:
        plain = base64.b64decode(credentials.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return []
    return [plain.partition(":")[2]]
