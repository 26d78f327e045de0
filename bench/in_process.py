"""A gateway in this process, and requests to it without sockets: what `layers` measures.

Small requests, some at once, are given to `data_received` of the server's connections, and the responses
counted. So no client and no kernel share the processors, and a figure is the least of many batches.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

from bench.bare import get_in_the_loop, in_the_loop
from gateway.server.app import running_gateway
from gateway.server.resources import open_resources
from gateway.settings import load

BODY: Final = b"x" * 4096
JSON_BODY: Final = b'{"text": "' + b"x" * 4084 + b'"}'

TASKS: Final = Path("/proc/self/task")

Connect = Callable[[], web.RequestHandler]


class Client:
    """Waits for the responses to one request on each of its connections."""

    def __init__(self) -> None:
        self._expected = 0
        self._all_answered: asyncio.Future[None] | None = None

    async def play(self, connections: Sequence[Connection], rounds: int) -> None:
        """Send all requests at once and await all responses, so many times."""
        for _ in range(rounds):
            self._expected = len(connections)
            self._all_answered = asyncio.get_running_loop().create_future()
            for connection in connections:
                connection.send()
            await self._all_answered

    def note(self, head: bytes) -> None:
        """Note a response, or that a connection was aborted."""
        self._expected -= 1
        waiter = self._all_answered
        if waiter is None or waiter.done():
            return
        if not head.startswith(b"HTTP/1.1 2"):
            waiter.set_exception(RuntimeError(f"not answered 2xx: {head!r}"))
        elif self._expected == 0:
            waiter.set_result(None)


class Connection(asyncio.Transport):
    """A connection without peer that counts the responses."""

    def __init__(self, client: Client, connect: Connect, request: bytes) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self._client = client
        self._request = request
        self._protocol = connect()
        self._protocol.connection_made(self)

    def send(self) -> None:
        """Let the request arrive at the server."""
        self._protocol.data_received(self._request)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        head = bytes(data[:300])
        if head.startswith(b"HTTP/1.1 "):
            self._client.note(head)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return False

    def is_reading(self) -> bool:
        return True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None:
        self._client.note(b"aborted")

    def get_write_buffer_size(self) -> int:
        return 0

    def end(self) -> None:
        """Disconnect."""
        self._protocol.connection_lost(None)


@dataclass(frozen=True)
class Load:
    """`at_once` requests at once, `rounds` times in a batch."""

    at_once: int
    rounds: int
    batches: int

    @property
    def requests(self) -> int:
        """The requests of a batch."""
        return self.at_once * self.rounds


def request(method: str, target: str, body: bytes = b"") -> bytes:
    """Return a whole request; `{}` in the target is a number of its own for each connection."""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    kind = "Content-Type: application/json\r\n" if method == "POST" else ""
    return f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n{kind}{length}\r\n".encode() + body


async def drive(
    connect: Connect,
    method: str,
    target: str,
    body: bytes,
    load: Load,
    begin: Callable[[], None] = lambda: None,
) -> AsyncIterator[dict[str, float]]:
    """Yield the processor seconds of each thread for a request, batch by batch.

    `begin` is called before each batch; a first one, which warms the server up, is not counted.
    Raises RuntimeError if a response is none of 2xx.
    """
    client = Client()
    connections = [
        Connection(client, connect, request(method, target.format(number), body))
        for number in range(load.at_once)
    ]
    await client.play(connections, load.rounds)  # warm
    gc.collect()
    gc.freeze()  # as the gateway does once it serves
    try:
        for _ in range(load.batches):
            begin()
            before = thread_seconds()
            await client.play(connections, load.rounds)
            await _settled()
            yield _spent(before, thread_seconds(), load.requests)
    finally:
        gc.unfreeze()
        for connection in connections:
            connection.end()


def _spent(
    before: Mapping[tuple[int, str], float], after: Mapping[tuple[int, str], float], requests: int
) -> dict[str, float]:
    spent: dict[str, float] = {}
    for (number, name), seconds in after.items():
        took = (seconds - before.get((number, name), 0.0)) / requests
        spent[name] = spent.get(name, 0.0) + took
    return spent


async def _settled() -> None:
    """Wait until the other threads have done what comes after the responses."""
    before: dict[tuple[int, str], float] = {}
    while True:
        now = {key: value for key, value in thread_seconds().items() if key[0] != os.getpid()}
        if sum(now.values()) - sum(before.values()) < 0.0002:
            return
        before = now
        await asyncio.sleep(0.02)


def thread_seconds() -> dict[tuple[int, str], float]:
    """Return the processor seconds of each thread of this process, by its number and name."""
    seconds = {}
    for task in TASKS.iterdir():
        with contextlib.suppress(OSError):
            name = (task / "comm").read_text().strip()
            spent = int((task / "schedstat").read_text().split()[0]) / 1e9
            if int(task.name) == os.getpid():
                name, spent = threading.main_thread().name, time.thread_time()
            seconds[(int(task.name), thread_label(name))] = spent
    return seconds


def thread_label(name: str) -> str:
    """Return the name of a thread, or of the pool that it belongs to, as the kernel cuts it."""
    return "loop" if name == threading.main_thread().name else name[:15].rstrip("_-0123456789")


@contextlib.asynccontextmanager
async def gateway(
    folder: Path, plugins: Sequence[Path] = (), settings: Mapping[str, object] | None = None
) -> AsyncIterator[Connect]:
    """Start the gateway in this process; yield what opens a connection to it."""
    given = {
        "directory": str(folder),
        "port": "0",
        "durability": "none",
        "downloads": True,
        "plugins": [str(path) for path in plugins],
        **(settings or {}),
    }
    resources = await asyncio.to_thread(open_resources, load(given, {}))
    async with running_gateway(resources) as running:
        server = running.servers[0].server
        assert server is not None
        yield server


@contextlib.asynccontextmanager
async def bare(folder: Path) -> AsyncIterator[Connect]:
    """Start the bare handlers."""
    folder.mkdir(parents=True, exist_ok=True)
    app = web.Application()
    app.router.add_put("/upload/{name:.+}", in_the_loop(folder))
    app.router.add_get("/upload/{name:.+}", get_in_the_loop(folder))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        assert runner.server is not None
        yield runner.server
    finally:
        await runner.cleanup()
