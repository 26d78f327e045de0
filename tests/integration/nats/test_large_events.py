"""Events that are larger than a message of the NATS servers: refused, or kept until they fit."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.integration.admin.test_events import post
from tests.support.harness import TIMEOUT, complete_lines, get, put, wait_until, write_plugin
from tests.support.nats.servers import Server, single

SCAN = """\
name: scan
event: APIGW.OnFileUploaded
script: |
  async def scan(event, handle):
      with open({log!r}, "a") as log:
          log.write(event["path"] + "\\n")
"""

PADDING = [f"X-F{number}: {'a' * 5000}" for number in range(6)]


async def connected(gateway: Gateway) -> None:
    nats = gateway.delivery._nats
    assert nats is not None
    async with asyncio.timeout(TIMEOUT):
        await nats.wait_ready()


async def test_an_upload_whose_event_the_servers_would_not_take_is_refused_before_its_body(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "p", SCAN.format(log=str(tmp_path / "log")))
    with single(tmp_path / "nats", extra="max_payload: 32K") as server:
        gateway = await start_gateway(events=server.url, plugins=[str(folder)])
        await connected(gateway)
        refused = await put(gateway, "/upload/padded", b"1", *PADDING)
        assert (refused.status, refused.json["error"]) == (431, "headers_too_large")
        assert not (tmp_path / "data/upload/padded").exists()
        assert (await put(gateway, "/upload/plain")).status == 201
        await wait_until(lambda: complete_lines(tmp_path / "log") == ["/upload/plain"])


async def test_a_delivery_that_does_not_fit_waits_in_the_journal_and_runs_once_it_does(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "p", SCAN.format(log=str(tmp_path / "log")))
    with single(tmp_path / "nats", extra="max_payload: 32K") as server:
        server.stop()
        # Nobody knows the limit of a server that was never reached: the default is assumed.
        gateway = await start_gateway(events=server.url, plugins=[str(folder)])
        assert (await put(gateway, "/upload/padded", b"1", *PADDING)).status == 201
        server.start()
        waiting: list[dict[str, str]] = []
        async with asyncio.timeout(TIMEOUT):
            while not waiting:
                answer = await get(gateway, "/-/events?state=delayed")
                waiting = answer.json.get("deliveries", [])
        assert "raise `max_payload`" in waiting[0]["error"]
        await restart_with(server, "max_payload: 1M", gateway)
        assert (await post(gateway, "retry", {"handler": "scan"})).json == {"count": 1}
        await wait_until(lambda: complete_lines(tmp_path / "log") == ["/upload/padded"])


async def restart_with(server: Server, extra: str, gateway: Gateway) -> None:
    server.stop()
    server.extra = extra
    server.start()
    await connected(gateway)
    async with asyncio.timeout(TIMEOUT):
        while (await get(gateway, "/-/events")).status != 200:
            pass
