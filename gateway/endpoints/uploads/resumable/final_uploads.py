"""Makes a file of parts that were uploaded before (tus, `Upload-Concat: final`).

All parts must be whole. The request that names them commits the file, and then removes them.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from gateway.auth.request import IncomingRequest
from gateway.commit.partials import OpenPartial
from gateway.domain.partial import PartialStatus, part_identity
from gateway.endpoints.uploads.resumable.access import PartialAccess, not_found
from gateway.endpoints.uploads.resumable.concatenation import is_part_name
from gateway.endpoints.uploads.resumable.handover import RunningRequests
from gateway.endpoints.uploads.resumable.operations import Concatenation, Creation
from gateway.errors import Refusal

MAX_OPEN_PARTS: Final = 16
"""Parts that one request has open at once: each takes descriptors."""


@dataclass(slots=True, frozen=True)
class FinalUploads:
    """Finds, joins and removes the parts of files. On the server's event loop."""

    access: PartialAccess
    running: RunningRequests

    async def measure(
        self, incoming: IncomingRequest, creation: Creation, concat: Concatenation
    ) -> tuple[Creation, Sequence[str]]:
        """Return a creation with the length of its file, and the ids of the parts, in order.

        Raises `Refusal`: `not_found` for a part that is not there, or not the sender's; `bad_request`
        for what is no part, or is not whole.
        """
        parts: dict[str, PartialStatus] = {}
        for position, reference in enumerate(concat.parts, start=1):
            if reference not in parts:
                parts[reference] = await self._find(incoming, reference, position)
        statuses = [parts[reference] for reference in concat.parts]
        length = sum(status.offset for status in statuses)
        return replace(creation, length=length), [status.head.upload.id for status in statuses]

    async def join(self, incoming: IncomingRequest, opened: OpenPartial, parts: Sequence[str]) -> None:
        """Append all parts to a new upload. Raises `Refusal`."""
        for start in range(0, len(parts), MAX_OPEN_PARTS):
            group = parts[start : start + MAX_OPEN_PARTS]
            async with contextlib.AsyncExitStack() as stack:
                # In one order, so that no two requests wait for each other.
                sources = {
                    part: await stack.enter_async_context(self._opened(incoming, part))
                    for part in sorted({*group})
                }
                await opened.append_parts([sources[part] for part in group])

    async def remove(self, incoming: IncomingRequest, parts: Sequence[str]) -> None:
        """Remove the parts of a file that is stored. One that is in use expires later."""
        for part in sorted({*parts}):
            with contextlib.suppress(Refusal):
                async with self._opened(incoming, part) as source:
                    await source.remove()

    async def _find(self, incoming: IncomingRequest, reference: str, position: int) -> PartialStatus:
        if is_part_name(reference):
            upload_id = await self.access.store.resolve(part_identity(reference))
            if upload_id is None:
                await self.access.authorize(incoming, None)
                raise not_found()
            status = await self.access.find_by_id(incoming, upload_id)
        else:
            status = await self.access.find(incoming, reference)
        if not isinstance(status, PartialStatus) or not status.head.part_of_concat:
            raise Refusal("bad_request", f"upload {position} is no part: create it as `partial`")
        if not status.is_whole:
            raise Refusal("bad_request", f"part {position} is not whole yet: upload the rest first")
        return status

    @asynccontextmanager
    async def _opened(self, incoming: IncomingRequest, upload_id: str) -> AsyncIterator[OpenPartial]:
        async with self.running.opened(upload_id, incoming.request) as (part, _):
            try:
                yield part
            finally:
                await part.close()
