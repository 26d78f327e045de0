"""The removal of a stored file for a client: the request, its event, and what removes it.

The promise: a file that was answered as removed is gone, durably, and its `OnFileDeleted` handlers will
run at least once. A file whose removal was refused stays. Without an answer it is one or the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from gateway.commit.records import names_matching
from gateway.domain.event_bodies import deleted_body
from gateway.domain.model import FileRequest, HandlerSpec
from gateway.errors import Refusal
from gateway.events.deletions import DeletionRecord, PendingDeletion
from gateway.storage.local.xattrs import guess_mime
from gateway.storage.protocols import Stat
from gateway.storage.s3.encoding import user_metadata

_TAG: Final = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')


class FileRemover(Protocol):
    """Removes stored files for clients. Runs on the server's event loop."""

    def take_over(self, rows: Sequence[PendingDeletion]) -> None:
        """Take over removals of objects that an earlier run left; their events are held."""

    async def start(self) -> None:
        """Begin to settle them."""

    async def close(self) -> None:
        """Wait for what is being removed."""

    async def remove(self, deletion: FileRequest, etags: Collection[str] | None = None) -> None:
        """Remove the file at the path of a request, only a version of `etags` (None: any).

        The removal goes on where the caller is cancelled. Raises `Refusal` (the file stays):
        `not_found`, `conflict` for a folder, `precondition_failed` for another version;
        `UnknownOutcome`.
        """


@dataclass(slots=True, frozen=True)
class DeletionEvents:
    """Makes the records of deletions. `handlers()` are those of `OnFileDeleted` that are loaded now."""

    handlers: Callable[[], Sequence[HandlerSpec]]
    bucket: str | None = None

    def record(
        self, deletion: FileRequest, stat: Stat, place: Mapping[str, Any] | None = None
    ) -> DeletionRecord:
        """Return the record of the removal of a version of a file."""
        body = deleted_body(
            deletion,
            size=stat.bytes,
            etag=stat.etag,
            mime=stat.mime or guess_mime(stat.path),
            metadata=user_metadata(stat.metadata),
            bucket=self.bucket,
        )
        own_place = None if place is None else dict(place)
        handlers = names_matching(self.handlers(), deletion.path.removeprefix("/"))
        return DeletionRecord(deletion.id, stat.path, stat.etag, own_place, body, handlers)


def read_if_match(lines: Collection[str]) -> frozenset[str] | None:
    """Return the strong entity tags of the lines of `If-Match`, None for any version.

    A weak one never matches (RFC 9110 section 13.1.1). Raises `Refusal("bad_request")`.
    """
    text = ", ".join(lines).strip()
    if not lines or text == "*":
        return None
    parts = [part.strip() for part in _split(text)]
    tags = [_TAG.fullmatch(part) for part in parts if part]
    if not tags or None in tags:
        raise Refusal("bad_request", 'If-Match has entity tags in quotes, such as "1d4fb11b", or is *')
    return frozenset(tag[2] for tag in tags if tag is not None and tag[1] is None)


def _split(text: str) -> list[str]:
    """Split at the commas outside of quotes."""
    return re.findall(r'(?:"[^"]*"|[^,"])+', text)


def version_mismatch(path: str) -> Refusal:
    """Return the refusal for another version than `If-Match` names."""
    return Refusal("precondition_failed", f"If-Match is not met: {path} has another entity tag now")
