"""Held uploads beside NATS: their decisions stay in the gateway that has the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import StartGateway
from tests.integration.admin.test_events import post
from tests.support.harness import complete_lines, files_below, get, put, wait_until, write_plugin
from tests.support.nats.servers import Server

JUDGE = """\
name: judge
event: APIGW.OnFileReceived
hold: true
script: |
  async def judge(event, handle):
      async with files.open(event) as reader:
          body = await reader.read()
      handle.result({"bytes": len(body)})
      if "refused" in event["path"]:
          await handle.terminate(code=422, output="not wanted")
"""

AFTER = """\
name: after
event: APIGW.OnFileUploaded
script: |
  async def after(event, handle):
      with open({log!r}, "a") as log:
          log.write(event["path"] + "\\n")
"""


@pytest.mark.parametrize("deliver", ["here", "workers"])
async def test_decisions_need_neither_nats_nor_a_worker(
    start_gateway: StartGateway, server: Server, tmp_path: Path, deliver: str
) -> None:
    log, data = tmp_path / "log", tmp_path / "data"
    folder = write_plugin(tmp_path / "plugins", JUDGE, "judge.yaml")
    write_plugin(folder, AFTER.format(log=str(log)), "after.yaml")
    gateway = await start_gateway(events=server.url, plugins=[str(folder)], deliver=deliver)

    async def engine_is_ready() -> bool:
        return "gateway_engine_ready 1.0" in (await get(gateway, "/-/metrics")).body.decode()

    await wait_until(engine_is_ready)
    assert (await post(gateway, "pause", {"handler": "judge"})).status == 200
    assert (await get(gateway, "/-/events/paused")).json == {"paused": ["judge"]}
    server.kill()
    names = ("a", "refused", "b")
    told = [(await put(gateway, f"/upload/{name}", b"body")) for name in names]
    assert {answer.status for answer in told} == {202}
    ids = {name: answer.json["upload_id"] for name, answer in zip(names, told, strict=True)}
    assert files_below(data / "upload") == {}

    assert (await post(gateway, "resume", {"handler": "judge"})).status == 200

    async def states() -> set[str]:
        stories = [await get(gateway, f"/-/uploads/{upload_id}") for upload_id in ids.values()]
        return {story.json["state"] for story in stories}

    await wait_until(lambda: len(files_below(data / "upload")) == 2)

    async def is_settled() -> bool:
        return await states() == {"stored", "rejected"}

    await wait_until(is_settled)
    assert files_below(data / "upload") == {"a": b"body", "b": b"body"}
    story = (await get(gateway, f"/-/uploads/{ids['refused']}")).json
    assert (story["state"], story["result"]) == ("rejected", {"bytes": 4})
    assert complete_lines(log) == []
    server.start()
    await wait_until(engine_is_ready)
    if deliver == "here":
        await wait_until(lambda: sorted(complete_lines(log)) == ["/upload/a", "/upload/b"])
    listed = (await get(gateway, "/-/events?handler=judge")).json["deliveries"]
    assert [(row["handler"], row["state"]) for row in listed] == [("judge", "done")] * 3
