"""The partial uploads of a gateway in the list of uploads: they wait for their clients to go on."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import ClassVar

from gateway.commit.partials import PartialStore
from gateway.endpoints.admin.partial_status import waiting_upload
from gateway.endpoints.admin.upload_sources import Json, SourcePage, UploadSelection


@dataclass(frozen=True, slots=True)
class WaitingUploads:
    """The partial uploads of all processes: an `UploadSource`. What is receiving another one knows."""

    store: PartialStore
    has_held: ClassVar[bool] = False

    async def page(self, selection: UploadSelection, before: str, limit: int) -> SourcePage:
        """See `UploadSource`. All are looked at, `limit` of them kept in memory. Raises `Refusal`."""
        newest: list[tuple[str, Json]] = []
        is_whole = True
        async for status in self.store.list():
            upload = status.head.upload
            if upload.id >= before or not selection.matches(upload.principal, upload.created):
                continue
            row = waiting_upload(status)
            del row["handlers"]
            if len(newest) < limit:
                heapq.heappush(newest, (upload.id, row))
            else:
                heapq.heappushpop(newest, (upload.id, row))
                is_whole = False
        rows = [row for _, row in sorted(newest, key=lambda entry: entry[0], reverse=True)]
        return SourcePage(rows, None if is_whole else rows[-1]["upload_id"])
