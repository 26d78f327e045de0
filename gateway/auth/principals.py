"""The kinds of principals, and those that have no name of their own."""

from __future__ import annotations

from typing import Final

TOKEN: Final = "token"  # noqa: S105 - no password
"""The kind of principal of a token of the settings."""

API_KEY: Final = "key"
"""The kind of principal of a request with an API key."""

JWT: Final = "jwt"
"""The kind of principal, and the mode, of JSON Web Tokens."""

OIDC: Final = "oidc"
"""The kind of principal of a person whom an OpenID Connect issuer has signed in."""

PROXY: Final = "proxy"
"""The kind of principal of a user that a trusted proxy names."""

CERTIFICATE: Final = "certificate"
"""The kind of principal of a client's TLS certificate."""

AMBIENT_KINDS: Final = frozenset({PROXY, CERTIFICATE})
"""Kinds of principals whose credentials a browser adds by itself."""

INTERNAL: Final = {"name": "internal", "kind": "internal"}
"""The principal of a request that a gateway of this installation made."""

SIGNED: Final = {"name": "signed url", "kind": "signed"}
"""The principal of a request whose URL was signed for it."""
