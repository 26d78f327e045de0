"""The yardstick: plain aiohttp handlers.

`python bare.py loop|aiofiles FOLDER PORT` serves `PUT` and `GET /upload/<name>` on 127.0.0.1. `loop`
opens, writes and renames in the event loop; `aiofiles` runs each chunk in a thread. A GET opens and
reads the file in the event loop. None of them syncs, checks the path nor starts handlers.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiofiles
import aiofiles.os
import uvloop
from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.Response]]


def in_the_loop(folder: Path) -> Handler:
    """Return the handler that does its file work in the event loop."""
    numbers = itertools.count()

    async def put(request: web.Request) -> web.Response:
        private = f"{folder}/.{next(numbers)}"
        with open(private, "wb") as file:
            async for chunk in request.content.iter_any():
                file.write(chunk)
        os.rename(private, f"{folder}/{request.match_info['name']}")
        return web.Response(status=201)

    return put


def with_aiofiles(folder: Path) -> Handler:
    """Return the handler that hands its file work to threads, chunk by chunk."""
    numbers = itertools.count()

    async def put(request: web.Request) -> web.Response:
        private = f"{folder}/.{next(numbers)}"
        async with aiofiles.open(private, "wb") as file:
            async for chunk in request.content.iter_any():
                await file.write(chunk)
        await aiofiles.os.rename(private, f"{folder}/{request.match_info['name']}")
        return web.Response(status=201)

    return put


def get_in_the_loop(folder: Path) -> Handler:
    """Return the handler that sends a file as one body."""

    async def get(request: web.Request) -> web.Response:
        with open(f"{folder}/{request.match_info['name']}", "rb") as file:
            return web.Response(body=file.read())

    return get


KINDS = {"loop": in_the_loop, "aiofiles": with_aiofiles}


async def serve(kind: str, folder: Path, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    app = web.Application()
    app.router.add_put("/upload/{name:.+}", KINDS[kind](folder))
    app.router.add_get("/upload/{name:.+}", get_in_the_loop(folder))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print(f"listening on http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
