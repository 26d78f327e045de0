"""Several processes behind one port: they share the work, die and come back, and lose nothing."""

from __future__ import annotations

import asyncio
import collections
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from gateway.server.supervisor import Supervisor
from gateway.settings import usable_cores
from tests.conftest import StartProcess
from tests.support import PROJECT
from tests.support.cli import run_verb
from tests.support.harness import (
    TIMEOUT,
    GatewayProcess,
    complete_lines,
    files_below,
    get,
    leftovers,
    put,
    raw_connection,
    request_head,
    wait_port_closed,
    wait_settled,
    wait_until,
    write_plugin,
)
from tests.support.promise import RunRecorder, UploadAttempt, judge, upload

pytestmark = pytest.mark.slow


WAITS = """
name: waits
event: APIGW.OnFileUploaded
retry: {attempts: 1000, backoff: 0.05, max_backoff: 0.1}
script: |
  import os
  async def waits(event, handle):
      if not os.path.exists("GATE_FILE"):
          raise RuntimeError("not yet")
"""


@pytest.fixture
def recorder(tmp_path: Path) -> RunRecorder:
    return RunRecorder(tmp_path, work="pass")


def slot_of(upload_id: str) -> int:
    return int(upload_id.rpartition("-")[2])


def pid_of(gateway: GatewayProcess, slot: int) -> int:
    return int((gateway.directory / ".gateway" / "slots" / str(slot)).read_text())


async def served_by_all(gateway: GatewayProcess, count: int) -> dict[int, str]:
    """Upload until every process has got something; return one upload id of each slot."""
    ids: dict[int, str] = {}
    deadline = time.monotonic() + TIMEOUT
    for number in range(10_000):
        answers = await asyncio.gather(*(put(gateway, f"/upload/{number}/{n}") for n in range(8)))
        ids |= {slot_of(answer.json["upload_id"]): answer.json["upload_id"] for answer in answers}
        if len(ids) == count:
            return ids
        assert time.monotonic() < deadline, f"only {sorted(ids)} were served"
    raise AssertionError


async def until_up(gateway: GatewayProcess, count: int, but: int = 0) -> None:
    """Wait until `count` processes answer, and slot 1 is no more the process `but`."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        text = (await get(gateway, "/-/metrics")).body.decode()
        up = [line for line in text.splitlines() if line.startswith("gateway_process_up{")]
        if pid_of(gateway, 1) != but and sum(line.endswith(" 1.0") for line in up) == count:
            return
        await asyncio.sleep(0.02)  # there is no other public sign of a process that has come back
    raise AssertionError(up)


def log_lines(gateway: GatewayProcess) -> list[dict[str, Any]]:
    lines = complete_lines(gateway.log_path)
    return [json.loads(line) for line in lines if line.startswith("{")]


def messages(gateway: GatewayProcess, beginning: str) -> list[dict[str, Any]]:
    return [line for line in log_lines(gateway) if line["message"].startswith(beginning)]


# -- one gateway


async def test_each_process_gets_work_and_each_knows_every_upload(
    gateway_process: StartProcess, tmp_path: Path, recorder: RunRecorder
) -> None:
    gateway = gateway_process("--processes", "2", *recorder.flags)
    assert gateway.printed == [f"listening on {gateway.url}"]
    ids = await served_by_all(gateway, 2)
    await wait_settled(gateway)
    for upload_id in ids.values():
        stories = [(await get(gateway, f"/-/uploads/{upload_id}")).json for _ in range(20)]
        assert {story["upload_id"] for story in stories} == {upload_id}
        assert {story["handlers"][0]["state"] for story in stories} == {"done"}
    for unknown in ("nothing", "01M80KY0RN3M4QFD7NCXJ8WQYE-1", "..", "a%2F..%2Fmetrics-1"):
        assert (await get(gateway, f"/-/uploads/{unknown}")).status in {400, 404}
    assert recorder.paths() == {f"/{path}" for path in files_below(tmp_path / "data") if path[0] == "u"}
    marked = {line.get("process") for line in messages(gateway, "request")}
    assert marked == {0, 1}


async def test_an_upload_on_its_way_is_seen_through_the_other_process(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    note = f"async def notes(event, handle): open('{tmp_path}/id', 'w').write(event['upload_id'])"
    text = f"name: notes\nevent: APIGW.OnFileUploading\nscript: |\n  {note}\n"
    gateway = gateway_process("--processes", "2", "--plugins", str(write_plugin(tmp_path / "p", text)))
    async with raw_connection(gateway) as connection:
        await connection.send(
            request_head("PUT", "/upload/slow", "Content-Length: 2", "Expect: 100-continue")
        )
        assert b"100 Continue" in await connection.line()
        await connection.line()
        upload_id = (tmp_path / "id").read_text()
        stories = [(await get(gateway, f"/-/uploads/{upload_id}")).json for _ in range(20)]
        assert {story["state"] for story in stories} == {"receiving"}
        await connection.send(b"12")
        assert (await connection.answer()).json["upload_id"] == upload_id


async def test_the_figures_of_all_processes_are_told_by_any(gateway_process: StartProcess) -> None:
    gateway = gateway_process("--processes", "2")
    ids = await served_by_all(gateway, 2)
    assert len(ids) == 2
    counted: collections.Counter[str] = collections.Counter()
    text = (await get(gateway, "/-/metrics")).body.decode()
    for line in text.splitlines():
        if line.startswith('gateway_uploads_total{outcome="stored",process='):
            counted[line.split('"')[3]] += int(float(line.split()[-1]))
    assert set(counted) == {"0", "1"}
    assert sum(counted.values()) == len(files_below(gateway.directory / "upload"))
    assert text.count("# TYPE gateway_uploads_total counter") == 1
    alone = (await get(gateway, "/-/metrics?scope=slot")).body.decode()
    assert "process=" not in alone


async def test_events_of_all_processes_are_listed_by_any_and_by_the_command_line(
    gateway_process: StartProcess, recorder: RunRecorder
) -> None:
    gateway = gateway_process("--processes", "2", *recorder.flags)
    await served_by_all(gateway, 2)
    await wait_settled(gateway)
    paths = {f"/upload/{path}" for path in files_below(gateway.directory / "upload")}
    for _ in range(5):
        rows = (await get(gateway, "/-/events?limit=1000")).json["deliveries"]
        assert {row["path"] for row in rows} == paths
    command = [sys.executable, "-m", "gateway", "events", "list", "--json"]
    command += ["--directory", str(gateway.directory)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True, cwd=PROJECT)
    assert {row["path"] for row in json.loads(done.stdout)} == paths


async def test_one_token_is_made_and_every_process_takes_it(gateway_process: StartProcess) -> None:
    gateway = gateway_process("--processes", "2", "--auth", "token")
    (token,) = (line for line in gateway.printed if len(line) == 43)
    header = f"X-Auth-Token: {token}"
    statuses = {(await put(gateway, f"/upload/{n}", b"x", header)).status for n in range(20)}
    assert statuses == {201}
    assert (await put(gateway, "/upload/no")).status == 401


def serve(directory: Path, *flags: str) -> subprocess.CompletedProcess[bytes]:
    """Run a server that is not expected to start."""
    command = [sys.executable, "-m", "gateway", "serve", "--directory", str(directory), "--port", "0"]
    return subprocess.run(
        [*command, *flags], capture_output=True, timeout=TIMEOUT, check=False, cwd=PROJECT
    )


async def test_a_fault_is_said_once_and_ends_with_the_code_of_a_single_process(tmp_path: Path) -> None:
    folder = write_plugin(
        tmp_path / "broken", "name: broken\nevent: APIGW.OnFileUploaded\nscript: '1 +'\n"
    )
    flags = ("--plugins", str(folder), "--processes")
    single = await asyncio.to_thread(serve, tmp_path / "data", *flags, "1")
    several = await asyncio.to_thread(serve, tmp_path / "data", *flags, "3")
    assert several.returncode == single.returncode == 2
    assert several.stdout == b""
    assert several.stderr == single.stderr
    assert b"plugin.yaml:3" in several.stderr


@pytest.mark.parametrize(("first", "second"), [("1", "2"), ("2", "1"), ("2", "2")])
async def test_a_second_gateway_on_the_directory_is_refused_whatever_their_processes(
    gateway_process: StartProcess, first: str, second: str
) -> None:
    gateway = gateway_process("--processes", first)
    refused = await asyncio.to_thread(serve, gateway.directory, "--processes", second)
    assert refused.returncode == 2
    owner = f"another gateway (process {gateway.process.pid}) serves this directory"
    assert owner.encode() in refused.stderr
    assert (await put(gateway, "/upload/x")).status == 201


async def test_a_reload_reaches_every_process(
    gateway_process: StartProcess, recorder: RunRecorder
) -> None:
    gateway = gateway_process("--processes", "2", *recorder.flags)
    reloaded = recorder.text.replace('"path": event["path"]', '"path": "again"')
    write_plugin(recorder.plugins, reloaded, "recorder.yaml")
    gateway.signal(signal.SIGHUP)
    deadline = time.monotonic() + TIMEOUT
    while {line["process"] for line in messages(gateway, "reloaded")} != {0, 1}:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)  # the log is the only sign of a reload
    await served_by_all(gateway, 2)
    await wait_settled(gateway)
    assert recorder.paths() == {"again"}


SLOW_TO_LOAD = """
name: slow
event: APIGW.OnFileUploading
script: |
  import os, pathlib, time
  pathlib.Path("LOADING").touch()
  while not os.path.exists("GO"):
      time.sleep(0.01)
  async def slow(event, handle):
      await handle.terminate(code=STATUS)
"""


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_a_reload_that_is_asked_for_during_the_start_is_done_after_it(
    tmp_path: Path, processes: str
) -> None:
    loading, go = tmp_path / "loading", tmp_path / "go"
    text = SLOW_TO_LOAD.replace("LOADING", str(loading)).replace("GO", str(go))
    folder = write_plugin(tmp_path / "plugins", text.replace("STATUS", "401"))
    flags = ("--processes", processes, "--plugins", str(folder))
    starting = asyncio.create_task(
        asyncio.to_thread(GatewayProcess, tmp_path / "data", flags, forked=False)
    )
    async with asyncio.timeout(TIMEOUT):
        while not loading.exists():
            await asyncio.sleep(0.01)
    write_plugin(folder, text.replace("STATUS", "402"))
    (parent,) = (p for p in psutil.Process().children() if str(tmp_path) in " ".join(p.cmdline()))
    parent.send_signal(signal.SIGHUP)
    await asyncio.sleep(0.1)  # the supervisor passes it on
    go.touch()
    with await starting as gateway:
        async with asyncio.timeout(TIMEOUT):
            while len(messages(gateway, "reloaded")) < 1:
                await asyncio.sleep(0.02)  # the log is the only sign of a reload
        statuses = {(await put(gateway, f"/upload/{n}")).status for n in range(20)}
    assert statuses == {402}


def test_a_process_that_cannot_be_forked_now_is_tried_again_and_ends_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fork() -> int:
        raise BlockingIOError(errno.EAGAIN, "no process is left")

    supervisor = Supervisor(2, lambda *_: 0, 1.0, lambda: None, lambda _: None, lambda: None)
    supervisor._due[1] = 0.0
    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fork", fork)
        supervisor._check_deadlines()
    assert list(supervisor._due) == [1]
    assert len(os.listdir("/proc/self/fd")) == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {signal.SIGTERM, signal.SIGCHLD} == set()
    assert "the others go on: [Errno 11] no process is left" in caplog.text


async def test_bodies_on_their_way_are_finished_by_every_process_when_asked_to_stop(
    gateway_process: StartProcess,
) -> None:
    gateway = gateway_process("--processes", "2")
    deadline = time.monotonic() + TIMEOUT
    count = 0

    async def idle() -> bool:
        """Tell whether some process has no upload yet."""
        told = (await get(gateway, "/-/metrics")).body.decode()
        return any(f'gateway_uploads_active{{process="{slot}"}} 0.0' in told for slot in range(2))

    async with asyncio.TaskGroup() as group:
        ready, stopped = asyncio.Semaphore(0), asyncio.Event()

        async def upload(number: int) -> None:
            async with raw_connection(gateway) as connection:
                lines = ("Content-Length: 2", "Expect: 100-continue")
                await connection.send(request_head("PUT", f"/upload/{number}", *lines))
                assert b"100 Continue" in await connection.line()
                await connection.line()
                await connection.send(b"1")
                ready.release()
                await stopped.wait()
                await connection.send(b"2")
                answer = await connection.answer()
                assert answer.status == 201
                slots.add(slot_of(answer.json["upload_id"]))

        slots: set[int] = set()
        # Until each process has one: who gets a connection is the kernel's choice, which prefers the
        # one that waited last; many at once reach both.
        while await idle():
            assert time.monotonic() < deadline, f"{count} uploads went to one process"
            for _ in range(12):
                group.create_task(upload(count))
                count += 1
            for _ in range(12):
                await ready.acquire()
        gateway.signal(signal.SIGTERM)
        await wait_port_closed(gateway)  # until then the signal has not reached them all
        stopped.set()
    assert gateway.wait() == 0
    assert slots == {0, 1}
    assert files_below(gateway.directory / "upload") == {str(n): b"12" for n in range(count)}


# -- one name, several processes


@pytest.mark.parametrize(
    ("policy", "lines", "loser"),
    [("reject", (), 409), ("replace", ("If-None-Match: *",), 412)],
    ids=["reject", "If-None-Match"],
)
async def test_one_of_those_who_race_for_a_name_gets_it(
    gateway_process: StartProcess, policy: str, lines: tuple[str, ...], loser: int
) -> None:
    gateway = gateway_process("--processes", "3", "--on-conflict", policy)
    for number in range(30):
        name, bodies = f"/upload/{number}", [bytes([65 + n]) * 100 for n in range(9)]
        answers = await asyncio.gather(*(put(gateway, name, body, *lines) for body in bodies))
        assert sorted(answer.status for answer in answers) == [201] + [loser] * 8
        (won,) = (body for body, a in zip(bodies, answers, strict=True) if a.status == 201)
        assert (gateway.directory / "upload" / str(number)).read_bytes() == won
    assert leftovers(gateway.directory) == []


async def test_all_who_race_for_a_name_get_one_where_names_are_given(
    gateway_process: StartProcess,
) -> None:
    gateway = gateway_process("--processes", "3", "--on-conflict", "rename")
    for number in range(10):
        bodies = [bytes([65 + n]) * 100 for n in range(9)]
        answers = await asyncio.gather(*(put(gateway, f"/upload/{number}", body) for body in bodies))
        assert {answer.status for answer in answers} == {201}
        for body, answer in zip(bodies, answers, strict=True):
            assert (gateway.directory / answer.json["path"].lstrip("/")).read_bytes() == body
    assert len(files_below(gateway.directory / "upload")) == 90


REMOVES = """
name: removes
event: APIGW.OnFileUploaded
script: |
  from gateway.errors import Superseded
  async def removes(event, handle):
      if event["headers"]["X-Keep"] == "no":
          try:
              await files.remove(event)
          except Superseded:
              pass
"""


async def test_a_handler_never_removes_what_another_process_has_just_stored(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    gateway = gateway_process(
        "--processes", "2", "--plugins", str(write_plugin(tmp_path / "p", REMOVES))
    )
    for number in range(60):
        name = f"/upload/{number}"
        for _ in range(3):
            assert (await put(gateway, name, b"old", "X-Keep: no")).status in {200, 201}
        assert (await put(gateway, name, b"new", "X-Keep: yes")).status in {200, 201}
    await wait_settled(gateway)
    assert files_below(gateway.directory / "upload") == {str(n): b"new" for n in range(60)}


# -- deaths


async def load(gateway: GatewayProcess, stop: asyncio.Event, attempts: list[UploadAttempt]) -> None:
    """Upload from eight clients until told to stop; nothing is refused."""

    async def client(number: int) -> None:
        count = 0
        while not stop.is_set():
            count += 1
            attempts.append(await upload(gateway, f"{number}-{count}"))
            assert attempts[-1].status in {None, 200, 201}

    await asyncio.gather(*(client(number) for number in range(8)))


async def test_a_killed_process_comes_back_and_the_others_go_on_and_nothing_is_lost(
    gateway_process: StartProcess, recorder: RunRecorder
) -> None:
    gateway = gateway_process("--processes", "2", *recorder.flags)
    stop, attempts = asyncio.Event(), list[UploadAttempt]()
    async with asyncio.TaskGroup() as group:
        group.create_task(load(gateway, stop, attempts))
        for _ in range(3):
            before, dying = len(attempts), pid_of(gateway, 1)
            await wait_until(lambda: sum(a.acknowledged for a in attempts[before:]) >= 50)  # noqa: B023
            os.kill(dying, signal.SIGKILL)
            await until_up(gateway, 2, but=dying)
        stop.set()
    await served_by_all(gateway, 2)
    await wait_settled(gateway)
    stored = {
        name: body for name, body in files_below(gateway.directory / "upload").items() if "-" in name
    }
    runs = {tag: digest for tag, digest in recorder.digests().items() if "-" in tag}
    assert judge(attempts, stored, runs).broken() == {}
    assert leftovers(gateway.directory) == []
    assert len(messages(gateway, "process 1 (pid ")) == 3


async def test_processes_that_die_in_the_middle_of_commits_lose_nothing(
    gateway_process: StartProcess, recorder: RunRecorder
) -> None:
    flags = ("--processes", "2", *recorder.flags)
    gateway = gateway_process(*flags, die_at="after rename:20")
    stop, attempts = asyncio.Event(), list[UploadAttempt]()
    async with asyncio.TaskGroup() as group:
        group.create_task(load(gateway, stop, attempts))
        await wait_until(lambda: len(messages(gateway, "process ")) >= 6)  # a line for each death
        stop.set()
    gateway.kill()
    survivor = gateway_process(*flags)
    await wait_settled(survivor)
    stored = files_below(survivor.directory / "upload")
    assert judge(attempts, stored, recorder.digests()).broken() == {}
    assert leftovers(survivor.directory) == []


def ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_the_children_end_with_a_killed_supervisor_and_a_new_start_works(
    gateway_process: StartProcess, recorder: RunRecorder
) -> None:
    flags = ("--processes", "2", *recorder.flags)
    gateway = gateway_process(*flags)
    ids = await served_by_all(gateway, 2)
    children = psutil.Process(gateway.process.pid).children()
    assert len(children) == 2
    gateway.kill()
    again = gateway_process(*flags)  # at once: it waits for the last of them to die
    async with asyncio.timeout(TIMEOUT):
        while not all(map(ended, children)):
            await asyncio.sleep(0.02)  # they are no children of ours: nobody tells us
    await wait_settled(again)
    for upload_id in ids.values():
        assert (await get(again, f"/-/uploads/{upload_id}")).status == 200
    stored = {f"/upload/{path}" for path in files_below(again.directory / "upload")}
    assert stored == recorder.paths()


async def test_a_process_that_cannot_start_is_told_of_and_the_others_go_on(
    gateway_process: StartProcess,
) -> None:
    gateway = gateway_process("--processes", "2")
    ids = await served_by_all(gateway, 2)
    journal = gateway.directory / ".gateway" / "journal-1.db"
    journal.rename(journal.with_name("elsewhere"))
    journal.mkdir()
    os.kill(pid_of(gateway, 1), signal.SIGKILL)
    deadline = time.monotonic() + TIMEOUT
    while not messages(gateway, "the process cannot start"):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)  # the log is where it is told
    statuses = [(await put(gateway, f"/upload/more-{n}")).status for n in range(10)]
    assert statuses == [201] * 10
    away = await get(gateway, f"/-/uploads/{ids[1]}")
    assert (away.status, away.json["error"]) == (503, "process_unavailable")
    assert (await get(gateway, f"/-/uploads/{ids[0]}")).status == 200
    gateway.signal(signal.SIGSTOP)  # it starts nobody in between
    journal.rmdir()
    journal.with_name("elsewhere").rename(journal)
    gateway.signal(signal.SIGCONT)
    await until_up(gateway, 2)
    assert (await get(gateway, f"/-/uploads/{ids[1]}")).status == 200


# -- fewer and more


@pytest.fixture
def on_cores() -> Iterator[Callable[[int], None]]:
    """Let the gateways that start from now on use so many cores only."""
    mine = os.sched_getaffinity(0)
    yield lambda count: os.sched_setaffinity(0, sorted(mine)[:count])
    os.sched_setaffinity(0, mine)


@pytest.mark.skipif(usable_cores() < 2, reason="needs two cores")
async def test_auto_is_a_process_for_each_core_of_each_start(
    gateway_process: StartProcess, recorder: RunRecorder, on_cores: Callable[[int], None]
) -> None:
    flags = ("--processes", "auto", *recorder.flags)
    on_cores(2)
    gateway = gateway_process(*flags, forked=False)
    assert len(messages(gateway, "processes: 2 on 2 cores")) == 1
    ids = await served_by_all(gateway, 2)
    dying = pid_of(gateway, 1)
    os.kill(dying, signal.SIGKILL)
    await until_up(gateway, 2, but=dying)
    ids |= {len(ids) + slot: upload_id for slot, upload_id in (await served_by_all(gateway, 2)).items()}
    await wait_settled(gateway)
    assert gateway.terminate() == 0
    on_cores(1)
    single = gateway_process(*flags, forked=False)
    assert len(messages(single, "processes: 1 on 1 core")) == 1
    for upload_id in ids.values():
        assert (await get(single, f"/-/uploads/{upload_id}")).json["handlers"][0]["state"] == "done"


async def test_fewer_processes_take_over_what_the_others_left(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    folder = write_plugin(tmp_path / "waiting", WAITS.replace("GATE_FILE", str(gate)))
    flags = ("--plugins", str(folder))
    gateway = gateway_process("--processes", "3", *flags)
    ids = await served_by_all(gateway, 3)
    gateway.kill()
    single = gateway_process(*flags)
    gate.touch()
    await wait_settled(single)
    for upload_id in ids.values():
        story = (await get(single, f"/-/uploads/{upload_id}")).json
        assert [handler["state"] for handler in story["handlers"]] == ["done"]
        assert (single.directory / story["path"].lstrip("/")).exists()
    names = sorted(path.name for path in (single.directory / ".gateway").glob("*-*.db"))
    assert names == ["journal-0.db"]
    assert single.terminate() == 0
    several = gateway_process(
        "--processes", "2", *flags
    )  # ids of a slot that lives again lead to slot 0 too
    for upload_id in ids.values():
        for _ in range(4):
            assert (await get(several, f"/-/uploads/{upload_id}")).status == 200


async def test_a_process_that_hangs_is_named_by_all_that_tell_of_the_gateway(
    gateway_process: StartProcess,
) -> None:
    gateway = gateway_process("--processes", "3", "--grace", "5", die_at="heartbeat=quick")
    victim = psutil.Process(gateway.process.pid).children()[0]

    async def readiness(*, ready: bool) -> Any:
        # The kernel gives the process that hangs connections too: they are never answered.
        try:
            async with asyncio.timeout(0.5):
                answer = await get(gateway, "/-/ready")
        except TimeoutError:
            return None
        return answer if answer.json["ready"] is ready else None

    assert (await wait_until(lambda: readiness(ready=True))).json["checks"]["processes"] is True
    victim.suspend()
    answer = await wait_until(lambda: readiness(ready=False))
    (unresponsive,) = logged(gateway, "process.unresponsive")
    slot = unresponsive["slot"]
    assert (answer.status, answer.json["checks"]["processes"]) == (503, False)
    assert answer.json["reasons"]["processes"].startswith(f"unresponsive: {slot};")
    listed = await asyncio.to_thread(list_events, gateway)
    assert (listed.returncode, listed.stdout) == (1, "[]\n")
    assert listed.stderr == f"gateway: process {slot} does not answer: its deliveries are missing\n"
    facts = json.loads((await asyncio.to_thread(run_verb, gateway.directory, "status", "--json"))[1])
    assert facts["silent_processes"] == [slot]
    assert set(facts["unknown"]) == {"deliveries", "uploads", "upstreams_down"}
    victim.resume()
    assert (await wait_until(lambda: readiness(ready=True))).status == 200
    assert [line["slot"] for line in logged(gateway, "process.recovered")] == [slot]
    victim.suspend()
    await wait_until(lambda: readiness(ready=False))
    assert gateway.terminate() == 1  # it is killed at once


def logged(gateway: GatewayProcess, word: str) -> list[dict[str, Any]]:
    return [line for line in messages(gateway, "process ") if line["event"] == word]


def list_events(gateway: GatewayProcess) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", "events", "list", "--json"]
    command += ["--directory", str(gateway.directory)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT)
