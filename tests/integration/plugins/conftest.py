"""Hooks with webhooks and their receiver, for the tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.plugins import KINDS
from tests.support.cli import ask
from tests.support.plugin_hooks import StartHooks, running_hooks
from tests.support.webhook_receiver import SECRET, WebhookReceiver, running_receiver

__all__ = ["StartHooks", "ask", "receiver", "start"]


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
    async with running_hooks(tmp_path, KINDS) as begin:
        yield begin
