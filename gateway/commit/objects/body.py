"""A commit of an object, and what it asks of its body: one that came in one request, or in several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.domain.model import Upload
from gateway.events.pending_uploads import PendingUpload
from gateway.storage.s3.encoding import ObjectTarget


class ObjectBody(Protocol):
    """A body whose bytes are all in the bucket or in memory, and not visible yet.

    `claim` marks, in the journal and in the bucket, the only commit that may publish it; None where no
    other process can. `done` is called when it is published, or left to the reconciler.
    """

    target: ObjectTarget
    done: Callable[[], None]
    claim: str | None

    @property
    def received(self) -> int:
        """Its bytes."""

    @property
    def multipart(self) -> str | None:
        """S3's id of its multipart upload, None where it is stored by one request."""

    @property
    def staged_at(self) -> str | None:
        """Key of the private object that is copied; None where the bytes are published themselves."""

    @property
    def can_retarget(self) -> bool:
        """Whether `target` can still be changed."""

    async def publish(self, *, new: bool) -> str:
        """Publish it; return its etag. With `new` it replaces none. Raises as `put_object`.

        Raises `ChangedError` where another process has claimed it: it was not published here.
        """

    async def withdraw(self) -> None:
        """Give the claim up: nothing publishes it any more. Raises `Refusal`, `ChangedError`."""

    async def discard(self) -> None:
        """End what is refused. Does not raise where the storage is unavailable."""

    def release_memory(self) -> None:
        """Give the memory back."""


_UNRECORDED: Final = PendingUpload("", "", {}, ())


@dataclass(slots=True)
class ObjectCommit:
    """One upload that is being committed. `row` is what the journal has of it.

    `is_resumed` says that an earlier try has written the row, and may have published it. `is_held`: it
    is a held upload, which stays one whatever comes of this try; its one-time URL is used up.
    """

    upload: Upload
    body: ObjectBody
    digests: dict[str, str]
    from_client: bool
    row: PendingUpload = _UNRECORDED
    is_resumed: bool = False
    is_held: bool = False

    @property
    def new(self) -> bool:
        """Whether it may replace nothing."""
        return self.upload.must_be_new or self.upload.on_conflict != "replace"

    @property
    def renames(self) -> bool:
        """Whether it gets another name where its own exists."""
        return self.upload.on_conflict == "rename" and not self.upload.must_be_new
