"""Events room, NATS: what streams, subjects and consumers are called.

The rule: every name starts with the installation's prefix, and a handler's name becomes one
subject token that cannot be mistaken for another's. Pure.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]")
LONGEST_TOKEN: Final = 160
"""Characters of a token: a consumer's name is a folder's name on the server's disk."""


def token(name: str) -> str:
    """Return `name` as one token: letters, digits, `_` and `-` stay, all else is `=XX` per byte.

    Dots, spaces, `*` and `>` mean something in a subject (docs.nats.io, subject-based messaging),
    slashes in a consumer's name. A very long name ends in its hash.
    """
    plain = "".join(c if _PLAIN.match(c) else "".join(f"={b:02X}" for b in c.encode()) for c in name)
    if not plain:
        return "="
    if len(plain) <= LONGEST_TOKEN:
        return plain
    return f"{plain[: LONGEST_TOKEN - 33]}~{hashlib.sha256(name.encode()).hexdigest()[:32]}"


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
        """The stream of what is to be delivered."""
        return f"{self.prefix}-queue"

    @property
    def dead(self) -> str:
        """The stream of what was given up."""
        return f"{self.prefix}-dead"

    @property
    def runs(self) -> str:
        """The stream of runs that ended, and of what waits for its next one."""
        return f"{self.prefix}-runs"

    def subject(self, handler: str, event_id: str | None = None) -> str:
        """Where a delivery goes; without an event, the filter of the handler's consumer."""
        return self.of("q", handler, event_id)

    def consumer(self, handler: str) -> str:
        """The durable consumer that all nodes share."""
        return token(handler)

    def of(self, kind: str, handler: str | None = None, event_id: str | None = None) -> str:
        """A subject of `kind` (q, dead, run, wait): None stands for all."""
        parts = ("*" if text is None else token(text) for text in (handler, event_id))
        return ".".join((self.prefix, kind, *parts))
