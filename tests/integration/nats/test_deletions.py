"""`OnFileDeleted` through NATS: relayed like every journalled event, once the file is gone."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import StartGateway
from tests.support.harness import curl, put
from tests.support.nats.servers import Server
from tests.support.recorders import recording_events


async def test_a_removal_goes_through_nats_to_a_handler(
    start_gateway: StartGateway, server: Server, tmp_path: Path
) -> None:
    with recording_events() as recorder:
        plugins = recorder.write_handler(tmp_path / "p", "APIGW.OnFileDeleted", "gone")
        gateway = await start_gateway(deletes=True, events=server.url, plugins=plugins)
        await put(gateway, "/upload/a.txt", b"hello")
        assert (await curl("-X", "DELETE", f"{gateway.url}/upload/a.txt")).status == 204
        _, event = await recorder.next_event()
    assert (event["path"], event["bytes"], event["filepath"]) == ("/upload/a.txt", 5, None)
