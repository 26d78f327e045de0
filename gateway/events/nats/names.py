"""Names of streams, subjects and consumers.

Every name begins with the installation's prefix. A handler's name becomes one subject token that no
other handler has. Pure.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]")
MAX_TOKEN_LENGTH: Final = 160
"""Characters of a token: a consumer's name is a folder's name on the server's disk."""


def token(name: str) -> str:
    """Return `name` as one token: letters, digits, `_` and `-` stay, all else is `=XX` per byte.

    Dots, spaces, `*` and `>` mean something in a subject (docs.nats.io, subject-based messaging),
    slashes in a consumer's name. A very long name ends in its hash.
    """
    plain = "".join(c if _PLAIN.match(c) else "".join(f"={b:02X}" for b in c.encode()) for c in name)
    if not plain:
        return "="
    if len(plain) <= MAX_TOKEN_LENGTH:
        return plain
    return f"{plain[: MAX_TOKEN_LENGTH - 33]}~{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def name_of(part: str) -> str:
    """Return the name that `token` was made from; of a very long one, the token itself."""
    if "~" in part or part == "=":
        return part.removeprefix("=")
    pieces = part.split("=")
    raw = pieces[0].encode() + b"".join(bytes.fromhex(p[:2]) + p[2:].encode() for p in pieces[1:])
    return raw.decode(errors="replace")


@dataclass(frozen=True, slots=True)
class StreamNames:
    """The names of one installation. `prefix` is one token, such as `apigw`."""

    prefix: str

    @property
    def queue(self) -> str:
        """The stream of deliveries."""
        return f"{self.prefix}-queue"

    @property
    def dead(self) -> str:
        """The stream of dead deliveries."""
        return f"{self.prefix}-dead"

    @property
    def runs(self) -> str:
        """The stream of ended runs, and of notes on delayed deliveries."""
        return f"{self.prefix}-runs"

    def subject(self, handler: str, event_id: str | None = None) -> str:
        """The subject of a delivery; without an event, the filter of the handler's consumer."""
        return self.subject_of("q", handler, event_id)

    def consumer(self, handler: str) -> str:
        """The durable consumer that all nodes share."""
        return token(handler)

    def subject_of(self, kind: str, handler: str | None = None, event_id: str | None = None) -> str:
        """A subject of `kind` (q, dead, run, wait); None matches all."""
        parts = ("*" if text is None else token(text) for text in (handler, event_id))
        return ".".join((self.prefix, kind, *parts))
