"""Hooks with webhooks and their receiver, for the tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from gateway.plugins import KINDS, Plugins
from gateway.plugins.hooks import Hooks
from gateway.plugins.scripting.namespace import Services
from tests.support.cli import ask
from tests.support.webhook_receiver import SECRET, WebhookReceiver, running_receiver

__all__ = ["ask", "receiver", "start"]

StartHooks = Callable[..., Awaitable[Hooks]]


@pytest.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with running_receiver() as running:
        yield running


def webhook(receiver: WebhookReceiver, events: str, *, keys: str = "", more: str = "") -> str:
    """Return the YAML of a webhook named `notify`."""
    return (
        f"name: notify\n{more}webhook:\n  url: {receiver.url}\n  events: [{events}]\n"
        f"  secret: {SECRET}\n{keys}"
    )


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[StartHooks]:
    """Start hooks with these plugins, one file each."""
    running: list[tuple[Hooks, Plugins]] = []

    async def begin(*texts: str) -> Hooks:
        for number, text in enumerate(texts):
            (tmp_path / f"{number}.yaml").write_text(text)
        plugins = Plugins([tmp_path], Services(), KINDS)
        plugins.load()
        hooks = Hooks(plugins)
        running.append((hooks, plugins))
        await hooks.start()
        return hooks

    yield begin
    for hooks, plugins in running:
        await hooks.close(0)
        plugins.close()
