"""`files` of scripts: what every storage behind it offers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from gateway.domain.model import OnConflict, Stored


class Files(Protocol):
    """Stored files, for scripts: by event the version that was committed, else by path.

    `gateway.files.service` has the details. `open` and `remove` raise `Superseded` if it was replaced.
    """

    def open(self, event: Mapping[str, Any]) -> AbstractAsyncContextManager[Any]:
        """Open the file of an event for reading bytes."""

    async def remove(self, event: Mapping[str, Any]) -> None:
        """Remove the file of an event."""

    def open_path(self, path: str, etag: str | None = None) -> AbstractAsyncContextManager[Any]:
        """Open what is stored at a path for reading bytes."""

    async def save(
        self,
        path: str,
        source: Any,
        *,
        mime: str | None = None,
        metadata: Mapping[str, str] | None = None,
        on_conflict: OnConflict = "replace",
    ) -> Stored:
        """Store a file."""

    async def move(
        self,
        file: Mapping[str, Any] | str,
        path: str,
        *,
        on_conflict: OnConflict = "replace",
        etag: str | None = None,
    ) -> Any:
        """Give the file of an event, or of a path, another path."""

    async def stat(self, path: str) -> Any:
        """Describe what is stored at a path."""

    def list(self, prefix: str = "/", *, after: str | None = None) -> AsyncIterator[Any]:
        """Iterate over what is stored under a prefix."""

    async def delete(self, path: str, etag: str | None = None) -> None:
        """Remove what is stored at a path."""

    async def expire(self, prefix: str, seconds: float) -> int:
        """Remove what is stored in a folder and older."""
