"""Hooks with plugins for tests: what calls handlers, without a server."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from gateway.plugins import Plugins
from gateway.plugins.hooks import Hooks
from gateway.plugins.scripting.namespace import Services

StartHooks = Callable[..., Awaitable[Hooks]]


@contextlib.asynccontextmanager
async def running_hooks(files: Path, kinds: Sequence[Any]) -> AsyncIterator[StartHooks]:
    """Yield what starts hooks with plugins, one file `0.yaml`, `1.yaml` ... each."""
    running: list[tuple[Hooks, Plugins]] = []

    async def begin(*texts: str, folder: Path = files) -> Hooks:
        for number, text in enumerate(texts):
            (files / f"{number}.yaml").write_text(text)
        plugins = Plugins([folder], Services(), kinds)
        plugins.load()
        hooks = Hooks(plugins)
        running.append((hooks, plugins))
        await hooks.start()
        return hooks

    yield begin
    for hooks, plugins in running:
        await hooks.close(0)
        plugins.close()
