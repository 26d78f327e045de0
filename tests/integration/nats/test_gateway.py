"""A gateway with `--events nats://...`, in this process, and what it tells of it."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.cli import main
from gateway.endpoints.admin import status as observe
from gateway.events.protocols import Selection, run_all
from gateway.server.app import Gateway
from tests.conftest import StartGateway, StartProcess
from tests.integration.admin.test_events import post
from tests.support.harness import (
    TIMEOUT,
    GatewayProcess,
    complete_lines,
    get,
    handlers_done,
    put,
    wait_until,
    write_plugin,
)
from tests.support.nats.fixtures import MakeEngine
from tests.support.nats.servers import Server

WRITER = """\
name: copier
event: APIGW.OnFileUploaded
script: |
  async def copier(event, handle):
      async with files.open(event) as reader:
          body = await reader.read()
      with open({log!r}, "a") as log:
          log.write(json.dumps({{**event, "body": body.decode()}}) + "\\n")
"""

NOTHING = """\
name: nothing
event: APIGW.OnFileUploaded
script: |
  async def nothing(event, handle):
      handle.result({"pages": 12})
"""

ListEvents = Callable[[Path, str], Awaitable[str]]


async def samples(gateway: Gateway) -> dict[str, float]:
    """Scrape; return the samples about engines, by name and labels."""
    answer = await get(gateway, "/-/metrics")
    assert answer.status == 200
    return {
        " ".join((sample.name, *(value for _, value in sorted(sample.labels.items())))): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
        if sample.labels.get("engine") == "nats"
    }


async def test_an_upload_goes_through_nats_to_a_handler_of_the_same_gateway(
    start_gateway: StartGateway, server: Server, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    folder = write_plugin(tmp_path / "plugins", WRITER.format(log=str(log)))
    gateway = await start_gateway(events=server.url, plugins=[str(folder)])
    answer = await put(gateway, "/upload/a.txt", b"hello")
    assert answer.status == 201
    [line] = await wait_until(lambda: complete_lines(log))
    assert '"body": "hello"' in line
    assert f'"filepath": "{tmp_path}/data/upload/a.txt"' in line
    told = server.ask("/jsz?streams=true")["account_details"][0]["stream_detail"]
    assert {one["name"] for one in told} == {"apigw-queue", "apigw-dead", "apigw-runs"}


async def test_uploads_do_not_wait_for_nats_and_are_handed_over_when_it_comes_back(
    start_gateway: StartGateway, server: Server, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    folder = write_plugin(tmp_path / "plugins", WRITER.format(log=str(log)))
    gateway = await start_gateway(events=server.url, plugins=[str(folder)])
    assert (await put(gateway, "/upload/0")).status == 201
    await wait_until(lambda: len(complete_lines(log)) == 1)
    server.kill()
    for number in range(1, 6):
        assert (await put(gateway, f"/upload/{number}")).status == 201
    assert len(complete_lines(log)) == 1
    metrics = (await get(gateway, "/-/metrics")).body.decode()
    assert "gateway_engine_ready 0.0" in metrics
    server.start()
    await wait_until(lambda: len({line.split('"path"')[1][:20] for line in complete_lines(log)}) == 6)


async def test_a_gateway_that_starts_without_nats_takes_uploads(
    start_gateway: StartGateway, server: Server, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    folder = write_plugin(tmp_path / "plugins", WRITER.format(log=str(log)))
    server.kill()
    gateway = await start_gateway(events=server.url, plugins=[str(folder)])
    assert (await put(gateway, "/upload/early")).status == 201
    server.start()
    await wait_until(lambda: complete_lines(log))


async def test_what_was_handed_over_is_replayed_from_the_journal(
    start_gateway: StartGateway, server: Server, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    folder = write_plugin(tmp_path / "plugins", WRITER.format(log=str(log)))
    gateway: Gateway = await start_gateway(events=server.url, plugins=[str(folder)])
    await put(gateway, "/upload/again")
    await wait_until(lambda: len(complete_lines(log)) == 1)
    lately = Selection(since=time.time() - 60)
    async with asyncio.timeout(TIMEOUT):  # its row may be written after the handler's line
        while not (count := await run_all(gateway.resources.journal.ledger, "replay", lately)):
            await asyncio.sleep(0.02)
    assert count == 1
    await wait_until(lambda: len(complete_lines(log)) == 2)


async def test_a_gateway_that_leaves_handlers_to_workers_runs_none(
    start_gateway: StartGateway, server: Server, connect: MakeEngine, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    folder = write_plugin(tmp_path / "plugins", WRITER.format(log=str(log)))
    gateway = await start_gateway(events=server.url, plugins=[str(folder)], deliver="workers")
    await put(gateway, "/upload/for-others")
    other = await connect(server.url)
    [delivery] = await other.queue.claim("copier", 1, TIMEOUT)
    assert delivery.holder == "{}:{}".format(*gateway.address)
    assert not complete_lines(log)


async def test_metrics_tell_what_waits_in_nats_and_for_how_long(
    start_gateway: StartGateway, server: Server, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "plugins", WRITER.format(log=str(tmp_path / "log")))
    gateway = await start_gateway(events=server.url, plugins=[str(folder)], deliver="workers")
    await put(gateway, "/upload/one")
    await put(gateway, "/upload/two")
    waiting = "gateway_deliveries nats copier ready"
    async with asyncio.timeout(TIMEOUT):
        while (told := await samples(gateway)).get(waiting) != 2:
            await asyncio.sleep(0.02)  # the relay tells nobody when it has handed over
    assert told["gateway_engine_up nats"] == 1
    assert 0 < told["gateway_oldest_ready_seconds nats copier"] < TIMEOUT


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["dead", "silent"])
async def test_metrics_leave_out_a_nats_that_does_not_answer(
    start_gateway: StartGateway, server: Server, monkeypatch: pytest.MonkeyPatch, how: signal.Signals
) -> None:
    monkeypatch.setattr(observe, "ENGINE_TIMEOUT", 0.2)
    gateway = await start_gateway(events=server.url)
    async with asyncio.timeout(TIMEOUT):
        while (await samples(gateway)) != {"gateway_engine_up nats": 1.0}:
            await asyncio.sleep(0.02)  # connecting has no other sign
    assert server.process is not None
    server.process.send_signal(how)
    async with asyncio.timeout(TIMEOUT):
        while (await samples(gateway)) != {"gateway_engine_up nats": 0.0}:
            await asyncio.sleep(0.02)  # a killed server's last answer may still be on its way
    server.kill()


async def connected(gateway: GatewayProcess) -> None:
    """Wait until NATS can be used through every process of this gateway."""
    async with asyncio.timeout(TIMEOUT):
        while not (ready := await engine_ready(gateway)) or not all(ready):
            await asyncio.sleep(0.02)  # connecting has no other sign


async def engine_ready(gateway: GatewayProcess) -> list[bool]:
    metrics = (await get(gateway, "/-/metrics")).body.decode()
    lines = [line for line in metrics.splitlines() if line.startswith("gateway_engine_ready")]
    return [line.endswith(" 1.0") for line in lines]


@pytest.fixture
def list_events(capsys: pytest.CaptureFixture[str]) -> ListEvents:
    """Run `gateway events list` in this process: a new interpreter for each would take most of the
    test."""

    async def run(directory: Path, url: str) -> str:
        capsys.readouterr()
        words = ["events", "list", "--directory", str(directory), "--events", url]
        assert await asyncio.to_thread(main, words) == 0
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_a_handler_resumed_on_another_node_is_nowhere_shown_as_paused(
    gateway_process: StartProcess,
    server: Server,
    tmp_path: Path,
    list_events: ListEvents,
    processes: str,
) -> None:
    folder = write_plugin(tmp_path / "plugins", WRITER.format(log=str(tmp_path / "log")))
    flags = ("--events", server.url, "--plugins", str(folder), "--processes", processes)
    folders = [tmp_path / "one", tmp_path / "other"]
    nodes = await asyncio.gather(
        *(asyncio.to_thread(gateway_process, *flags, directory=folder) for folder in folders)
    )

    async def shown_as_paused() -> list[bool]:
        """Return whether each node shows `copier` as paused: over HTTP, in metrics, on the command
        line."""
        shown = []
        for node, directory in zip(nodes, folders, strict=True):
            shown.append((await get(node, "/-/events/paused")).json == {"paused": ["copier"]})
            metrics = (await get(node, "/-/metrics")).body.decode()
            shown.append('gateway_handler_paused{engine="nats"' in metrics)
            shown.append("paused: copier" in await list_events(directory, server.url))
        return shown

    for node in nodes:
        await connected(node)
    assert (await post(nodes[0], "pause", {"handler": "copier"})).status == 200
    assert await shown_as_paused() == [True] * 6
    assert (await post(nodes[1], "resume", {"handler": "copier"})).status == 200
    assert await shown_as_paused() == [False] * 6


async def test_a_relayed_delivery_is_queued_on_the_page_of_its_upload_until_a_run_is_known(
    start_gateway: StartGateway, server: Server, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "p", NOTHING)
    flags = {"events": server.url, "plugins": [str(folder)]}
    gateway = await start_gateway(**flags, deliver="workers")
    upload_id = (await put(gateway, "/upload/a")).json["upload_id"]

    async def handler() -> dict[str, Any]:
        (only,) = (await get(gateway, f"/-/uploads/{upload_id}")).json["handlers"]
        return dict(only)

    async with asyncio.timeout(TIMEOUT):
        while not (await get(gateway, "/-/events?state=relayed")).json.get("deliveries"):
            pass
    told = await handler()
    assert (told["state"], told["attempt"], told["runs"]) == ("queued", 0, [])
    await start_gateway(**flags, directory=str(tmp_path / "another"))
    story = await handlers_done(gateway, upload_id)
    done = story["handlers"][0]
    assert [run["outcome"] for run in done["runs"]] == ["done"]
    assert (done["result"], story["result"]) == ({"pages": 12}, {"pages": 12})
    server.stop()
    told = await handler()
    assert (told["state"], told["runs"]) == ("queued", [])


async def test_after_a_new_port_deliveries_of_own_files_run_here_and_the_start_names_the_old_address(
    gateway_process: StartProcess, server: Server, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    folder = write_plugin(tmp_path / "p", WRITER.format(log=str(log)))
    flags = ("--plugins", str(folder), "--events", server.url)
    with gateway_process(*flags, "--deliver", "workers") as first:
        assert (await put(first, "/upload/a", b"old")).status == 201
        assert (await put(first, "/upload/b", b"kept")).status == 201
        async with asyncio.timeout(TIMEOUT):
            while len((await get(first, "/-/events?state=relayed")).json.get("deliveries", ())) < 2:
                pass
        (first.directory / "upload/a").write_bytes(b"replaced")
        earlier = first.address
        first.terminate()
    with gateway_process(*flags) as again:
        assert again.address != earlier
        await wait_until(lambda: len(complete_lines(log)) == 1)
        run = json.loads(complete_lines(log)[0])
        assert (run["path"], run["body"], run["port"]) == ("/upload/b", "kept", again.address[1])
        host, port = earlier
        assert f"{host}:{port}" in again.log()
        assert "address.changed" in again.log()
        async with asyncio.timeout(TIMEOUT):
            while (await get(again, "/-/events?state=ready")).json.get("deliveries") != []:
                pass
        rows = (await get(again, "/-/events?handler=copier")).json["deliveries"]
        assert "Superseded" in next(row["error"] for row in rows if row["path"] == "/upload/a")
