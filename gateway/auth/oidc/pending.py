"""A sign-in that has begun. The browser keeps it, signed: clients cannot fill the memory of the gateway.

State, nonce and PKCE verifier are made of one secret in it by a key of the installation, so that the
cookie alone gives none of them away. Pure. Sources: RFC 6749 section 10.12, RFC 7636, RFC 9700.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from gateway.auth.tokens import new_token
from gateway.signing.sign_in import SignInSigner

PENDING_TTL: Final = 600
"""Seconds that a person has to sign in at the issuer."""

MAX_RETURN_CHARS: Final = 2000

START: Final = "/"


class PendingSignIn(NamedTuple):
    """A sign-in that has begun: its secret, its end (Unix time), and the path to go on to.

    `replaced` is the digest of the session that the browser had, or nothing.
    """

    secret: str
    end: int
    path: str
    replaced: str


class PendingSigner:
    """Makes the cookies of pending sign-ins, and reads them. `clock` returns Unix time."""

    def __init__(self, signer: SignInSigner, clock: Callable[[], float] = time.time) -> None:
        self._signer = signer
        self._clock = clock

    def begin(self, path: str, replaced: str | None) -> PendingSignIn:
        """Begin a sign-in that goes on to a path of this gateway."""
        return PendingSignIn(
            new_token(), int(self._clock()) + PENDING_TTL, checked_return(path), replaced or ""
        )

    def encode(self, pending: PendingSignIn) -> str:
        """Return the value of its cookie."""
        path = base64.urlsafe_b64encode(pending.path.encode()).rstrip(b"=").decode()
        fields = (pending.secret, str(pending.end), path, pending.replaced)
        return ".".join((*fields, self._signer.sign("pending", *fields)))

    def decode(self, value: str) -> PendingSignIn | None:
        """Return the sign-in of a cookie; None where it is not genuine, or too old."""
        *fields, signature = value.split(".")
        if len(fields) != 4 or not self._signer.is_genuine(signature, "pending", *fields):
            return None
        secret, end, path, replaced = fields
        if self._clock() >= int(end):
            return None
        decoded = base64.urlsafe_b64decode(path + "=" * (-len(path) % 4)).decode()
        return PendingSignIn(secret, int(end), decoded, replaced)

    def state(self, pending: PendingSignIn) -> str:
        """Return what binds the answer of the issuer to this browser."""
        return self._signer.sign("state", pending.secret)

    def nonce(self, pending: PendingSignIn) -> str:
        """Return what binds the ID token to this sign-in."""
        return self._signer.sign("nonce", pending.secret)

    def verifier(self, pending: PendingSignIn) -> str:
        """Return the PKCE code verifier (RFC 7636 section 4.1)."""
        return self._signer.sign("verifier", pending.secret)

    def has_state(self, pending: PendingSignIn, state: str) -> bool:
        """Tell whether an answer of the issuer belongs to this sign-in."""
        return hmac.compare_digest(self.state(pending).encode(), state.encode(errors="surrogateescape"))


def challenge_of(verifier: str) -> str:
    """Return the PKCE challenge of a verifier, by S256 (RFC 7636 section 4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def checked_return(path: str) -> str:
    """Return a path of this gateway to go on to after a sign-in, else `/`.

    Browsers take `//host`, and a backslash for a slash, for another host, and leave out tabs and line
    breaks before they look (URL standard, section 4.4).
    """
    plain = path.isprintable() and "\\" not in path and " " not in path
    if not path.startswith("/") or path.startswith("//") or not plain or len(path) > MAX_RETURN_CHARS:
        return START
    return path
