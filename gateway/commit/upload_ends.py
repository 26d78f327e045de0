"""Who hears how uploads end that no request waits for: held ones, and files that are removed."""

from __future__ import annotations

from typing import Protocol

from gateway.domain.model import Stored


class UploadEnds(Protocol):
    """Hears of ends, once they are durable. On the server's event loop; never raises; idempotent."""

    async def published(self, stored: Stored) -> None:
        """Note that an upload is published at its final path."""

    async def ended(self, upload_id: str) -> None:
        """Note that an upload will never be published."""


class IgnoredEnds:
    """Hears nothing."""

    async def published(self, stored: Stored) -> None:
        """See `UploadEnds`."""

    async def ended(self, upload_id: str) -> None:
        """See `UploadEnds`."""
