"""The sessions as a process knows them: all in memory, so that no request waits for the file.

A process that changes the file says so in memory that all processes share. Another one reads what has
changed, in a thread, before it looks at the next session: whoever signs out is signed out everywhere.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import secrets
import time
from collections.abc import Callable
from typing import Final

from gateway.auth.sessions.session import Session, SessionHolder
from gateway.auth.sessions.store import NO_SESSIONS, SessionStore
from gateway.auth.tokens import new_token, token_digest
from gateway.errors import ConfigError
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.sessions")

READ_INTERVAL: Final = 10.0
"""Seconds after which the file is read in any case: the operator may have removed it."""

_MAX_READS: Final = 3
"""Reads that one request waits for, where sessions change all the time."""


class ChangeMark:
    """A number that is another one after every change. Forked processes share it."""

    def __init__(self) -> None:
        self._cell = memoryview(mmap.mmap(-1, 8)).cast("Q")

    @property
    def number(self) -> int:
        """The number now."""
        return self._cell[0]

    def move(self) -> None:
        """Let it be another number: random, so that no two processes set the same."""
        self._cell[0] = secrets.randbits(64)


class Sessions:
    """The sessions of a gateway, each for `ttl` seconds. On the server's event loop.

    `clock` returns Unix time.
    """

    def __init__(
        self,
        store: SessionStore,
        mark: ChangeMark,
        ttl: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._mark = mark
        self._ttl = ttl
        self._clock = clock
        self._table = NO_SESSIONS
        self._number: int | None = None
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._failing = False

    @property
    def are_current(self) -> bool:
        """Whether `find` knows what the file has."""
        return self._number == self._mark.number and time.monotonic() < self._read_at + READ_INTERVAL

    async def refresh(self) -> None:
        """Read what has changed. Where that fails, the sessions that are known stay in force."""
        for _ in range(_MAX_READS):
            if self.are_current:
                return
            if self._reading is None:
                self._reading = asyncio.create_task(self._read())
                self._reading.add_done_callback(self._has_read)
            await asyncio.shield(self._reading)

    def find(self, secret: str) -> Session | None:
        """Return the session of a secret, if it has not ended. Nothing is read."""
        session = self._table.sessions.get(token_digest(secret))
        return session if session is not None and session.is_valid(self._clock()) else None

    async def begin(
        self,
        holder: SessionHolder,
        *,
        secure: bool,
        replaced: str | None = None,
        end: float = float("inf"),
    ) -> tuple[str, Session]:
        """Begin a session, which ends by the Unix time `end`; that of the digest `replaced` ends now.

        Returns its secret, which is always a new one. Raises `ConfigError` where it cannot be kept.
        """
        secret, now = ("s" if secure else "p") + new_token(), self._clock()
        session = Session(token_digest(secret), holder, now, min(now + self._ttl, end))
        await asyncio.to_thread(self._store.add, session, replaced)
        self._mark.move()
        return secret, session

    async def end(self, secret: str) -> None:
        """End a session, in all processes at once. Raises `ConfigError` where that cannot be kept."""
        await asyncio.to_thread(self._store.remove, token_digest(secret))
        self._mark.move()

    async def spend(self, state: str, until: float) -> bool:
        """Note that a sign-in has ended; return False if that had been noted. Raises `ConfigError`."""
        return await asyncio.to_thread(self._store.spend, token_digest(state), until, self._clock())

    async def _read(self) -> None:
        number, table = self._mark.number, self._table
        try:
            self._table = await asyncio.to_thread(self._store.read, table)
        except ConfigError as error:
            if not self._failing:
                log.error("%s", error, extra=event("sessions.unavailable"))
            self._failing = True
        else:
            self._failing = False
        self._number, self._read_at = number, time.monotonic()

    def _has_read(self, _: asyncio.Task[None]) -> None:
        self._reading = None
