"""HTTP clients of the other processes of this gateway, through their owners' Unix sockets.

A process is queried for its own part (`scope=slot`), so requests never go in circles. A process that
is being restarted is unreachable, which is not the same as having no such upload.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote

import aiohttp
from yarl import URL

from gateway.auth.request import IncomingRequest
from gateway.errors import Refusal
from gateway.storage.local.state_dir import StateDirectory

PROCESS_TIMEOUT: Final = 5.0
"""Seconds that a request to another process may take."""

OWN_SCOPE: Final = {"scope": "slot"}


def this_process_only(incoming: IncomingRequest) -> bool:
    """Tell whether a request, such as that of another process, asks for the part of this one."""
    return incoming.params.get("scope") == ["slot"]


class ProcessUnreachable(Exception):
    """The process does not respond now."""


class ProcessClients:
    """The processes of `slots`, and `sessions` with them by slot. Lives on the server's loop.

    `unresponsive` returns the slots of those that hang, as the supervisor sees it.
    """

    def __init__(
        self,
        folder: Path,
        slots: Iterable[int] = (),
        unresponsive: Callable[[], Collection[int]] = frozenset[int],
    ) -> None:
        self._folder = folder
        self._slots = tuple(slots)
        self.unresponsive = unresponsive
        self._fd = -1
        self.sessions: dict[int, aiohttp.ClientSession] = {}

    def start(self) -> None:
        """Open the sessions; nothing is sent yet. Call on the loop."""
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
            timeout = aiohttp.ClientTimeout(total=PROCESS_TIMEOUT)
            self.sessions[slot] = aiohttp.ClientSession(connector=connector, timeout=timeout)

    async def close(self) -> None:
        """Close the sessions."""
        sessions, self.sessions = self.sessions, {}
        await asyncio.gather(*(session.close() for session in sessions.values()))
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    async def get(self, slot: int, path: str) -> tuple[int, bytes]:
        """Return status and body of a GET; `path` is percent-encoded. Raises `ProcessUnreachable`."""
        if slot in self.unresponsive():
            raise ProcessUnreachable(f"process {slot} hangs")
        url = URL(f"http://process{path}", encoded=True).update_query(OWN_SCOPE)
        try:
            async with self.sessions[slot].get(url) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError, KeyError) as error:
            raise ProcessUnreachable(f"process {slot} does not respond: {error}") from error

    async def post(self, slot: int, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        """Return status and JSON of a POST of JSON; `path` is percent-encoded.

        Raises `ProcessUnreachable`.
        """
        if slot in self.unresponsive():
            raise ProcessUnreachable(f"process {slot} hangs")
        url = URL(f"http://process{path}", encoded=True).update_query(OWN_SCOPE)
        try:
            async with self.sessions[slot].post(url, json=body) as response:
                return response.status, await response.json()
        except (aiohttp.ClientError, TimeoutError, OSError, KeyError, ValueError) as error:
            raise ProcessUnreachable(f"process {slot} does not respond: {error}") from error

    async def get_all(self, path: str) -> dict[int, bytes | None]:
        """Return the body that each process responds with, None without a 200."""

        async def body_of(slot: int) -> bytes | None:
            try:
                status, body = await self.get(slot, path)
            except ProcessUnreachable:
                return None
            return body if status == 200 else None

        bodies = await asyncio.gather(*(body_of(slot) for slot in self._slots))
        return dict(zip(self._slots, bodies, strict=True))

    async def post_all(
        self,
        path: str,
        body: Any,
        timeout: float = PROCESS_TIMEOUT,  # noqa: ASYNC109
    ) -> dict[int, Any]:
        """Return what each process responds to a POST of JSON, None without a 200."""
        limit = aiohttp.ClientTimeout(total=timeout)

        async def answer_of(slot: int) -> Any:
            if slot in self.unresponsive() or slot not in self.sessions:
                return None
            url = URL(f"http://process{path}", encoded=True)
            try:
                async with self.sessions[slot].post(url, json=body, timeout=limit) as response:
                    return await response.json() if response.status == 200 else None
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
                return None

        answers = await asyncio.gather(*(answer_of(slot) for slot in self._slots))
        return dict(zip(self._slots, answers, strict=True))

    async def release_partial(
        self, upload_id: str, offset: int | None
    ) -> Literal["none", "ended", "kept"]:
        """Let the process that has a partial upload open let go of it; tell what became of its request.

        It is kept where a newer one appends at another `offset` than was told. A process that hangs, or
        is being restarted, has none that would let go.
        """
        query = {} if offset is None else {"offset": str(offset)}
        path = f"/-/uploads/{quote(upload_id, safe='')}/give-up"
        answers = await asyncio.gather(*(self._release(slot, path, query) for slot in self._slots))
        return next((answer for answer in answers if answer != "none"), "none")

    async def _release(
        self, slot: int, path: str, query: Mapping[str, str]
    ) -> Literal["none", "ended", "kept"]:
        if slot in self.unresponsive() or slot not in self.sessions:
            return "none"
        url = URL(f"http://process{path}", encoded=True).update_query(query)
        try:
            async with self.sessions[slot].post(url) as response:
                released = (await response.json())["released"] if response.status == 200 else "none"
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError):
            return "none"
        if released == "ended":
            return "ended"
        return "kept" if released == "kept" else "none"

    async def upload_status(self, upload_id: str) -> dict[str, Any] | None:
        """Return the status of an upload of another process, None if no process has it.

        Raises `Refusal("process_unavailable")` if a process that may have it does not respond.
        """
        path = "/-/uploads/" + quote(upload_id, safe="").replace(".", "%2E")
        unreachable, own = False, upload_id.rpartition("-")[2]
        # The slot in the id first; then the others, as the slot may have been taken over.
        for slot in sorted(self._slots, key=lambda slot: str(slot) != own):
            try:
                status, body = await self.get(slot, path)
            except ProcessUnreachable:
                unreachable = True
                continue
            if status == 200:
                upload: dict[str, Any] = json.loads(body)
                return upload
            unreachable = unreachable or status != 404
        if unreachable:
            raise Refusal(
                "process_unavailable", "the process that may know this upload does not respond now"
            )
        return None
