"""Who hears how uploads end that no request waits for: held ones, and files that are removed."""

from __future__ import annotations

from typing import Protocol

from gateway.domain.model import Stored, Upload


class UploadEnds(Protocol):
    """Hears of ends, once they are durable. On the server's event loop; idempotent."""

    async def publishing(self, upload: Upload, size: int) -> None:
        """Check an upload that is about to be published, as its handlers have changed it.

        Raises `Refusal` where it may not be, or not now.
        """

    async def published(self, stored: Stored) -> None:
        """Note that an upload is published at its final path. Never raises."""

    async def ended(self, upload_id: str) -> None:
        """Note that an upload will never be published. Never raises."""


class IgnoredEnds:
    """Hears nothing."""

    async def publishing(self, upload: Upload, size: int) -> None:
        """See `UploadEnds`."""

    async def published(self, stored: Stored) -> None:
        """See `UploadEnds`."""

    async def ended(self, upload_id: str) -> None:
        """See `UploadEnds`."""
