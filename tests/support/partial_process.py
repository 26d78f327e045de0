"""One client's requests to a store of partial uploads, in a process that kills itself:

`python -m tests.support.partial_process DIRECTORY PLUGINS DURABILITY POINT[:N] SIZE CHECKED`.

The process creates a partial upload of SIZE bytes, appends the body in four requests, and commits it.
Where CHECKED is `checked`, the third one is to be verified first, and the file replaces no other. It
prints what a client is told, a line each: the id, each offset, and `stored`. POINT is as in
`failpoint_gateway`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from gateway.server.app import running_gateway
from gateway.server.resources import open_resources
from gateway.settings import load
from tests.support.failpoint_gateway import kill_at
from tests.support.partials import partial_head
from tests.support.promise import body_of

TAG = "partial"
REQUESTS = 4


def tell(text: object) -> None:
    """Tell the client: what is printed has left the process."""
    print(text, flush=True)


async def upload(directory: str, plugins: str, durability: str, size: int, *, checked: bool) -> None:
    """Run the requests."""
    given = {"directory": directory, "port": "0", "plugins": [plugins], "durability": durability}
    resources = await asyncio.to_thread(open_resources, load(given, {}))
    async with running_gateway(resources) as gateway:
        store = gateway.resources.parts.partials
        assert store is not None
        policy = "reject" if checked else "replace"  # a name that is given by a link, or by a rename
        head = partial_head(
            length=size, path="/upload/x", headers={"X-Tag": TAG}, identity=TAG, on_conflict=policy
        )
        opened = await store.create(head)
        upload_id, body, step = head.upload.id, body_of(TAG, size), -(-size // REQUESTS)
        tell(upload_id)
        for start in range(0, size, step):
            piece = body[start : start + step]
            await opened.begin(len(piece), all_or_nothing=checked and start == 2 * step)
            for first in range(0, len(piece), 1 << 20):
                await opened.write(piece[first : first + (1 << 20)])
            tell(await opened.settle())
            await opened.close()
            opened = await store.open(upload_id)
        await opened.commit({})
        tell("stored")


if __name__ == "__main__":
    folder, plugin_folder, durable, wish, total, check = sys.argv[1:]
    name, _, count = wish.partition(":")
    kill_at(name, int(count or 1))
    Path(folder).mkdir(parents=True, exist_ok=True)
    asyncio.run(upload(folder, plugin_folder, durable, int(total), checked=check == "checked"))
