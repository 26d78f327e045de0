"""Who has a partial upload of a bucket open: one request of one process of this gateway."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

from gateway.commit.failures import refusal_of
from gateway.commit.partials import PartialBusy
from gateway.storage.local.named_locks import NamedLocks
from gateway.storage.waiting import finish_in_thread

T = TypeVar("T")


class PartialLocks:
    """Locks of partial uploads, within the process and between those of this gateway."""

    def __init__(self, locks: NamedLocks, executor: Executor) -> None:
        self._locks = locks
        self._executor = executor
        self._opened: set[str] = set()

    async def owner(self) -> str:
        """Return a name of this gateway, which all its processes have in common. Raises `Refusal`."""
        return await self._in_thread(self._locks.owner)

    async def acquire(self, upload_id: str) -> None:
        """Take the lock of an upload. Raises `PartialBusy`, `Refusal`."""
        if upload_id in self._opened:
            raise PartialBusy(f"partial upload {upload_id} is open")
        self._opened.add(upload_id)
        try:
            acquired = await self._in_thread(partial(self._locks.try_acquire, upload_id))
        except BaseException:
            await self.release(upload_id)
            raise
        if not acquired:
            self._opened.discard(upload_id)
            raise PartialBusy(f"partial upload {upload_id} is open in another process")

    async def release(self, upload_id: str) -> None:
        """Give the lock back."""
        try:
            await self._in_thread(partial(self._locks.release, upload_id))
        finally:
            self._opened.discard(upload_id)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await finish_in_thread(work, executor=self._executor)
        except OSError as error:
            raise refusal_of(error) from error
