"""Passwords of links: hashed with argon2id (RFC 9106), checked in a thread, a few at a time.

Guessing is limited by the address of the client and by the link, over all processes.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError, VerifyMismatchError

from gateway.auth.links.link import MAX_PASSWORD_CHARS, Link
from gateway.errors import Refusal
from gateway.limits import FixedWindowCounters

T = TypeVar("T")

MAX_WAITING: Final = 32
"""Passwords that wait for the thread of one process; of one more the client is told to come back."""

CLIENT_WINDOW: Final = 600.0
TRIES_OF_CLIENT: Final = 20
"""Passwords that one address may send in that time, whatever the link: people behind one share it.

An hour meets seven such windows at most, so one address cannot use up what a link takes.
"""

LINK_WINDOW: Final = 3600.0
TRIES_OF_LINK: Final = 200
"""Passwords that may be sent for one link in that time: some 30,000 in the life of a week."""

_HASHER: Final = PasswordHasher(time_cost=3, memory_cost=32 << 10, parallelism=1)
"""32 MiB and 3 passes: some 40 ms of one core here. One thread per process, so 32 MiB per process."""


def hash_password(password: str) -> str:
    """Return what is kept of a password. Blocking. Raises `ValueError` for an empty or a long one."""
    if not 0 < len(password) <= MAX_PASSWORD_CHARS:
        raise ValueError(f"a password has 1 to {MAX_PASSWORD_CHARS} characters")
    try:
        return _HASHER.hash(password)
    except UnicodeEncodeError:
        raise ValueError("the password is no text") from None


class LinkPasswords:
    """Checks and hashes the passwords of one process. On the server's event loop."""

    def __init__(self, counters: FixedWindowCounters) -> None:
        self._counters = counters
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="passwords")
        self._waiting = 0

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def hash(self, password: str) -> str:
        """Do as `hash_password` in the thread. Raises `Refusal("overloaded")`, too."""
        return await self._run(lambda: hash_password(password))

    async def check(self, link: Link, password: str, client: str) -> None:
        """Check the password of a link.

        Raises `Refusal`: `wrong_password`, `too_many_requests`, `overloaded`.
        """
        self._count(("link password of client", client), TRIES_OF_CLIENT, CLIENT_WINDOW)
        self._count(("link password", link.id), TRIES_OF_LINK, LINK_WINDOW)
        is_right = len(password) <= MAX_PASSWORD_CHARS and await self._run(
            lambda: _is_right(link.password or "", password)
        )
        if not is_right:
            raise Refusal("wrong_password", "this is not the password of the link")

    def _count(self, key: tuple[str, str], most: int, window: float) -> None:
        count, seconds_left = self._counters.increment(key, window)
        if count > most:
            headers = {"Retry-After": str(max(math.ceil(seconds_left), 1))}
            raise Refusal("too_many_requests", "too many passwords were tried: try again later", headers)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= MAX_WAITING:
            raise Refusal("overloaded", "too many passwords are being checked: try again later")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._waiting -= 1


def _is_right(password_hash: str, password: str) -> bool:
    try:
        return _HASHER.verify(password_hash, password)
    except (VerifyMismatchError, VerificationError, UnicodeEncodeError):
        return False
