"""The other processes of this gateway, asked through their owners' Unix sockets.

The rule: a sibling is asked for what it has itself (`scope=slot`), so nobody is asked in circles;
every question is bounded; a sibling that is just being started again is `away`, which is not the
same as knowing nothing. Lives on the server's loop.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from yarl import URL

from gateway.errors import Refusal
from gateway.storage.local.state_dir import StateDirectory

SECONDS: Final = 5.0
"""How long a question may take."""

SCOPE: Final = {"scope": "slot"}


class ProcessUnreachable(Exception):
    """The process does not answer now."""


class ProcessClients:
    """The processes of `slots`, by slot. Without any it answers at once."""

    def __init__(self, folder: Path, slots: Iterable[int] = ()) -> None:
        self._folder = folder
        self._slots = tuple(slots)
        self._fd = -1
        self._sessions: dict[int, aiohttp.ClientSession] = {}

    def start(self) -> None:
        """Make ready to ask; nobody is asked yet. Call on the loop."""
        if not self._slots:
            return
        # Through a descriptor: the kernel takes paths of 108 bytes, DIRECTORY may be longer.
        self._fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        through_fd = f"/proc/self/fd/{self._fd}"
        folder = through_fd if os.path.exists(through_fd) else self._folder
        for slot in self._slots:
            path = os.path.join(folder, StateDirectory(self._folder, slot).socket.name)
            # A connection that was kept would belong to a process that may have died since.
            connector = aiohttp.UnixConnector(path=path, force_close=True)
            timeout = aiohttp.ClientTimeout(total=SECONDS)
            self._sessions[slot] = aiohttp.ClientSession(connector=connector, timeout=timeout)

    async def close(self) -> None:
        """Ask no more."""
        sessions, self._sessions = self._sessions, {}
        await asyncio.gather(*(session.close() for session in sessions.values()))
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    @property
    def sessions(self) -> Mapping[int, aiohttp.ClientSession]:
        """A session with each sibling, by slot."""
        return self._sessions

    async def ask(self, slot: int, path: str) -> tuple[int, bytes]:
        """Return the status and body of a page of one sibling; `path` is quoted already.

        Raises `ProcessUnreachable`.
        """
        url = URL(f"http://sibling{path}", encoded=True).update_query(SCOPE)
        try:
            async with self._sessions[slot].get(url) as answer:
                return answer.status, await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError, KeyError) as fault:
            raise ProcessUnreachable(f"process {slot} does not answer: {fault}") from fault

    async def ask_all(self, path: str) -> dict[int, bytes | None]:
        """Return what each sibling has on a page, None where it does not answer 200."""

        async def one(slot: int) -> bytes | None:
            try:
                status, body = await self.ask(slot, path)
            except ProcessUnreachable:
                return None
            return body if status == 200 else None

        bodies = await asyncio.gather(*(one(slot) for slot in self._slots))
        return dict(zip(self._slots, bodies, strict=True))

    async def story(self, upload_id: str) -> dict[str, Any] | None:
        """Return what some sibling tells of an upload, None where none of them knows it.

        Raises `Refusal("process_unavailable")` where one that may know it does not answer.
        """
        page, away = "/-/uploads/" + quote(upload_id, safe="").replace(".", "%2E"), False
        for slot in self._likeliest(upload_id):
            try:
                status, body = await self.ask(slot, page)
            except ProcessUnreachable:
                away = True
                continue
            if status == 200:
                told: dict[str, Any] = json.loads(body)
                return told
            away = away or status != 404
        if away:
            raise Refusal("process_unavailable", "the process that may know this is being started again")
        return None

    def _likeliest(self, upload_id: str) -> Iterator[int]:
        """The slot in the id first; then the others, for the slot may have been taken over."""
        said = upload_id.rpartition("-")[2]
        return iter(sorted(self._slots, key=lambda slot: str(slot) != said))
