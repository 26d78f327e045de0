"""A client that takes all it can get of a gateway, with every trick at once, from one address.

Each connection plays one trick again and again: it asks for something, reads the beginning of the
response, and holds what it got. A refused one tries again soon.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

ADDRESS: Final = "127.0.0.2"
"""Where the greedy client calls from: every address of 127.0.0.0/8 is this machine's."""

RETRY_SECONDS: Final = 0.25
TRICKLE_SECONDS: Final = 1.0
MIB: Final = 1 << 20

DEEP: Final = "/".join(["x"] * 16)
"""15 new folders in a new one, as many as one upload may make, and a file."""


@dataclass(frozen=True)
class Trick:
    """`request` is what connection `number` sends at first, in its round `turn`.

    With `trickle` a byte follows every second. A `repeated` request is sent again once it is answered.
    """

    request: Callable[[int, int], bytes]
    trickle: bool = False
    repeated: bool = False


def head(method: str, target: str, *lines: str) -> bytes:
    """Return the head of a request."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def tricks(declared: int) -> Mapping[str, Trick]:
    """Return all tricks; `declared` is the size that the trickling uploads declare."""
    json_body = ("Content-Type: application/json", f"Content-Length: {MIB}")
    flood = b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-Flood: " + b"f" * 15_000 + b"\r\n"
    return {
        "trickling uploads": Trick(
            lambda number, _: head("PUT", f"/upload/slow/{number}", f"Content-Length: {declared}"),
            trickle=True,
        ),
        "unread downloads": Trick(lambda *_: head("GET", "/upload/big")),
        "unread archives": Trick(lambda *_: head("GET", "/upload/?format=zip")),
        "silent connections": Trick(lambda *_: b""),
        "unfinished headers": Trick(lambda *_: flood, trickle=True),
        "notifications without a body": Trick(
            lambda *_: head("POST", "/-/notifications", "Content-Length: 100")
        ),
        "unfinished bodies": Trick(
            lambda *_: head("POST", "/checked", *json_body) + b" " * (MIB - 1000), trickle=True
        ),
        "requests to a silent upstream": Trick(lambda *_: head("GET", "/silent/x")),
        "unread responses of an upstream": Trick(lambda *_: head("GET", "/proxied/large")),
        "deep folders": Trick(
            lambda number, turn: head("PUT", f"/upload/{number}-{turn}/{DEEP}", "Content-Length: 0"),
            repeated=True,
        ),
        "unread small responses": Trick(lambda *_: head("GET", "/-/health") * 1000),
    }


class GreedyClient:
    """Plays tricks against a gateway until `close`; `statuses` counts what each of them got."""

    def __init__(self, address: tuple[str, int], source: str = ADDRESS) -> None:
        self.statuses: dict[str, Counter[str]] = {}
        self._address = address
        self._source = source
        self._tasks: list[asyncio.Task[None]] = []

    def play(self, name: str, trick: Trick, connections: int) -> None:
        """Begin to play a trick on so many connections."""
        self.statuses[name] = Counter()
        self._tasks += [
            asyncio.create_task(self._connection(name, trick, number)) for number in range(connections)
        ]

    async def close(self) -> None:
        """End all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connection(self, name: str, trick: Trick, number: int) -> None:
        turn = 0
        while True:
            with contextlib.suppress(OSError), socket.socket() as connection:
                # A small buffer: what is not read here is soon not taken there.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                connection.bind((self._source, 0))
                connection.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(connection, self._address)
                while True:
                    turn += 1
                    status = await self._round(connection, trick, trick.request(number, turn))
                    self.statuses[name][status] += 1
                    if not trick.repeated or not status.startswith("2"):
                        break
                if status.startswith("2"):
                    await asyncio.Event().wait()
            await asyncio.sleep(RETRY_SECONDS)

    async def _round(self, connection: socket.socket, trick: Trick, request: bytes) -> str:
        """Send a request; return the status of its response, or `closed`."""
        loop = asyncio.get_running_loop()
        sending = asyncio.ensure_future(loop.sock_sendall(connection, request))
        reading = asyncio.ensure_future(loop.sock_recv(connection, 1024))
        try:
            while not reading.done():
                await asyncio.wait({reading}, timeout=TRICKLE_SECONDS if trick.trickle else None)
                if trick.trickle and sending.done() and not reading.done():
                    await loop.sock_sendall(connection, b" ")
            first = reading.result()
        finally:
            for pending in (sending, reading):
                pending.cancel()
            await asyncio.gather(sending, reading, return_exceptions=True)
        return first.split(b" ")[1].decode() if first.startswith(b"HTTP/1.1 ") else "closed"
