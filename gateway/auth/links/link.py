"""A link: what it is for, until when, and how much may come through it. Plain data.

What is kept of its secret is the SHA-256: see `auth.api_keys`.
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.auth.tokens import new_token
from gateway.domain import paths
from gateway.domain.links import LINK, LinkKind
from gateway.errors import Refusal

LINK_PREFIX: Final = "ugl_"
"""What every secret of a link begins with, so that scanners for secrets find it."""

DEFAULT_LINK_TTL: Final = 7 * 86_400.0
"""Seconds that a link is in force where nobody says how long."""

MAX_COUNT: Final = 2**53
"""Files and bytes that a limit may have: JavaScript counts so far."""

MAX_PASSWORD_CHARS: Final = 1000


def new_link_secret() -> str:
    """Make the secret of a link: 256 random bits behind `LINK_PREFIX`."""
    return LINK_PREFIX + new_token()


def new_link_id() -> str:
    """Make the id of a link, 8 characters. It is a name, and no secret."""
    return base64.b32encode(secrets.token_bytes(5)).decode().lower()


@dataclass(frozen=True, slots=True)
class Link:
    """A link without its secret. Times are Unix times; `expires` None: never.

    `folder` is a stored path with a slash at its end. `max_files` and `max_bytes` limit all uploads of
    a drop link together, None: any amount. `password` is the argon2id hash of its password.
    `creator` names who made it, None: the owner on the machine. `downloads` counts what was fetched.
    """

    id: str
    kind: LinkKind
    folder: str
    created: float
    expires: float | None = None
    max_files: int | None = None
    max_bytes: int | None = None
    password: str | None = field(default=None, repr=False)
    creator: str | None = None
    revoked: float | None = None
    downloads: int = 0
    last_used: float | None = None

    @property
    def principal(self) -> dict[str, Any]:
        """The principal of the requests of whoever has it."""
        return {"name": self.id, "kind": LINK}

    @property
    def folder_name(self) -> str:
        """The name of the folder alone: where it is, nobody outside needs to know."""
        return self.folder[:-1].rpartition("/")[2]

    def state(self, now: float) -> str:
        """Return `active`, `expired` or `revoked`."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "active"


def check_link_folder(text: str) -> str:
    """Return a folder that a link may have, with a slash at its end. Raises `ValueError`."""
    try:
        segments = paths.check_path(text.removesuffix("/"))
    except Refusal as refusal:
        raise ValueError(refusal.message) from None
    if segments[0] == paths.RESERVED:
        raise ValueError("is a place of the gateway itself")
    return "/" + "/".join(segments) + "/"


def link_unavailable() -> Refusal:
    """Return the one refusal of links that never were, were revoked, or have expired."""
    return Refusal("link_unavailable", "this link is not valid (any more): ask for a new one")
