"""What is kept of a session. Its secret is not: its SHA-256 is looked up, as that of a key is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class SessionHolder(NamedTuple):
    """Who has signed in, and with what: the session ends when `source` does.

    `kind` and `name` are those of the principal, and `principal` is it as JSON. `source` is the SHA-256
    of a token or of a key's secret, else what issued the identity.
    """

    kind: str
    name: str
    principal: str
    source: str


@dataclass(frozen=True, slots=True)
class Session:
    """A session: the SHA-256 of its secret, its holder, and when it began and ends (Unix times)."""

    digest: str
    holder: SessionHolder
    created: float
    expires: float

    def is_valid(self, now: float) -> bool:
        """Tell whether it has not ended by itself."""
        return now < self.expires
