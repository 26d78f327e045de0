"""Parses a JWKS document into keys, each bound to the algorithms that fit it. Pure, uses PyJWT.

The key decides which algorithms it serves, never the token (RFC 8725 sections 2.1 and 3.1). A key
that cannot be used is skipped with a reason.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt
from jwt.algorithms import AllowedPublicKeys

MAX_KEYS: Final = 100
MAX_KEYS_OF_ONE_NAME: Final = 4
"""Keys that share a `kid`: RFC 7517 section 4.5 permits it, and a token costs one verification each."""

MIN_RSA_BITS: Final = 2048
"""RFC 7518 section 3.3."""

_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES: Final[Mapping[tuple[str, str], frozenset[str]]] = {
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
}
_PUBLIC: Final = ("kty", "n", "e", "crv", "x", "y")


class BadKeysError(ValueError):
    """The document has no usable key; the message says why, for the log."""


@dataclass(frozen=True, slots=True)
class Key:
    """A public key: its name, if it has one, and the algorithms that it may verify."""

    kid: str | None
    algorithms: frozenset[str]
    public: AllowedPublicKeys


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of an issuer, and why others were skipped."""

    keys: tuple[Key, ...]
    skipped: tuple[str, ...] = ()

    def named(self, kid: str | None) -> tuple[Key, ...]:
        """Return the keys of this name. A token without `kid` means the issuer's only key."""
        if kid is None:
            return self.keys if len(self.keys) == 1 else ()
        return tuple(key for key in self.keys if key.kid == kid)[:MAX_KEYS_OF_ONE_NAME]


def parse_jwks(document: bytes, allowed: frozenset[str]) -> KeySet:
    """Read a JWKS (RFC 7517 section 5). Raises `BadKeysError` where no key is usable.

    `allowed` are the algorithms that the operator accepts; a key that serves none of them is skipped.
    """
    try:
        entries = json.loads(document)["keys"]
    except (ValueError, RecursionError):
        raise BadKeysError("it is not JSON") from None
    except (KeyError, TypeError):
        raise BadKeysError("it is not a JSON Web Key Set: it has no `keys`") from None
    if not isinstance(entries, list) or not 0 < len(entries) <= MAX_KEYS:
        raise BadKeysError(f"`keys` must hold 1 to {MAX_KEYS} keys")
    keys, skipped = [], []
    for at, entry in enumerate(entries):
        try:
            keys.append(_key(entry, allowed))
        except (ValueError, TypeError, jwt.PyJWTError) as error:
            skipped.append(f"key {at + 1}: {str(error)[:100]}")
    if not keys:
        raise BadKeysError(f"none of its keys can be used ({'; '.join(skipped[:3])})")
    return KeySet(tuple(keys), tuple(skipped))


def _key(entry: Any, allowed: frozenset[str]) -> Key:
    """Return one key. Raises `ValueError`, `TypeError` or `PyJWTError` where it is not usable."""
    if not isinstance(entry, dict):
        raise TypeError("it is not an object")
    if entry.get("use", "sig") != "sig" or "verify" not in entry.get("key_ops", ["verify"]):
        raise ValueError("it is not for signatures")
    if "d" in entry:
        raise ValueError("its private half is published: its signatures prove nothing")
    algorithms = _family(entry) & allowed
    if not algorithms:
        raise ValueError("its type serves no accepted algorithm")
    public = {name: entry[name] for name in _PUBLIC if name in entry}
    public_key: AllowedPublicKeys = jwt.PyJWK(public, min(algorithms)).key
    if entry["kty"] == "RSA" and getattr(public_key, "key_size", 0) < MIN_RSA_BITS:
        raise ValueError(f"it has fewer than {MIN_RSA_BITS} bits")
    kid = entry.get("kid")
    return Key(kid if isinstance(kid, str) else None, algorithms, public_key)


def _family(entry: Mapping[str, Any]) -> frozenset[str]:
    """Return what a key of this type, curve and `alg` may verify: no shared secrets (`oct`)."""
    kind, curve = str(entry.get("kty")), str(entry.get("crv"))
    family = _RSA if kind == "RSA" else _CURVES.get((kind, curve), frozenset())
    algorithm = entry.get("alg")
    return family if algorithm is None else family & {algorithm}
