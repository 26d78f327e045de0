"""`gateway events` where events go through NATS: what is there is seen and steered as well."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from gateway.cli import main
from tests.conftest import StartGateway, StartProcess
from tests.support.harness import TIMEOUT, get, put, write_plugin
from tests.support.nats.servers import single

PICKY = """
name: picky
event: APIGW.OnFileUploaded
retry: {attempts: 1}
script: |
  import os

  async def picky(event, handle):
      if not os.path.exists("THERE"):
          raise ConnectionError("away")
"""


async def test_the_running_server_answers_for_its_nats_without_its_flags(
    start_gateway: StartGateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_plugin(tmp_path / "p", PICKY.replace("THERE", str(tmp_path / "there")))
    with single(tmp_path / "nats") as server:
        gateway = await start_gateway(plugins=[str(folder)], events=server.url, events_prefix="three")

        async def events(*words: str) -> str:
            where = ("--directory", str(tmp_path / "data"))
            capsys.readouterr()
            assert await asyncio.to_thread(main, ["events", *words, *where]) == 0
            return capsys.readouterr().out

        async def waited_for(state: str) -> str:
            async with asyncio.timeout(TIMEOUT):
                while (rows := json.loads(await events("list", "--state", state, "--json"))) == []:
                    pass  # each look takes some hundred milliseconds
            assert len(rows) == 1
            return str(rows[0]["event_id"])

        assert (await put(gateway, "/upload/x")).status == 201
        event = await waited_for("dead")
        shown = await events("show", event)
        assert "ConnectionError: away" in shown
        answer = await get(gateway, "/-/events/errors")
        [group] = answer.json["groups"]
        assert (group["error"], group["event_id"]) == ("ConnectionError: away", event)
        (tmp_path / "there").touch()
        error = ("--error", "ConnectionError: away")
        assert await events("retry", "--dead", *error) == "retried 1 delivery\n"
        assert await waited_for("done") == event
        assert await events("replay", "--since", "1h") == "replayed 1 delivery\n"
        await events("pause", "--handler", "picky")
        lines = (await events("list")).splitlines()
        assert (lines[0], lines[-1]) == (f"queue: {server.url} (prefix three)", "paused: picky")


async def test_without_a_server_it_says_that_nats_was_not_asked(
    gateway_process: StartProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_plugin(tmp_path / "p", PICKY)
    with single(tmp_path / "nats") as server:
        flags = ("--plugins", str(folder), "--events", server.url, "--deliver", "workers")
        with gateway_process(*flags) as process:
            assert (await put(process, "/upload/x")).status == 201
            where = ("--directory", str(process.directory))
            relayed = ["events", "list", "--state", "relayed", "--json", *where]
            rows: list[dict[str, str]] = []
            async with asyncio.timeout(TIMEOUT):
                while not rows:
                    assert await asyncio.to_thread(main, relayed) == 0
                    rows = json.loads(capsys.readouterr().out)
            process.terminate()
    assert await asyncio.to_thread(main, ["events", "list", *where]) == 0
    told = capsys.readouterr()
    assert told.out == "queue: journal\nno deliveries\n"
    assert "NATS, which was not asked" in told.err
    assert await asyncio.to_thread(main, ["events", "show", rows[0]["event_id"], *where]) == 0
    assert "handler  picky: relayed, tries 0" in capsys.readouterr().out


async def test_a_nats_that_is_not_there_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.cli.events.sources.SERVER_TIMEOUT", 0.2)
    words = ["events", "list", "--directory", str(tmp_path), "--events", "nats://127.0.0.1:9"]
    assert await asyncio.to_thread(main, words) == 2
    assert "is unavailable" in capsys.readouterr().err
