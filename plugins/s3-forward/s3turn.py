"""Plugin s3-forward: one run at a time for an object, whichever process of this machine makes it.

One rule: who has the turn keeps it until he is done or dead, and whoever waits holds up nobody else
on his event loop.
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
"""How often a turn is asked for that another process has: an flock tells nobody when it ends."""

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC

log = logging.getLogger("gateway.plugin.s3Forward")


@contextlib.asynccontextmanager
async def turn(state: MutableMapping[str, Any], thing: str) -> AsyncIterator[None]:
    """Be the only one at `thing`, among all processes of this user that have this folder for
    temporary files. It ends with the process too, however that ends.

    Runs of one loop stand in line without asking again and again. Raises `OSError` where there is
    no such folder, `PermissionError` where others can write in ours.
    """
    async with _of_this_loop(state, thing):
        held = await _taken(thing)
        try:
            yield
        finally:
            held.close()


def _of_this_loop(state: MutableMapping[str, Any], thing: str) -> asyncio.Lock:
    """Return the lock of a thing. It lies in the plugin's state, which outlives a reload."""
    locks: WeakValueDictionary[Any, asyncio.Lock] = state.setdefault("locks", WeakValueDictionary())
    return locks.setdefault((asyncio.get_running_loop(), thing), asyncio.Lock())


async def _taken(thing: str) -> contextlib.ExitStack:
    name = hashlib.sha256(thing.encode()).hexdigest()
    held = _take(name)
    if held is None:
        log.info("%s is worked on by another process; waiting for its turn", thing)
    while held is None:
        await asyncio.sleep(POLL_SECONDS)
        held = _take(name)
    return held


def _take(name: str) -> contextlib.ExitStack | None:
    """Return what ends the turn, None while it is somebody else's."""
    with contextlib.ExitStack() as opened:
        folder = _folder()
        opened.callback(os.close, folder)
        fd = os.open(name, _FILE, 0o600, dir_fd=folder)
        opened.callback(os.close, fd)
        # A file that its last owner has removed meanwhile keeps nobody out: another has its name.
        if _locked(fd) and _has_name(fd, name, folder):
            opened.callback(_remove, fd, name, folder)  # called first, while nobody else may
            return opened.pop_all()
    return None


def _folder() -> int:
    """Return a descriptor of our folder, in which nobody but this user can write."""
    path = Path(tempfile.gettempdir()) / f"upload-gateway-s3-forward-{os.geteuid()}"
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    fd = os.open(path, _FOLDER)
    found = os.fstat(fd)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        os.close(fd)
        raise PermissionError(f"{path} is not this user's alone: remove it")
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
