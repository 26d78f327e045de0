"""Finds the partial upload of a request, for whom it is meant to be found.

A caller needs the secret in the URL, the default authorization, and to be the principal that created the
upload, if there was one. Unknown, foreign and expired uploads, and wrong secrets, look alike.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.auth.request import IncomingRequest
from gateway.commit.partials import OpenPartial, PartialStore
from gateway.domain.partial import CONCAT_FIELD, PartialStatus, may_continue, ranged_identity
from gateway.endpoints.uploads.admission import Admission
from gateway.endpoints.uploads.resumable.operations import Concatenation, PartialResult
from gateway.endpoints.uploads.resumable.references import PartialReferences
from gateway.errors import Refusal
from gateway.telemetry import logs

FindUpload = Callable[[str], Awaitable[Mapping[str, Any] | None]]
"""Returns what `/-/uploads/<id>` tells of an upload of any process, None where there is none."""

COMMIT_TIMEOUT: Final = 5.0
"""Seconds that a request waits for the outcome of a commit that takes a partial upload away."""

COMMIT_INTERVAL: Final = 0.02
"""Seconds between two looks at an upload that is being committed."""

_STORED: Final = frozenset({"stored", "held", "unsettled"})
_ENDING: Final = frozenset({"admitting", "receiving", "deciding", "committing"})
"""States of an upload whose files are gone, and whose request has not ended yet."""


@dataclass(slots=True, frozen=True)
class PartialAccess:
    """Checks who may do what, and describes what is found. On the server's event loop."""

    admission: Admission
    store: PartialStore
    references: PartialReferences
    find_upload: FindUpload

    async def find(self, incoming: IncomingRequest, reference: str) -> PartialStatus | PartialResult:
        """Return the partial upload of a reference, or the result of one that is complete.

        Raises `Refusal`: `not_found`, or what authorization says.
        """
        upload_id = self.references.verify(reference)
        if upload_id is None:
            await self.authorize(incoming, None)
            raise not_found()
        return await self.find_by_id(incoming, upload_id)

    async def find_by_id(
        self, incoming: IncomingRequest, upload_id: str
    ) -> PartialStatus | PartialResult:
        """Return the same of an upload id that its caller may know."""
        incoming.facts.upload_id = upload_id
        logs.add_fields(upload_id=upload_id)
        status = await self.store.status(upload_id)
        if status is not None:
            await self.authorize(incoming, status.head.upload.principal)
            return status
        return await self.find_completed(incoming, upload_id)

    async def find_completed(self, incoming: IncomingRequest, upload_id: str) -> PartialResult:
        """Return the result of an upload that is complete. Raises as `find`, and `locked`."""
        upload = await self._outcome(upload_id)
        if upload is None or upload["state"] not in _STORED | _ENDING:
            await self.authorize(incoming, None)
            raise not_found()
        await self.authorize(incoming, upload["principal"])
        if upload["state"] in _ENDING:
            raise Refusal("locked", "the file of this upload is being stored: try again")
        size = int(upload["bytes"])
        url = self.references.url(incoming.raw_path, upload_id)
        headers = upload.get("kept_headers", {})
        text = headers.get(CONCAT_FIELD)
        return PartialResult(
            upload_id,
            url,
            size,
            size,
            is_complete=True,
            metadata_text=headers.get("Upload-Metadata", ""),
            concat=None if text is None else Concatenation((), text),
        )

    async def _outcome(self, upload_id: str) -> Mapping[str, Any] | None:
        """Return what is told of an upload that is no partial one any more.

        Its file has its name before its commit is durable: until then it is neither partial nor stored,
        and a client that were told `not_found` would send it again.
        """
        deadline = time.monotonic() + COMMIT_TIMEOUT
        while (upload := await self.find_upload(upload_id)) is not None and upload["state"] in _ENDING:
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(COMMIT_INTERVAL)
        return upload

    async def resolve(self, incoming: IncomingRequest, resume_key: str) -> str | None:
        """Return the id of the ranged upload of this path, principal and key. Raises `Refusal`."""
        await self.authorize(incoming, None)
        caller = await self.admission.authenticate(incoming)
        return await self.store.resolve(ranged_identity(incoming.raw_path, caller.principal, resume_key))

    async def authorize(self, incoming: IncomingRequest, creator: Mapping[str, Any] | None) -> None:
        """Check whether the sender may go on with the upload of a creator. Raises `Refusal`."""
        if creator is not None and creator["kind"] == "signed":
            return  # the URL was signed for it: no other authorization was needed, nor is one now
        caller = await self.admission.authenticate(incoming)
        self.admission.authorize(caller.principal)
        if not may_continue(creator, caller.principal):
            raise not_found()

    def describe(self, status: PartialStatus, *, is_complete: bool = False) -> PartialResult:
        """Return what can be told of a partial upload."""
        head = status.head
        url = self.references.url(head.asked_path, head.upload.id)
        return PartialResult(
            head.upload.id,
            url,
            status.offset,
            status.length,
            is_complete,
            None if is_complete and not head.part_of_concat else status.expires,
            metadata_text=head.metadata_text,
            part_of_concat=head.part_of_concat,
        )

    def describe_open(
        self, opened: OpenPartial, latest: float | None = None, *, is_complete: bool = False
    ) -> PartialResult:
        """Return the same of one that is open here; `latest` is when its latest byte came, None: now."""
        latest = time.time() if latest is None else latest
        status = PartialStatus(opened.head, opened.offset, opened.length, latest)
        return self.describe(status, is_complete=is_complete)


def not_found() -> Refusal:
    """Return the one refusal for everything that the sender has no business with."""
    return Refusal("not_found", "there is no such upload (any more)")
