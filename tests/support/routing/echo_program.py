"""A WebSocket echo server in a process of its own: `python -m tests.support.routing.echo_program`.

It prints its host and port.
"""

from __future__ import annotations

import asyncio

from tests.support.routing.websocket import socket_server


async def main() -> None:
    """Serve until the process is killed."""
    async with socket_server() as authority:
        print(authority, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
