"""`gateway events` with NATS: the journal and the streams are seen and steered as one."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from tests.conftest import StartGateway
from tests.support.harness import complete_lines, put, wait_until, write_plugin
from tests.support.nats.servers import Server

PICKY = """\
name: picky
event: APIGW.OnFileUploaded
retry: {{attempts: 1}}
script: |
  import os
  async def picky(event, handle):
      if not os.path.exists({fixed!r}):
          raise ValueError("not yet")
      with open({log!r}, "a") as log:
          log.write(event["path"] + "\\n")
"""


async def events(*words: str) -> Any:
    """Run the real command line."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "events", *words,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_what_died_in_nats_is_listed_retried_and_replayed(
    start_gateway: StartGateway, server: Server, tmp_path: Path
) -> None:
    log, fixed = tmp_path / "log", tmp_path / "fixed"
    folder = write_plugin(tmp_path / "plugins", PICKY.format(log=str(log), fixed=str(fixed)))
    await put(await start_gateway(events=server.url, plugins=[str(folder)]), "/upload/a")
    where = ["--directory", str(tmp_path / "data")]
    dead: list[dict[str, Any]] = []
    while not dead:
        dead = json.loads(await events("list", "--state", "dead", "--json", *where))
    assert [(row["handler"], row["path"], row["attempt"]) for row in dead] == [("picky", "/upload/a", 1)]
    assert "not yet" in dead[0]["error"]
    fixed.touch()
    await events("retry", "--dead", *where)
    await wait_until(lambda: complete_lines(log) == ["/upload/a"])
    await events("replay", "--since", "1h", *where)
    await wait_until(lambda: complete_lines(log) == ["/upload/a"] * 2)
