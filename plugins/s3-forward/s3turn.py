"""Plugin s3-forward: one run at a time for an object, among all processes of this machine.

A run keeps the lock until it ends or its process dies, and a waiting run blocks no event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
import stat
import tempfile
from collections.abc import AsyncIterator, MutableMapping
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

POLL_SECONDS: Final = 0.05
"""Seconds between two attempts to get a lock of another process: an flock does not notify."""

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC

log = logging.getLogger("gateway.plugin.s3Forward")


@contextlib.asynccontextmanager
async def turn(state: MutableMapping[str, Any], thing: str) -> AsyncIterator[None]:
    """Hold the lock of `thing`, among all processes of this user with the same folder for temporary
    files. It ends with the process, however that ends.

    Runs of one loop wait in a queue, without polling. Raises `OSError` without such a folder,
    `PermissionError` if others can write to it.
    """
    async with _of_this_loop(state, thing):
        held = await _taken(thing)
        try:
            yield
        finally:
            held.close()


def _of_this_loop(state: MutableMapping[str, Any], thing: str) -> asyncio.Lock:
    """Return the lock of a thing in this loop. The state of the plugin outlives a reload."""
    locks: WeakValueDictionary[Any, asyncio.Lock] = state.setdefault("locks", WeakValueDictionary())
    return locks.setdefault((asyncio.get_running_loop(), thing), asyncio.Lock())


async def _taken(thing: str) -> contextlib.ExitStack:
    name = hashlib.sha256(thing.encode()).hexdigest()
    held = _take(name)
    if held is None:
        log.info("%s is locked by another process; waiting", thing)
    while held is None:
        await asyncio.sleep(POLL_SECONDS)
        held = _take(name)
    return held


def _take(name: str) -> contextlib.ExitStack | None:
    """Return what releases the lock, None while another process has it."""
    with contextlib.ExitStack() as opened:
        folder = _folder()
        opened.callback(os.close, folder)
        fd = os.open(name, _FILE, 0o600, dir_fd=folder)
        opened.callback(os.close, fd)
        # A lock on a file that its last owner has removed is worthless: another file has its name.
        if _locked(fd) and _has_name(fd, name, folder):
            opened.callback(_remove, fd, name, folder)  # called first, while the lock is held
            return opened.pop_all()
    return None


def _folder() -> int:
    """Return a descriptor of the lock folder, which only this user can write to."""
    path = Path(tempfile.gettempdir()) / f"upload-gateway-s3-forward-{os.geteuid()}"
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    fd = os.open(path, _FOLDER)
    found = os.fstat(fd)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        os.close(fd)
        raise PermissionError(f"{path} is open to other users: remove it")
    return fd


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _has_name(fd: int, name: str, folder: int) -> bool:
    try:
        named = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(fd))


def _remove(fd: int, name: str, folder: int) -> None:
    if _has_name(fd, name, folder):
        os.unlink(name, dir_fd=folder)
