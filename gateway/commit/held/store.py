"""Where the bodies of held uploads are: what the local disk and a bucket implement."""

from __future__ import annotations

from typing import Final, Protocol

from gateway.domain.held import PrivateFile
from gateway.domain.model import Stored
from gateway.events.held_log import HeldUpload

NEVER_PUBLISHED: Final = frozenset(
    {
        "bad_path",
        "bad_request",
        "forbidden",
        "not_found",
        "conflict",
        "already_exists",
        "precondition_failed",
        "too_large",
        "quota_exceeded",
        "too_many_requests",
        "other_file_system",
    }
)
"""Refusals of a publishing that no other try can change. After all others it is tried again."""


class HeldStore(Protocol):
    """The private bodies of held uploads. Runs on the server's event loop."""

    def private_file(self, held: HeldUpload) -> PrivateFile:
        """Return where handlers read the body of an undecided upload. Reads nothing."""

    async def publish(self, held: HeldUpload) -> Stored:
        """Publish an accepted upload by the one commit, with its fields as they are now.

        After a crash, or an outcome that is in doubt, it is called again: what is published already is
        returned as such. Raises `Refusal` (nothing was published; `not_found` where the body is lost),
        `UnknownOutcome`.
        """

    async def remove(self, held: HeldUpload) -> None:
        """Remove what is left of the body of a rejected or published upload; may be called again.

        Raises `Refusal`, `OSError`: then it is called again later.
        """
