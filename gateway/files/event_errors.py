"""What the refusal of an event's file means for a handler."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from gateway.errors import PeerUnavailable, Refusal, Superseded
from gateway.files.versions import FileVersion

_SUPERSEDED: Final = frozenset({"not_found", "bad_path", "superseded"})
"""Refusals that mean that an event's file is no longer there, or has become a link."""

_UNKNOWN_CALLER: Final = frozenset({"unauthorized", "forbidden"})


@contextlib.contextmanager
def event_errors(version: FileVersion) -> Iterator[None]:
    """Raise what the refusal of an event's file means for a handler.

    A missing file has been superseded. What else a peer refuses is a failure of the peer.
    """
    try:
        yield
    except Refusal as refusal:
        if refusal.code in _SUPERSEDED:
            raise Superseded(
                f"{version.path} has been removed since it was uploaded ({refusal.message})"
            ) from None
        if version.owner is None:
            raise
        if refusal.code in _UNKNOWN_CALLER:
            raise PeerUnavailable(
                f"{version.owner} does not accept this node's credential: give all nodes the same"
                " --installation-key-file and set their clocks"
            ) from refusal
        raise PeerUnavailable(f"{version.owner} answers {refusal.code}: {refusal.message}") from refusal
