"""Takes the pictures of docs/how-to/monitor.md."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from playwright.async_api import expect

from gateway.auth.tokens import token_digest
from gateway.domain.model import RECEIVED, UPLOADED
from tests.conftest import StartGateway
from tests.integration.console.activity.visits import slow_upload, visiting
from tests.support.browser import TAKE_PICTURES
from tests.support.harness import put
from tests.support.recorders import write_handler

pytestmark = pytest.mark.slow

NAMES = ("photos/summer/beach.jpg", "photos/summer/lake.jpg", "reports/2026/october.pdf", "notes.txt")
TOP = {"x": 0, "y": 0, "width": 1280, "height": 860}


async def time_for_charts(seconds: float) -> None:
    """Wait until a chart has something to draw, where a picture of it is taken."""
    if TAKE_PICTURES:
        await asyncio.sleep(seconds)


async def test_the_pages_are_as_the_docs_show_them(start_gateway: StartGateway, tmp_path: Path) -> None:
    plugins = tmp_path / "plugins"
    index = 'if "lake" in event["path"]:\n    raise ValueError("the index does not answer")\n'
    write_handler(
        plugins, index, name="index", event=UPLOADED, more="retry: {attempts: 3, backoff: 0.1}\n"
    )
    review = 'if "reports" in event["path"]:\n    raise RuntimeError("to be reviewed")'
    more = "hold: true\nretry: {attempts: 1}\n"
    values = write_handler(plugins, review, name="review", event=RECEIVED, more=more)
    tokens = [f"{name}:{token_digest(f'secret-{name}')}" for name in ("alice", "bob")]
    gateway = await start_gateway(auth="token", tokens=tokens, plugins=values, listing="true")
    alice, bob = (f"Authorization: Bearer secret-{name}" for name in ("alice", "bob"))
    async with contextlib.AsyncExitStack() as stack:
        visit = await stack.enter_async_context(
            visiting(extra_http_headers={"Authorization": "Bearer secret-alice"})
        )
        for path, size, sender in (
            ("video/holiday.mp4", 9_000_000, bob),
            ("backup.tar", 40_000_000, alice),
        ):
            await stack.enter_async_context(slow_upload(gateway, f"/upload/{path}", size, sender))
        await visit.page.goto(f"{gateway.url}/-/uploads")
        for name in NAMES:
            answer = await put(gateway, f"/upload/{name}", name.encode() * 4000, alice)
            if "lake" in name:
                lake = answer.json["upload_id"]
            await time_for_charts(2)
        await expect(visit(".active-row")).to_have_count(2)
        await expect(visit("table.rows").last.locator("tbody tr")).to_have_count(6)
        await visit.take("activity", clip=TOP)
        await visit.page.goto(f"{gateway.url}/-/uploads/{lake}")
        await expect(visit(".step.bad")).to_be_visible()
        await visit.take("timeline", clip=TOP)
        await visit.page.goto(f"{gateway.url}/-/status")
        await expect(visit(".findings")).not_to_have_count(0)
        await time_for_charts(6)
        await visit.take("system", clip=TOP)
