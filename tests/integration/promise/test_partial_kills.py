"""A resumable upload over HTTP whose gateway is killed at a named point, and whose machine starts anew.

The client is one of the draft and of tus in turns. What it was told counts afterwards, whatever lies
behind it on the disk; the file is whole in the end, and its handlers run for one event.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Final

import pytest

from gateway.storage.local import partial_cells
from tests.conftest import StartProcess
from tests.support.harness import (
    GatewayProcess,
    RawResponse,
    complete_lines,
    files_below,
    leftovers,
    raw_connection,
    request_head,
    wait_settled,
    write_plugin,
)
from tests.support.promise import body_of
from tests.support.resumable import target_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

POINTS: Final = (
    "after admit",
    "before partial head",
    "after partial head",
    "mid append",
    "mid append:3",
    "before partial cell",
    "before partial cell:2",
    "after partial cell:2",
    "before partial move",
    "after partial move",
    "before journal commit",
    "after journal commit",
    "after rename",
    "before directory sync",
    "after directory sync",
    "before answer",
    "after answer:2",
    "before partial end",
)

BODY: Final = body_of("killed", 3_000_000)
APPENDS: Final = 3

RECORDER: Final = """
name: recorder
event: APIGW.OnFileUploaded
script: |
  async def recorder(event, handle):
      with open("LOG", "a") as log:
          log.write(f"{event['id']} {event['bytes']}\\n")
"""


class Client:
    """An upload, as far as its client knows."""

    def __init__(self) -> None:
        self.resource: str | None = None
        self.told = 0
        self.requests = 0

    async def ask(
        self, gateway: GatewayProcess, method: str, target: str, *lines: str, body: bytes = b""
    ) -> RawResponse:
        async with raw_connection(gateway) as connection:
            length = (f"Content-Length: {len(body)}",) if method != "HEAD" else ()
            await connection.send(request_head(method, target, *length, *lines) + body)
            answer = await connection.answer(head=method == "HEAD")
        if "Upload-Offset" in answer.headers:
            offset = int(answer.headers["Upload-Offset"])
            assert offset >= self.told, f"{offset} after {self.told}"
            self.told = offset
        return answer

    async def upload(self, gateway: GatewayProcess) -> None:
        """Go on until the file is complete. Raises `OSError`, `IncompleteReadError` where it dies."""
        if self.resource is None:
            length = f"Upload-Length: {len(BODY)}"
            answer = await self.ask(gateway, "POST", "/upload/x", "Upload-Complete: ?0", length)
            assert answer.status == 201
            self.resource = target_of(answer.headers["Location"])
        while not await self.is_complete(gateway, self.resource):
            start = self.told
            piece = BODY[start : start + len(BODY) // APPENDS]
            self.requests += 1
            lines = ["Content-Type: application/offset+octet-stream", "Tus-Resumable: 1.0.0"]
            if self.requests % 2:
                end = int(start + len(piece) == len(BODY))
                lines = ["Content-Type: application/partial-upload", f"Upload-Complete: ?{end}"]
            lines.append(f"Upload-Offset: {start}")
            answer = await self.ask(gateway, "PATCH", self.resource, *lines, body=piece)
            assert answer.status in {200, 201, 204}, answer

    async def is_complete(self, gateway: GatewayProcess, resource: str) -> bool:
        answer = await self.ask(gateway, "HEAD", resource)
        assert answer.status == 204, answer
        return answer.headers["Upload-Complete"] == "?1"


def spoil_unsettled(directory: Path) -> None:
    """Write junk over, and behind, what no cell counts: a power loss may leave anything there."""
    for cells in (directory / ".gateway/partials").glob("*.at"):
        with cells.open("rb") as file:
            newest = partial_cells.newest(file.fileno())
        body = cells.with_suffix("")
        if body.exists():
            offset = 0 if newest is None else newest.offset
            junk = os.urandom(max(body.stat().st_size - offset, 0) + 10_000)
            with body.open("r+b") as file:
                file.seek(offset)
                file.write(junk)


@pytest.mark.parametrize("reboots", [False, True], ids=["kill", "reboot"])
@pytest.mark.parametrize("point", POINTS)
async def test_an_upload_goes_on_after_a_kill(
    gateway_process: StartProcess, tmp_path: Path, point: str, reboots: bool
) -> None:
    log, data = tmp_path / "events.log", tmp_path / "data"
    flags = ("--plugins", str(write_plugin(tmp_path / "plugins", RECORDER.replace("LOG", str(log)))))
    client = Client()
    first = await asyncio.to_thread(gateway_process, *flags, die_at=point)
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        await client.upload(first)
    assert first.wait() == -9, "the point was never reached"
    if reboots:
        spoil_unsettled(data)
    again = await asyncio.to_thread(gateway_process, *flags, die_at="boot=other" if reboots else "")
    await client.upload(again)
    await wait_settled(again)
    assert files_below(data / "upload") == {"x": BODY}
    events = {line.split()[0] for line in complete_lines(log)}
    assert len(events) == 1
    assert leftovers(data) == []
    assert client.resource is not None
    upload_id = client.resource.partition("?upload=")[2].partition(".")[0]
    assert not [name for name in os.listdir(data / ".gateway/partials") if upload_id in name]
