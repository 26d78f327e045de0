"""Workers as processes of their own: they fetch, they die, they give back."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.events.protocols import DeliveryRow, Selection
from gateway.server.app import Gateway
from tests.conftest import StartGateway, StartProcess
from tests.support.harness import complete_lines, get, put, wait_until, write_plugin
from tests.support.nats.fixtures import MakeEngine
from tests.support.nats.processes import WorkerProcess
from tests.support.nats.servers import Server
from tests.support.ports import reserved_ports

LEASE = 30.0
SHORT = 3.0
"""For the tests in which a worker dies: its lease has to end."""

HANDLER = """\
name: work
event: APIGW.OnFileUploaded
retry: {{attempts: 3, backoff: 0.05, max_backoff: 0.1}}
script: |
  import os, signal
  async def work(event, handle):
      def tell(**what):
          with open({log!r}, "a") as log:
              log.write(json.dumps({{"pid": os.getpid(), "attempt": event["attempt"], **what}}) + "\\n")
{body}
"""

READ = """\
      async with files.open(event) as reader:
          first = await reader.read(2)
          await reader.seek(0)
          body = await reader.read()
      tell(body=body.decode(), first=first.decode(), filepath=event["filepath"], path=event["path"],
           address=event["address"], port=event["port"])
"""

HANG = """\
      tell()
      await asyncio.sleep(event["attempt"] == 1 and 60 or 0)
      tell(done=True)
"""

DIE = """\
      tell()
      os.kill(os.getpid(), signal.SIGKILL)
"""

REMOVE = """\
      await files.remove(event)
      try:
          async with files.open(event):
              pass
      except Exception as error:
          tell(error=type(error).__name__)
"""

CALL = """\
      holder = f"{event['address']}:{event['port']}"
      answer = await callout(holder, "/-/uploads/" + event["upload_id"], GET, None, {})
      tell(state=answer.json()["state"])
"""

SAVE = """\
      if event["path"].startswith("/made"):
          return
      stored = await files.save("/made/b c.txt", b"made", metadata={{"of": "a"}})
      again = await files.save("/made/b c.txt", source(), mime="text/x-mine")
      async with files.open_path("/made/b c.txt", (await files.stat("/made/b c.txt")).etag) as file:
          body = await file.read()
      await files.save("/made/gone", b"x")
      await files.delete("/made/gone")
      missing = None
      try:
          await files.stat("/made/gone")
      except Exception as refusal:
          missing = refusal.code
      tell(path=stored.path, replaced=again.replaced, body=body.decode(), missing=missing)
  async def source():
      yield b"made "
      yield b"again"
"""

SIGN = """\
      tell(url=await sign_url(GET, event["path"], filename="x.txt"))
"""

StartWorker = Callable[..., WorkerProcess]


@pytest.fixture
def worker(tmp_path: Path, server: Server) -> Iterator[StartWorker]:
    """Start workers: `worker("name")`; they share a server, plugins and a key with the gateway."""
    running: list[WorkerProcess] = []

    def start_one(
        name: str,
        directory: Path | None = None,
        *more: str,
        wait: bool = True,
        lease: float = LEASE,
    ) -> WorkerProcess:
        flags = ["--events", server.url, "--plugins", str(tmp_path / "plugins")]
        flags += ["--events-lease", str(lease)]
        flags += ["--installation-key-file", str(tmp_path / "data/.gateway/installation.key"), *more]
        running.append(WorkerProcess(directory or tmp_path / name, flags, wait=wait))
        return running[-1]

    yield start_one
    for one in running:
        one.kill()


@pytest.fixture
def own_port() -> Iterator[int]:
    """A port that a gateway finds free again when it comes back."""
    with reserved_ports(1) as (port,):
        yield port


@pytest.fixture
def told(tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    return lambda: [json.loads(line) for line in complete_lines(tmp_path / "log")]


def handler(tmp_path: Path, body: str) -> Path:
    return write_plugin(tmp_path / "plugins", HANDLER.format(log=str(tmp_path / "log"), body=body))


async def gateway_for(
    start_gateway: StartGateway, server: Server, tmp_path: Path, lease: float = LEASE, **more: str
) -> Gateway:
    folder = str(tmp_path / "plugins")
    return await start_gateway(
        events=server.url, plugins=[folder], deliver="workers", events_lease=str(lease), **more
    )


Told = Callable[[], list[dict[str, Any]]]


async def test_a_worker_elsewhere_fetches_the_file_from_its_holder(
    start_gateway: StartGateway, server: Server, worker: StartWorker, told: Told, tmp_path: Path
) -> None:
    handler(tmp_path, READ)
    gateway = await gateway_for(start_gateway, server, tmp_path, auth="token")
    one = worker("elsewhere")
    assert "for 1 handler, " in one.said
    token = gateway.resources.base.shared.token
    answer = await put(gateway, "/upload/%C3%BC%20b.txt", b"hello", f"X-Auth-Token: {token}")
    assert answer.status == 201
    [run] = await wait_until(told)
    host, port = gateway.address
    assert (run["body"], run["first"], run["filepath"]) == ("hello", "he", None)
    assert run["path"] == "/upload/ü b.txt"
    assert (run["address"], run["port"], run["attempt"]) == (host, port, 1)
    assert (await get(one, "/-/ready")).json == {  # type: ignore[arg-type]
        "ready": True,
        "checks": {"engine": True, "scripts": True, "descriptors": True},
    }
    assert await asyncio.to_thread(one.terminate) == 0


async def test_a_worker_signs_urls_that_its_gateway_takes(
    start_gateway: StartGateway, server: Server, worker: StartWorker, told: Told, tmp_path: Path
) -> None:
    handler(tmp_path, SIGN)
    gateway = await gateway_for(start_gateway, server, tmp_path, auth="token")
    worker("elsewhere", None, "--public-url", gateway.url)
    await put(gateway, "/upload/a", b"hello", f"X-Auth-Token: {gateway.resources.base.shared.token}")
    [run] = await wait_until(told)
    answer = await get(gateway, run["url"].removeprefix(gateway.url))
    assert (answer.status, answer.body) == (200, b"hello")


async def test_a_worker_that_shares_the_disk_opens_the_very_file(
    start_gateway: StartGateway, server: Server, worker: StartWorker, told: Told, tmp_path: Path
) -> None:
    handler(tmp_path, READ)
    gateway = await gateway_for(start_gateway, server, tmp_path)
    worker("sharing", tmp_path / "data")
    await put(gateway, "/upload/a", b"hello")
    [run] = await wait_until(told)
    assert (run["body"], run["filepath"]) == ("hello", f"{tmp_path}/data/upload/a")


async def test_a_worker_saves_reads_and_removes_by_path_at_the_gateway(
    start_gateway: StartGateway, server: Server, worker: StartWorker, told: Told, tmp_path: Path
) -> None:
    handler(tmp_path, SAVE.replace("{{", "{").replace("}}", "}"))
    gateway = await gateway_for(start_gateway, server, tmp_path, auth="token")
    worker("elsewhere")
    await put(gateway, "/upload/a", b"x", f"X-Auth-Token: {gateway.resources.base.shared.token}")
    [run, *_] = await wait_until(told)
    assert (run["path"], run["replaced"], run["body"]) == ("/made/b c.txt", True, "made again")
    assert run["missing"] == "not_found"
    assert (tmp_path / "data" / "made" / "b c.txt").read_bytes() == b"made again"


async def test_what_a_killed_worker_had_begun_goes_to_another(
    start_gateway: StartGateway, server: Server, worker: StartWorker, told: Told, tmp_path: Path
) -> None:
    handler(tmp_path, HANG)
    gateway = await gateway_for(start_gateway, server, tmp_path, lease=SHORT)
    first = worker("first", lease=SHORT)
    await put(gateway, "/upload/a")
    await wait_until(told)
    first.kill()
    worker("second", lease=SHORT)
    runs = await wait_until(lambda: told()[2:])
    assert [run["attempt"] for run in runs] == [2]
    assert runs[0]["pid"] != first.process.pid


async def test_what_a_worker_gives_back_on_a_stop_has_used_no_attempt(
    start_gateway: StartGateway, server: Server, worker: StartWorker, told: Told, tmp_path: Path
) -> None:
    handler(tmp_path, HANG)
    gateway = await gateway_for(start_gateway, server, tmp_path)
    first = worker("first")
    await put(gateway, "/upload/a")
    await wait_until(told)
    first.process.send_signal(signal.SIGTERM)
    worker("second")
    runs = await wait_until(lambda: told()[1:])
    assert [run["attempt"] for run in runs] == [1]
    assert await asyncio.to_thread(first.process.wait, 30) == 0


async def test_an_event_that_kills_its_worker_ends_dead(
    start_gateway: StartGateway, server: Server, worker: StartWorker, told: Told, tmp_path: Path
) -> None:
    handler(tmp_path, DIE)
    gateway = await gateway_for(start_gateway, server, tmp_path, lease=SHORT)
    await put(gateway, "/upload/a")
    for number in range(3):
        victim = worker("victim", wait=False, lease=SHORT)
        assert await asyncio.to_thread(victim.process.wait, 30) == -signal.SIGKILL, victim.log()
        assert len(told()) == number + 1
    worker("survivor", lease=SHORT)
    ledger = gateway.delivery.ledgers["nats"]

    async def dead() -> list[DeliveryRow]:
        return (await ledger.page(Selection(state="dead"), None, 10)).rows

    rows = await wait_until(dead)
    assert [run["attempt"] for run in told()] == [1, 2, 3]
    assert rows[0].error is not None
    assert "attempt was used up" in rows[0].error


async def test_a_holder_that_is_away_costs_no_attempt(
    server: Server,
    worker: StartWorker,
    gateway_process: StartProcess,
    connect: MakeEngine,
    told: Told,
    own_port: int,
    tmp_path: Path,
) -> None:
    folder = str(handler(tmp_path, READ))
    flags = ["--events", server.url, "--plugins", folder, "--deliver", "workers"]
    gateway = gateway_process(*flags, "--port", str(own_port))
    await put(gateway, "/upload/a", b"hello")
    nats = await connect(server.url)
    await wait_until(nats.ledger.depth)
    gateway.kill()
    one = worker("elsewhere")
    await wait_until(lambda: "cannot be reached" in one.log())
    gateway_process(*flags, "--port", str(own_port))
    [run] = await wait_until(told)
    assert (run["attempt"], run["body"]) == (1, "hello")


async def test_a_worker_removes_a_file_at_its_holder(
    start_gateway: StartGateway, server: Server, worker: StartWorker, told: Told, tmp_path: Path
) -> None:
    handler(tmp_path, REMOVE)
    gateway = await gateway_for(start_gateway, server, tmp_path)
    worker("elsewhere")
    await put(gateway, "/upload/a")
    [run] = await wait_until(told)
    assert run["error"] == "Superseded"
    assert not (tmp_path / "data/upload/a").exists()


async def test_a_callout_to_the_holder_is_trusted_there(
    start_gateway: StartGateway, server: Server, worker: StartWorker, told: Told, tmp_path: Path
) -> None:
    handler(tmp_path, CALL)
    gateway = await gateway_for(start_gateway, server, tmp_path, auth="token")
    worker("elsewhere")
    await put(gateway, "/upload/a", b"x", f"X-Auth-Token: {gateway.resources.base.shared.token}")
    [run] = await wait_until(told)
    assert run["state"] == "stored"
