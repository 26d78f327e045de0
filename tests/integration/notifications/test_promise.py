"""kill -9 at the points of an upload's life: its object event is as safe as the upload itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import pytest

from tests.conftest import StartProcess
from tests.integration.notifications.test_notifications import HANDLER, seen
from tests.support.harness import files_below, put, wait_settled, write_plugin

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("point", "told"),
    [
        ("before journal commit", False),
        ("after journal commit", False),
        ("after rename", True),
        ("before answer", True),
        ("after answer", True),
        ("mid handler", True),
    ],
)
async def test_handlers_are_told_of_exactly_what_is_stored(
    gateway_process: StartProcess, tmp_path: Path, point: str, told: bool
) -> None:
    folder = write_plugin(tmp_path / "p", HANDLER.replace("FILE", str(tmp_path / "seen")))
    flags = ("--auth", "none", "--plugins", str(folder))
    dying = gateway_process(*flags, die_at=point)
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        await put(dying, "/upload/a.bin", b"hello", "X-Amz-Meta-Title: Sunset")
    assert dying.wait() == -9
    with gateway_process(*flags) as gateway:
        await wait_settled(gateway)
        stored = "upload/a.bin" in files_below(gateway.directory)
    assert stored is told
    # Once, or twice where the process died between the handler's work and its note of that.
    events = seen(tmp_path)
    assert bool(events) is told, json.dumps(events)
    for event in events:
        assert (event["key"], event["metadata"]) == ("upload/a.bin", {"title": "Sunset"})
