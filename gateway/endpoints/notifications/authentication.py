"""Authentication of notifications: a principal of the gateway, or the shared secret of notifications.

Object stores send the secret in different places. Secrets are compared in constant time and never
quoted.
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
"""Amazon SNS sends the password of its URL only after this challenge."""

MAX_SECRET_LENGTH: Final = 2000
"""Characters of a presented secret that are compared."""


@dataclass(frozen=True, slots=True)
class NotificationAuthenticator:
    """Checks senders against `secrets`, each of them valid; `open_here` accepts all if there is none."""

    secrets: Sequence[str] = field(default=(), repr=False)
    open_here: bool = False

    def check_headers(self, headers: Mapping[str, str]) -> bool | None:
        """Return whether the headers authenticate the sender; None if the body may."""
        if not self.secrets:
            return self.open_here
        return True if self._matches_any([*_bearer(headers), *_password(headers)]) else None

    def is_signed(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Return whether the body is signed with a secret."""
        presented = headers.get(SIGNATURE, "")[:MAX_SECRET_LENGTH].encode("utf-8", "replace")
        valid = False
        for secret in self.secrets:
            expected = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
            valid |= hmac.compare_digest(expected.encode(), presented)
        return valid

    def are_authentic(self, presented: Sequence[str | None]) -> bool:
        """Return whether every record repeats a secret, so that none was added to the body."""
        return bool(presented) and all(
            text is not None and self._matches_any([text]) for text in presented
        )

    def _matches_any(self, presented: Sequence[str]) -> bool:
        valid = False
        for text in presented:
            for secret in self.secrets:  # all of them: the time must not depend on which one matches
                valid |= hmac.compare_digest(_digest(text), _digest(secret))
        return valid


def unauthorized() -> Refusal:
    """Return the refusal of a sender that is not authenticated."""
    return Refusal(
        "unauthorized",
        "notifications need authentication: send a token, or the notifications' secret as Bearer token,"
        f" as password of the URL, as opaqueData or in {SIGNATURE}",
        CHALLENGE,
    )


def _digest(text: str) -> bytes:
    return hashlib.sha256(text[:MAX_SECRET_LENGTH].encode("utf-8", "surrogateescape")).digest()


def _bearer(headers: Mapping[str, Any]) -> list[str]:
    scheme, _, credentials = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return [credentials.strip()]
    # MinIO sends its `auth_token` unchanged if it contains a scheme of its own, or is one word.
    return [scheme] if scheme and not credentials else []


def _password(headers: Mapping[str, Any]) -> list[str]:
    """Return the password of RFC 7617; the user name is ignored."""
    scheme, _, credentials = headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return []
    try:
        plain = base64.b64decode(credentials.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return []
    return [plain.partition(":")[2]]
