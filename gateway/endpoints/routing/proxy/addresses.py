"""The addresses of upstreams: what a name means is remembered for a moment, and asked once.

Look-ups wait in a few threads that all share. Without this a burst of new connections to one name would
fill them with the same question, and delay those to other names.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from aiohappyeyeballs import AddrInfoType
from yarl import URL

ADDRESS_TTL: Final = 10.0
"""Seconds for which the addresses of a name are used."""

Resolve = Callable[[str, int], Awaitable[Sequence[AddrInfoType]]]


async def resolve(host: str, port: int) -> Sequence[AddrInfoType]:
    """Return the addresses of a name. Raises `OSError`."""
    loop = asyncio.get_running_loop()
    return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)


class UpstreamAddresses:
    """The addresses of all upstreams, by authority (`host:port`). On one loop."""

    def __init__(self, resolve: Resolve = resolve) -> None:
        self._resolve = resolve
        self._names: dict[str, asyncio.Task[deque[AddrInfoType]]] = {}

    async def find(self, upstream: str) -> Sequence[AddrInfoType]:
        """Return the addresses, each time another one first. Raises `OSError`."""
        host, port, literal = split_authority(upstream)
        if literal:
            return literal
        task = self._names.get(upstream)
        if task is None:
            task = self._names[upstream] = asyncio.create_task(self._ask(host, port))
            task.add_done_callback(functools.partial(self._keep, upstream))
        addresses = await asyncio.shield(task)  # others may wait for it, too
        ordered = tuple(addresses)
        addresses.rotate(-1)
        return ordered

    def forget(self, upstream: str) -> None:
        """Ask again for the next connection."""
        self._names.pop(upstream, None)

    async def _ask(self, host: str, port: int) -> deque[AddrInfoType]:
        return deque(await self._resolve(host, port))

    def _keep(self, upstream: str, task: asyncio.Task[deque[AddrInfoType]]) -> None:
        if task.cancelled() or task.exception() is not None:
            self.forget(upstream)
        else:
            asyncio.get_running_loop().call_later(ADDRESS_TTL, self.forget, upstream)


@functools.lru_cache(maxsize=1024)
def split_authority(upstream: str) -> tuple[str, int, Sequence[AddrInfoType]]:
    """Return host and port, and the address where the host is one: no lookup is needed."""
    url = URL(f"http://{upstream}")
    host, port = url.raw_host or "", url.port or 80
    try:
        literal = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        return host, port, ()
    return host, port, literal


def with_tls_port(upstream: str) -> str:
    """Return the authority with the port of HTTPS, if it names none."""
    url = URL(f"//{upstream}")
    return upstream if url.explicit_port else f"{upstream}:443"
