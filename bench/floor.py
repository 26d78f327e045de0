"""Bench of the minimum cost of a small upload: `python -m bench.floor [--plugins DIR]`.

Processor time of the server's loop for a PUT of 4 KiB, without sockets, and with a committer that
succeeds at once: authentication, authorization, path, ids, hooks, counts, log context, response. Beside
it the whole of a bare aiohttp handler, with written files. The work of the gateway's other threads
comes on top, and the interpreter runs one thread at a time: while the first figure is as large as the
second, one process of the gateway cannot be as fast as the bare handler.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from unittest import mock

import uvloop
from aiohttp import web

from bench.bare import in_the_loop
from gateway.commit.committer import Committer, Done
from gateway.commit.records import CommitRequest
from gateway.domain.model import Stored
from gateway.server.app import running_gateway
from gateway.server.resources import open_resources
from gateway.settings import load

CONNECTIONS = 64
ROUNDS = 60
BODY = b"x" * 4096

Connect = Callable[[], web.RequestHandler]


class _Nowhere(asyncio.Transport):
    """A connection without peer that counts the responses."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.answers = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.answers += bytes(data[:9]) == b"HTTP/1.1 "

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0


def at_once(_: Committer, request: CommitRequest, done: Done) -> None:
    """Report an upload as stored in the next turn of the loop, the earliest for a committer."""
    upload = request.upload
    stored = Stored(upload.id, upload.path, request.body.size, request.mime, False, {})
    asyncio.get_running_loop().call_soon(done, stored)


async def measure(connect: Connect) -> list[float]:
    """Return seconds of processor time for each request, round by round."""
    clients = []
    for number in range(CONNECTIONS):
        protocol, transport = connect(), _Nowhere()
        protocol.connection_made(transport)
        fields = f"Host: localhost\r\nContent-Length: {len(BODY)}\r\n\r\n"
        request = f"PUT /upload/a-{number} HTTP/1.1\r\n{fields}".encode() + BODY
        clients.append((protocol, transport, request))
    spent = []
    gc.freeze()  # as the gateway does once it serves
    for answers in range(1, ROUNDS + 1):
        began = time.thread_time()
        for protocol, _, request in clients:
            protocol.data_received(request)
        while any(transport.answers < answers for _, transport, _ in clients):
            await asyncio.sleep(0)
        spent.append((time.thread_time() - began) / CONNECTIONS)
    gc.unfreeze()
    return spent


@contextlib.asynccontextmanager
async def gateway(folder: Path, plugins: Sequence[str]) -> AsyncIterator[Connect]:
    """Start the gateway, with a committer that does nothing."""
    given = {"directory": str(folder), "port": "0", "durability": "none", "plugins": list(plugins)}
    with mock.patch.object(Committer, "submit", at_once):
        resources = await asyncio.to_thread(open_resources, load(given, {}))
        async with running_gateway(resources) as running:
            server = running.servers[0].server
            assert server is not None
            yield server


@contextlib.asynccontextmanager
async def bare(folder: Path) -> AsyncIterator[Connect]:
    """Start the bare handler."""
    app = web.Application()
    app.router.add_put("/upload/{name:.+}", in_the_loop(folder))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        assert runner.server is not None
        yield runner.server
    finally:
        await runner.cleanup()


async def play(folder: Path, plugins: Sequence[str]) -> None:
    """Measure both and print it."""
    (folder / "gateway").mkdir()
    (folder / "bare").mkdir()
    entrants = {
        "the gateway's loop alone": gateway(folder / "gateway", plugins),
        "all of a bare aiohttp handler": bare(folder / "bare"),
    }
    for name, entrant in entrants.items():
        async with entrant as connect:
            spent = sorted(second * 1e6 for second in await measure(connect))
        print(f"{name:<30} {spent[0]:5.1f} us at the least, {spent[len(spent) // 2]:5.1f} median")


def main() -> None:
    """Run in memory, if there is such a folder."""
    parser = argparse.ArgumentParser("bench.floor", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--plugins", action="append", default=[], metavar="DIR")
    args = parser.parse_args()
    logging.getLogger().setLevel(logging.WARNING)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        uvloop.run(play(Path(folder), args.plugins))


if __name__ == "__main__":
    main()
