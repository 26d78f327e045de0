"""`gateway events` with very many deliveries: complete, in pieces, and nobody is held up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.events.journal import Journal
from gateway.storage.local.state_dir import StateDirectory
from tests.conftest import StartProcess
from tests.support.harness import GatewayProcess, get, put, write_plugin
from tests.support.records import result_of, upload_record

pytestmark = pytest.mark.slow

HANDLER = """
name: h
event: APIGW.OnFileUploaded
script: |
  async def h(event, handle):
      pass
"""


def fill(directory: Path, count: int) -> None:
    """Leave `count` dead deliveries of `h`, which is paused, as a server that has ended left them."""
    state = StateDirectory(directory / ".gateway")
    state.prepare()
    journal = Journal(state.journal, full=False)
    journal.open()
    for begin in range(0, count, 5000):
        names = [f"u{number:06}" for number in range(begin, min(begin + 5000, count))]
        result_of(journal.outbox.record_uploads([upload_record(name) for name in names]))
    change = "UPDATE deliveries SET state = 'dead', attempt = 8, error = 'why'"
    result_of(journal._database.submit(lambda db: db.execute(change).rowcount))
    pause = "INSERT INTO paused VALUES ('h', 0)"
    result_of(journal._database.submit(lambda db: db.execute(pause).rowcount))
    journal.close()


def depth(directory: Path) -> dict[str, int]:
    """Count the deliveries by state in a journal that nobody owns."""
    journal = Journal(StateDirectory(directory / ".gateway").journal)
    journal.open()
    count = "SELECT state, count(*) FROM deliveries GROUP BY state"
    told = result_of(journal._database.submit(lambda db: db.execute(count).fetchall()))
    journal.close()
    return dict(told)


async def events(directory: Path, *words: str) -> int:
    return await asyncio.to_thread(main, ["events", *words, "--directory", str(directory)])


async def every_page(gateway: GatewayProcess, query: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    after = ""
    while True:
        page = (await get(gateway, f"/-/events?{query}&limit=1000{after}")).json
        rows += page["deliveries"]
        if page["next"] is None:
            return rows
        after = f"&after={page['next']}"


@pytest.fixture
def served(tmp_path: Path, gateway_process: StartProcess) -> Callable[[], GatewayProcess]:
    """Start a gateway that has the handler."""
    folder = write_plugin(tmp_path / "plugins", HANDLER)
    return lambda: gateway_process("--plugins", str(folder))


async def test_a_hundred_thousand_dead_are_listed_and_retried_while_uploads_go_on(
    tmp_path: Path, served: Callable[[], GatewayProcess], capsys: pytest.CaptureFixture[str]
) -> None:
    directory, count = tmp_path / "data", 100_000
    fill(directory, count)
    gateway = served()
    listed = [row["upload_id"] for row in await every_page(gateway, "state=dead")]
    assert listed == [f"u{number:06}" for number in range(count)]

    capsys.readouterr()
    retry = asyncio.create_task(events(directory, "retry", "--dead"))
    stored = 0
    while not retry.done():
        assert (await put(gateway, f"/upload/{stored}")).status == 201
        stored += 1
    assert (await retry, capsys.readouterr().out) == (0, f"retried {count} deliveries\n")
    assert stored > 1
    ready = {row["upload_id"]: row for row in await every_page(gateway, "state=ready")}
    assert len(ready) == count + stored
    assert set(listed) <= ready.keys()
    assert {row["attempt"] for row in ready.values()} == {0}


async def test_a_server_that_starts_in_the_middle_of_a_retry_takes_over(
    tmp_path: Path, served: Callable[[], GatewayProcess], capsys: pytest.CaptureFixture[str]
) -> None:
    directory, count = tmp_path / "data", 30_000
    fill(directory, count)
    retry = asyncio.create_task(events(directory, "retry", "--dead", "--json"))
    gateway = await asyncio.to_thread(served)
    assert await retry == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"count": count}
    gateway.terminate()
    assert depth(directory) == {"ready": count}


async def test_a_list_and_a_server_that_starts_do_not_hinder_each_other(
    tmp_path: Path, served: Callable[[], GatewayProcess], capsys: pytest.CaptureFixture[str]
) -> None:
    directory, count = tmp_path / "data", 30_000
    fill(directory, count)
    listing = asyncio.create_task(events(directory, "list", "--json"))
    gateway = await asyncio.to_thread(served)
    assert await listing == 0
    assert len(json.loads(capsys.readouterr().out)) == count
    assert gateway.terminate() == 0
