"""Makes a file of parts that were uploaded before it (tus, `Upload-Concat: final`).

The parts are whole partial uploads of the same principal. Their bytes are copied, or shared where the
file system can; the parts go once the file is stored, and stay where it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from gateway.auth.request import IncomingRequest
from gateway.commit.partials import OpenPartial
from gateway.domain.partial import PartialStatus, part_identity
from gateway.endpoints.uploads.resumable.access import PartialAccess, not_found
from gateway.endpoints.uploads.resumable.handover import RunningRequests
from gateway.errors import Refusal

MAX_OPEN_PARTS: Final = 16
"""Parts that are open at once: each takes two descriptors."""


@dataclass(slots=True, frozen=True)
class PartAssembly:
    """Finds parts and appends them. On the server's event loop."""

    access: PartialAccess
    running: RunningRequests

    async def find(self, incoming: IncomingRequest, references: Sequence[str]) -> list[PartialStatus]:
        """Return the parts that are meant, in order.

        Raises `Refusal`: `not_found`; `bad_request` for one that is not whole or no part.
        """
        parts: list[PartialStatus] = []
        for position, reference in enumerate(references, start=1):
            upload_id = await self._resolve(incoming, reference)
            part = None if upload_id is None else await self.access.store.status(upload_id)
            if part is None:
                raise not_found()
            await self.access.authorize(incoming, part.head.upload.principal)
            if not part.head.part_of_concat:
                raise Refusal("bad_request", f"upload {position} was not created as a part of a file")
            if not part.is_whole:
                raise Refusal("bad_request", f"part {position} has not come whole")
            parts.append(part)
        if len({part.head.upload.id for part in parts}) < len(parts):
            raise Refusal("bad_request", "a part is named twice")
        return parts

    async def _resolve(self, incoming: IncomingRequest, reference: str) -> str | None:
        upload_id = self.access.references.verify(reference)
        if upload_id is not None:
            return upload_id
        caller = await self.access.admission.authenticate(incoming)
        return await self.access.store.resolve(part_identity(caller.principal, reference))

    async def append(
        self, incoming: IncomingRequest, opened: OpenPartial, parts: Sequence[PartialStatus]
    ) -> None:
        """Append all bytes of the parts, durably. Raises `Refusal`."""
        for start in range(0, len(parts), MAX_OPEN_PARTS):
            async with AsyncExitStack() as stack:
                batch: list[OpenPartial] = []
                for status in parts[start : start + MAX_OPEN_PARTS]:
                    opening = self.running.opened(status.head.upload.id, incoming.request)
                    part, _ = await stack.enter_async_context(opening)
                    stack.push_async_callback(part.close)
                    batch.append(part)
                await opened.append_parts(batch)

    async def remove(self, incoming: IncomingRequest, parts: Sequence[PartialStatus]) -> None:
        """Remove the parts of a file that is stored. What is missed expires later."""
        for status in parts:
            try:
                async with self.running.opened(status.head.upload.id, incoming.request) as (part, _):
                    await part.remove()
            except Refusal:
                continue
