"""The running server of a directory, asked over its owner's Unix socket by verbs of the command line."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import aiohttp

from gateway.errors import ConfigError
from gateway.events.remote_ledger import OWNER_URL, REQUEST_TIMEOUT, RemoteLedger, socket_session
from gateway.settings import Settings
from gateway.storage.local.state_dir import LockHeldError, StateDirectory, existing_slots

SERVER_TIMEOUT: Final = 10.0
"""Seconds for a server that owns a slot to finish its start or stop, and to answer."""

PROBE_TIMEOUT: Final = 3.0
"""Seconds for one process of a running server to answer; then the next one is asked."""

_RETRY_INTERVAL: Final = 0.05


class OwnerClient:
    """A session with a process of the running server."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    def ledger(self) -> RemoteLedger:
        """Return the deliveries of the server."""
        return RemoteLedger(self._session)

    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        timeout: float = REQUEST_TIMEOUT,  # noqa: ASYNC109
    ) -> Any:
        """Return the JSON of a 2xx, None of a 204. Raises `AnswerError`, `ConfigError` without one.

        A `body` is sent as JSON.
        """
        try:
            async with self._session.request(
                method,
                f"{OWNER_URL}{path}",
                params=query,
                headers=headers,
                json=body,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout),
            ) as response:
                if response.status == 204:
                    return None
                answer = await response.json(content_type=None)
                if response.status >= 300:
                    raise AnswerError(str(answer.get("error")), str(answer.get("message")))
                return answer
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise ConfigError(f"the server does not answer as it should ({reason})") from error


class AnswerError(Exception):
    """The server refused: a code of the table of errors, and a message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@asynccontextmanager
async def needed_server(settings: Settings) -> AsyncIterator[OwnerClient]:
    """Connect as `running_server` does. Raises `ConfigError` where none runs, too."""
    async with running_server(settings) as server:
        if server is None:
            raise ConfigError(
                f"no server runs for {settings.directory}: start one, or name its --directory"
            )
        yield server


@asynccontextmanager
async def running_server(settings: Settings) -> AsyncIterator[OwnerClient | None]:
    """Connect to the running server of a directory; None where none runs.

    Waits while a server starts or stops. Raises `ConfigError` where one runs and does not answer.
    """
    deadline = time.monotonic() + SERVER_TIMEOUT
    slots = [StateDirectory(settings.state, slot) for slot in existing_slots(settings.state)]
    while held := [slot for slot in slots if _is_held(slot)]:
        for slot in held:
            async with AsyncExitStack() as stack:
                try:
                    session = await _connect(slot, stack)
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    if time.monotonic() > deadline:
                        raise ConfigError(
                            f"the server that owns the directory does not answer ({error}); is it"
                            " starting or stopping?",
                            str(slot.socket),
                        ) from error
                else:
                    yield OwnerClient(session)
                    return
        await asyncio.sleep(_RETRY_INTERVAL)
    yield None


@asynccontextmanager
async def answering_server(settings: Settings) -> AsyncIterator[OwnerClient]:
    """Connect to a process that answers now: it waits for none, and takes no lock.

    Raises `ConfigError` where none answers.
    """
    reason = "none runs"
    for number in existing_slots(settings.state):
        async with AsyncExitStack() as stack:
            try:
                session = await _connect(StateDirectory(settings.state, number), stack)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                reason = str(error) or type(error).__name__
            else:
                yield OwnerClient(session)
                return
    raise ConfigError(f"no server answers for {settings.directory} ({reason})")


async def _connect(slot: StateDirectory, stack: AsyncExitStack) -> aiohttp.ClientSession:
    path = stack.enter_context(slot.short_socket_path())
    session = await stack.enter_async_context(socket_session(path))
    async with asyncio.timeout(PROBE_TIMEOUT), session.get(f"{OWNER_URL}/-/health") as response:
        response.raise_for_status()
    return session


def _is_held(slot: StateDirectory) -> bool:
    slot.prepare()
    try:
        slot.lock.acquire()
    except LockHeldError:
        return True
    slot.lock.release()
    return False


def run_printing(work: Awaitable[int]) -> int:
    """Run a verb that prints; return its exit code. A reader that closes its pipe is no error."""

    async def run() -> int:
        return await work

    try:
        code = asyncio.run(run())
        sys.stdout.flush()
    except AnswerError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader (`head`, a pager) has closed the pipe. Buffered output must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code
