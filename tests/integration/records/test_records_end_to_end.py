"""Records as plugins and operators meet them: kept over SIGKILL, shared by processes, away, checked."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.errors import RecordsUnavailable
from gateway.records.collection import Records, open_records
from gateway.records.sqlite_store import SqliteStore
from gateway.settings import Settings
from gateway.storage.local.state_dir import existing_slots
from tests.conftest import StartGateway, StartProcess
from tests.support.harness import get, write_plugin
from tests.unit.records.test_settings import KEEPER

WRITER = """
import asyncio, sys
from pathlib import Path
from gateway.records.collection import Records
from gateway.records.sqlite_store import SqliteStore

async def main():
    kept = Records(SqliteStore(Path(sys.argv[1])))("a")
    async def write(name):
        for number in range(10**6):
            await kept.put(f"{name}-{number}", {"n": number})
            print(f"{name}-{number}", flush=True)
    await asyncio.gather(*(write(name) for name in sys.argv[2:]))

asyncio.run(main())
"""


# -- what a put returned from


@pytest.mark.slow
async def test_what_two_processes_put_before_sigkill_is_there(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    for turn in range(3):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(path), *(f"{turn}{name}{n}" for n in range(4))],
                stdout=subprocess.PIPE,
                text=True,
            )
            for name in "ab"
        ]
        said: list[str] = []
        for writer in writers:
            assert writer.stdout
            said += [writer.stdout.readline().strip() for _ in range(25)]
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            assert writer.stdout
            said += [line.strip() for line in writer.stdout if line.endswith("\n")]
            writer.wait()
            writer.stdout.close()
        assert len(said) >= 50
        store = SqliteStore(path)
        kept = Records(store)("a")
        found = await asyncio.gather(*(kept.get(key) for key in said))
        assert [key for key, item in zip(said, found, strict=True) if item is None] == []
        assert (await kept.query(index="n", limit=1)).items
        await asyncio.to_thread(store.close)


@pytest.mark.slow
async def test_all_processes_of_a_gateway_share_their_records_over_restarts(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "p", KEEPER)
    flags = ("--plugins", str(folder), "--processes", "2")
    running = gateway_process(*flags)
    for number in range(8):  # each on a connection of its own: whichever process takes it
        done = subprocess.run(
            ["curl", "-sS", "-X", "PUT", "--data", str(number), f"{running.url}/kept/k{number}"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout == '{"done": true}'
    answers = [(await get(running, f"/kept/k{n}")).json for n in range(8)]
    assert answers == [{"n": n, "key": f"k{n}"} for n in range(8)]
    running.kill()
    again = gateway_process(*flags)
    assert [(await get(again, f"/kept/k{n}")).json for n in range(8)] == answers


# -- away


async def test_a_route_whose_records_are_away_answers_503_and_tells_no_password(
    start_gateway: StartGateway, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_plugin(tmp_path / "p", KEEPER)
    running = await start_gateway(
        auth="none", plugins=[str(folder)], records="postgresql://me:hush-hush@127.0.0.1:1/kept"
    )
    answer = await get(running, "/kept/a")
    assert (answer.status, answer.json["error"]) == (503, "records_unavailable")
    assert answer.headers["Retry-After"] == "5"
    said = str([vars(record) for record in caplog.records]) + answer.body.decode()
    assert "127.0.0.1:1/kept" in said
    assert "hush-hush" not in said


async def test_a_gateway_without_records_makes_no_file(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    running = await start_gateway(auth="none")
    assert (await get(running, "/-/health")).status == 200
    assert not (tmp_path / "data/.gateway/records.db").exists()


async def test_a_worker_on_another_machine_is_told_to_use_postgresql(tmp_path: Path) -> None:
    here = Settings(directory=tmp_path)
    with pytest.raises(RecordsUnavailable, match="same --records postgresql://"):
        await open_records(here, file_is_local=bool(existing_slots(here.state)))("a").get("a")
    (tmp_path / ".gateway").mkdir()
    (tmp_path / ".gateway/journal-0.db").touch()
    records = open_records(here, file_is_local=bool(existing_slots(here.state)))
    assert await records("a").put("a", {})
    await asyncio.to_thread(records.close)


# -- settings


# -- doctor


# -- gateway check
