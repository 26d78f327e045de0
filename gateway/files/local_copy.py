"""A stored file as an open local one: itself, or a temporary copy of what is stored elsewhere."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import AsyncIterable, AsyncIterator
from typing import IO

from gateway.files.versions import FileVersion
from gateway.storage.protocols import Storage
from gateway.storage.waiting import finish_in_thread


@contextlib.asynccontextmanager
async def closed_in_thread() -> AsyncIterator[contextlib.ExitStack]:
    """Yield a stack for open files. Closing one waits for a thread that still reads it."""
    stack = contextlib.ExitStack()
    try:
        yield stack
    finally:
        await finish_in_thread(stack.close)


async def open_local(
    storage: Storage, version: FileVersion, stack: contextlib.ExitStack
) -> io.BufferedReader:
    """Return a stored file, open for reading until `stack` is closed; fetch what is not local."""
    async with storage.open(version.path, etag=version.etag) as opened:
        version.check_upload(opened.stat)
        if opened.fd is not None:
            return stack.enter_context(os.fdopen(os.dup(opened.fd), "rb"))
        return await fetch(opened, stack)


async def fetch(pieces: AsyncIterable[bytes], stack: contextlib.ExitStack) -> io.BufferedReader:
    """Return a temporary copy of what is stored elsewhere, open until `stack` is closed."""
    fetched = await finish_in_thread(_temporary_file, stack)
    async for piece in pieces:
        await finish_in_thread(fetched.write, piece)
    await finish_in_thread(fetched.seek, 0)
    return stack.enter_context(os.fdopen(os.dup(fetched.fileno()), "rb"))


def _temporary_file(stack: contextlib.ExitStack) -> IO[bytes]:
    return stack.enter_context(tempfile.TemporaryFile())
