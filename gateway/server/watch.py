"""`gateway serve --watch`: checks plugins when their files change, and reloads them if they pass.

The files are read once a second: their sizes and times. That needs no library, and works on every file
system. The check is `gateway check` in a process of its own, with the flags of the server: what tests do
cannot touch the server. Its lines go to the terminal.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.endpoints.admin.reload import ReloadOutcome
from gateway.settings import Settings
from gateway.telemetry.logs import event

log = logging.getLogger("gateway.watch")

WATCH_INTERVAL: Final = 1.0
"""Seconds between two readings. A change counts when the next reading finds no other."""

MAX_WATCHED_FILES: Final = 10_000
"""Files that are watched at most."""

_SETTINGS_FILES: Final = ("config", "tls_cert", "tls_key", "tls_client_ca", "secrets_key_file")
"""The settings whose files a reload reads again."""

Version = tuple[int, int, int]
"""Inode, size and mtime in nanoseconds of a file."""


@dataclass(frozen=True, slots=True)
class Watcher:
    """Watches the files of `settings`. `check` is the command of the check, `reload` comes after it."""

    settings: Settings
    check: Sequence[str]
    reload: Callable[[], Awaitable[ReloadOutcome]]

    async def run(self) -> None:
        """Check at once, then after each change, until it is cancelled."""
        seen = await self._settled({})
        await self._passes()
        while True:
            await asyncio.sleep(WATCH_INTERVAL)
            latest = await asyncio.to_thread(self._versions)
            if latest == seen:
                continue
            before, seen = seen, await self._settled(latest)
            if await self._passes():
                await self.reload()
                self._note_settings(before, seen)

    def _note_settings(self, before: Mapping[Path, Version], now: Mapping[Path, Version]) -> None:
        """Say what a reload does not take over from a settings file that has changed."""
        config = self.settings.config
        if config is not None and before.get(config) != now.get(config):
            log.warning(
                "%s has changed: its tokens are in force, its other settings after a restart",
                config,
                extra=event("settings.changed"),
            )

    async def _settled(self, versions: Mapping[Path, Version]) -> Mapping[Path, Version]:
        """Return the versions of the files once nobody writes to them any more."""
        while (latest := await asyncio.to_thread(self._versions)) != versions:
            versions = latest
            await asyncio.sleep(WATCH_INTERVAL)
        return latest

    def _versions(self) -> Mapping[Path, Version]:
        settings = self.settings
        files = (getattr(settings, name) for name in _SETTINGS_FILES)
        paths = itertools.chain((path for path in files if path is not None), _below(settings.plugins))
        return dict(_described(itertools.islice(paths, MAX_WATCHED_FILES)))

    async def _passes(self) -> bool:
        """Run the check; tell whether it found no fault."""
        try:
            process = await asyncio.create_subprocess_exec(*self.check, stdin=asyncio.subprocess.DEVNULL)
        except OSError as error:
            log.error("the check cannot be run: %s", error, extra=event("check.failed"))
            return False
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if code:
            log.warning(
                "the check failed: the plugins in force stay", extra=event("plugins.rejected", code=code)
            )
        return code == 0


def check_command(flags: Sequence[str]) -> list[str]:
    """Return the command of the check for a server with these flags."""
    return [sys.executable, "-m", "gateway", "check", *(flag for flag in flags if flag != "--watch")]


def _below(folders: Iterable[Path]) -> Iterator[Path]:
    """Yield the files in folders, without hidden ones and those of Python's cache."""
    for folder in folders:
        for parent, subfolders, names in os.walk(folder):
            subfolders[:] = [name for name in subfolders if name[0] != "." and name != "__pycache__"]
            yield from (Path(parent, name) for name in names if name[0] != "." and name[-1] != "~")


def _described(paths: Iterable[Path]) -> Iterator[tuple[Path, Version]]:
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue  # it has gone meanwhile
        yield path, (status.st_ino, status.st_size, status.st_mtime_ns)
