"""What a running handler tells of its progress, and where it can be read."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest

from gateway.plugins.scripting.decision import Handle
from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import TIMEOUT, get, handlers_done, put, write_plugin

HANDLER = """
name: slow
event: APIGW.OnFileUploaded
script: |
  import os

  async def slow(event, handle):
      await handle.progress(1, 4)
      handle.progress(3, 4)
      while not os.path.exists({gate!r}):
          await asyncio.sleep(0.01)
"""


async def told(gateway: Gateway, upload_id: str) -> dict[str, Any]:
    """Wait for the status page to tell of the latest progress."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            story = (await get(gateway, f"/-/uploads/{upload_id}")).json
            handler: dict[str, Any] = story["handlers"][0] if story["handlers"] else {}
            if handler.get("progress", {}).get("done") == 3:
                return handler
            await asyncio.sleep(0.01)  # the page is the only sign


async def test_the_latest_progress_is_shown_while_the_handler_runs_and_gone_behind_it(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    folder = write_plugin(tmp_path / "plugins", HANDLER.format(gate=str(gate)))
    gateway = await start_gateway(plugins=[str(folder)])
    upload_id = (await put(gateway, "/upload/a.bin")).json["upload_id"]
    running = await told(gateway, upload_id)
    assert running["state"] == "running"
    assert running["progress"] == {"done": 3, "total": 4}
    gate.touch()
    story = await handlers_done(gateway, upload_id)
    assert "progress" not in story["handlers"][0]
    assert gateway.resources.hooks.delivery_progress(running["event_id"], "slow") is None


@pytest.mark.parametrize("values", [(-1, 4), (1, math.nan), ("1", 4), (1, None), (1, math.inf)])
def test_progress_takes_numbers_only(values: tuple[Any, Any]) -> None:
    handle = Handle()
    with pytest.raises(ValueError, match="two numbers"):
        handle.progress(*values)
    assert handle.latest_progress is None
