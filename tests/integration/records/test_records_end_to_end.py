"""Records as plugins and operators meet them: kept over SIGKILL, shared by processes, away, checked."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.cli.check import check
from gateway.cli.doctor import deployment
from gateway.errors import ConfigError, RecordsUnavailable
from gateway.records import Records, open_records, secrets_of
from gateway.records.sqlite_store import SqliteStore
from gateway.settings import Settings, load
from gateway.storage.local.state_dir import existing_slots
from tests.conftest import StartGateway, StartProcess
from tests.support.harness import get, write_plugin

KEEPER = """
name: keeper
upstreams: []
proxy:
  path: /kept/{key}
  authorization: {auth: none}
request_script: |
  kept, key = records("kept"), request.resources["key"]
  if request.method == "PUT":
      return {"done": await kept.put(key, {"n": int(request.body)})}
  return await kept.get(key)
spec:
- {method: GET, usage: read}
- {method: PUT, usage: write}
"""

WRITER = """
import asyncio, sys
from pathlib import Path
from gateway.records import Records
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


@pytest.mark.parametrize(
    "text", ["file", "postgresql://db/kept", "postgres://me:secret@[::1]:5433/kept?sslmode=require"]
)
def test_where_records_may_be(text: str) -> None:
    assert load({"records": text}, {}).records.get_secret_value() == text


@pytest.mark.parametrize(
    "text",
    ["files", "mysql://me:hush-hush@db/kept", "postgresql://me:hush-hush@db", "postgresql://db:x/a"],
)
def test_where_records_may_not_be_and_no_complaint_quotes_it(text: str) -> None:
    with pytest.raises(ConfigError) as fault:
        load({"records": text}, {})
    assert "hush-hush" not in str(fault.value)
    assert "records" in str(fault.value)


def test_the_password_of_a_database_is_masked_in_all_its_forms() -> None:
    url = "postgresql://me:hush%2Fhush@db/kept"
    settings = Settings(records=SecretStr(url))
    assert secrets_of(settings) == [url, "hush%2Fhush", "hush/hush"]
    assert "hush" not in repr(settings)
    assert secrets_of(Settings()) == []


# -- doctor


def test_doctor_reaches_the_records(tmp_path: Path) -> None:
    settings = Settings(directory=tmp_path)
    assert [finding.level for finding in deployment.records(settings)] == ["ok"]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".gateway").mkdir()
    records = open_records(settings)
    asyncio.run(records("a").put("a", {}))
    records.close()
    [found] = deployment.records(settings)
    assert (found.level, "records.db" in str(found)) == ("ok", True)
    shared = Settings(directory=tmp_path, events="nats://127.0.0.1:1")
    assert [finding.level for finding in deployment.records(shared)] == ["ok", "warn"]
    (tmp_path / ".gateway/records.db").write_bytes(b"nonsense" * 1000)
    assert [finding.level for finding in deployment.records(settings)] == ["FAIL"]


def test_doctor_says_that_a_database_is_away(tmp_path: Path) -> None:
    url = SecretStr("postgresql://me:hush-hush@127.0.0.1:1/kept")
    [found] = deployment.records(Settings(directory=tmp_path, records=url))
    assert found.level == "FAIL"
    assert "hush" not in str(found)


# -- gateway check

CHECKED = """
name: counted
event: APIGW.OnFileUploaded
script: |
  async def counted(event, handle):
      kept = records("counts")
      item = await kept.get(event["mime"]) or {"n": 0}
      await kept.put(event["mime"], {"n": item["n"] + 1})
      await kept.delete("gone")
tests:
- name: counts on
  event: {mime: text/plain}
  records: {counts: {text/plain: {n: 4}, gone: {n: 1}}}
  expect: {records: {counts: {text/plain: {n: 5}, gone: null}}}
- name: begins at one, with records of its own
  event: {mime: text/plain}
  expect: {records: {counts: {text/plain: {n: 1, key: text/plain}}}}
"""


def test_a_test_has_records_of_its_own_and_may_expect_some(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check([write_plugin(tmp_path / "p", CHECKED)]) == 0
    wrong = CHECKED.replace("{n: 5}", "{n: 6}").replace("gone: null", "gone: {n: 1}")
    assert check([write_plugin(tmp_path / "wrong", wrong)]) == 1
    told = capsys.readouterr().err
    assert "item 'text/plain' of 'counts' is {'n': 5}, expected {'n': 6}" in told
    assert "item 'gone' of 'counts' is None" in told


ROUTE = (
    KEEPER
    + """
tests:
- name: reads
  records: {kept: {a: {n: 7}}}
  request: {method: GET, resources: {key: a}}
  expect: {output: {n: 7, key: a}}
- name: writes
  request: {method: PUT, resources: {key: a}, body: "8"}
  expect: {output: {done: true}, records: {kept: {a: {n: 8}}}}
- name: is told what is no item
  records: {kept: {a: {n: .nan}}}
  request: {method: GET, resources: {key: a}}
  expect: {}
"""
)


def test_routes_are_tested_with_records_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check([write_plugin(tmp_path / "p", ROUTE)]) == 1
    printed = capsys.readouterr()
    assert "ok    keeper: reads" in printed.out
    assert "ok    keeper: writes" in printed.out
    assert "FAILED keeper: is told what is no item: it failed: ValueError" in printed.err
