"""Resumable uploads in a storm: cuts at random, clients that come twice, and SIGKILL again and again.

Of every upload: an offset that was told never falls, the file is whole in the end, there is one event,
and nothing is left of what it was made of.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import pytest

from tests.conftest import StartProcess
from tests.support.harness import (
    TIMEOUT,
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

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

T = TypeVar("T")

KILLS: Final = 14
CLIENTS: Final = 8
SIZES: Final = (1, 40_000, 700_000, 2_500_000, 20_000_000)

RECORDER: Final = """
name: recorder
event: APIGW.OnFileUploaded
retry: {attempts: 50, backoff: 0.05, max_backoff: 0.2}
script: |
  async def recorder(event, handle):
      with open("LOG", "a") as log:
          log.write(f"{event['path']} {event['upload_id']} {event['id']}\\n")
"""

TUS: Final = ("Tus-Resumable: 1.0.0", "Content-Type: application/offset+octet-stream")
DRAFT: Final = ("Content-Type: application/partial-upload",)


class Broken(Exception):
    """The connection broke, or the gateway asks to come again."""


@dataclass
class Storm:
    """The gateway, which is replaced after each kill, and what went wrong."""

    random: random.Random
    gateway: GatewayProcess | None = None
    up: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False
    uploads: int = 0
    requests: int = 0
    cuts: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    """The ids of uploads of which a client was told."""

    async def ask(
        self, method: str, target: str, *lines: str, body: bytes = b"", cut: int | None = None
    ) -> RawResponse:
        """Send a request, or only so many bytes of its body. Raises `Broken`."""
        await self.up.wait()
        assert self.gateway is not None
        self.requests += 1
        try:
            async with raw_connection(self.gateway) as connection:
                length = (f"Content-Length: {len(body)}",) if method != "HEAD" else ()
                await connection.send(request_head(method, target, *length, *lines) + body[:cut])
                if cut is not None:
                    self.cuts += 1
                    if self.random.random() < 0.5:
                        await asyncio.sleep(self.random.uniform(0, 0.05))  # so that some of it is read
                    raise Broken
                answer = await connection.answer(head=method == "HEAD")
        except TimeoutError:  # an OSError: a gateway that hangs is no broken connection
            raise
        except (OSError, asyncio.IncompleteReadError) as error:
            raise Broken from error
        if answer.status in {423, 503}:
            raise Broken
        return answer


class Client:
    """Uploads one file after the other: by the draft and tus in turns, or by ranges."""

    def __init__(self, storm: Storm, number: int) -> None:
        self.storm = storm
        self.number = number
        self.random = storm.random
        self.told = 0
        self.body = b""

    async def run(self) -> None:
        number = 0
        while not self.storm.over:
            number += 1
            name = f"{self.number}-{number}"
            self.body, self.told = body_of(name, self.random.choice(SIZES)), 0
            send = self.send_by_ranges if self.number % 3 == 0 else self.send_by_resource
            await send(f"/upload/{name}", name)
            self.storm.files[name] = self.body
            self.storm.uploads += 1

    def see(self, answer: RawResponse) -> int:
        """Take note of an offset that is told: it never falls."""
        offset = int(answer.headers["Upload-Offset"])
        assert offset >= self.told, f"{offset} after {self.told}"
        assert offset <= len(self.body)
        self.told = offset
        return offset

    def cut(self, size: int) -> int | None:
        return self.random.randrange(size + 1) if self.random.random() < 0.35 else None

    async def send_by_resource(self, target: str, _: str) -> None:
        resource = await self.until_done(lambda: self.create(target))
        while not await self.until_done(lambda: self.go_on(resource)):
            pass

    async def until_done(self, step: Callable[[], Awaitable[T]]) -> T:
        """Repeat a step until its connection does not break."""
        while True:
            with contextlib.suppress(Broken):
                return await step()
            await asyncio.sleep(0.01)

    async def create(self, target: str) -> str:
        length = f"Upload-Length: {len(self.body)}"
        if self.random.random() < 0.5:
            answer = await self.storm.ask("POST", target, "Tus-Resumable: 1.0.0", length)
        else:
            answer = await self.storm.ask("POST", target, "Upload-Complete: ?0", length)
        assert answer.status == 201, answer
        resource = target_of(answer.headers["Location"])
        self.storm.known.add(resource.partition("?upload=")[2].partition(".")[0])
        return resource

    async def go_on(self, resource: str) -> bool:
        """Look, and append some bytes; tell whether the file is complete."""
        head = await self.storm.ask("HEAD", resource)
        assert head.status == 204, head
        offset = self.see(head)
        if head.headers["Upload-Complete"] == "?1":
            assert offset == len(self.body)
            return True
        rest = len(self.body) - offset
        size = rest if self.random.random() < 0.4 else self.random.randrange(rest + 1)
        piece, ends = self.body[offset : offset + size], size == rest
        if self.random.random() < 0.5 and size:
            lines = (*TUS, f"Upload-Offset: {offset}")
        else:
            lines = (*DRAFT, f"Upload-Offset: {offset}", f"Upload-Complete: ?{int(ends)}")
        twice = self.storm.ask("PATCH", resource, *lines, body=piece, cut=self.cut(size))
        if self.random.random() < 0.1:  # a client that comes again while its older request is at work
            both = asyncio.gather(twice, self.look(resource), return_exceptions=True)
            for error in await both:
                if isinstance(error, BaseException) and not isinstance(error, Broken):
                    raise error
            return False
        answer = await twice
        assert answer.status in {200, 201, 204, 409}, answer
        self.see(answer)
        return ends and answer.status in {200, 201, 204}

    async def look(self, resource: str) -> None:
        answer = await self.storm.ask("HEAD", resource)
        assert answer.status == 204, answer
        self.see(answer)

    async def send_by_ranges(self, target: str, name: str) -> None:
        resource = f"{target}?resume={hashlib.sha256(name.encode()).hexdigest()[:32]}"
        while not await self.until_done(lambda: self.put_range(resource)):
            pass

    async def put_range(self, resource: str) -> bool:
        head = await self.storm.ask("HEAD", resource)
        size, offset = len(self.body), 0
        if head.headers.get("Upload-Complete") == "?1":
            return True
        if "Upload-Offset" in head.headers:
            offset = self.see(head)
        else:
            assert self.told == 0, f"nothing after {self.told}: {head}"
        line = f"Content-Range: bytes {offset}-{size - 1}/{size}"
        body = self.body[offset:]
        answer = await self.storm.ask("PUT", resource, line, body=body, cut=self.cut(len(body)))
        assert answer.status in {200, 201, 409}, answer
        return answer.status != 409


async def kill_repeatedly(
    storm: Storm, start: StartProcess, flags: tuple[str, ...], processes: int
) -> None:
    for number in range(KILLS):
        storm.gateway = await asyncio.to_thread(start, *flags, "--processes", str(processes))
        storm.up.set()
        await asyncio.sleep(storm.random.uniform(0.3, 1.5))  # the moment of the kill is the test
        if processes > 1 and number % 2:
            slot = storm.gateway.directory / ".gateway" / "slots" / str(number % processes)
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(slot.read_text()), signal.SIGKILL)
            await asyncio.sleep(storm.random.uniform(0.3, 1.0))
        storm.up.clear()
        storm.gateway.kill()
    storm.gateway = await asyncio.to_thread(start, *flags, "--processes", str(processes))
    storm.over = True
    storm.up.set()


@pytest.mark.parametrize("processes", [1, 3])
async def test_no_offset_falls_and_every_file_is_whole_in_a_storm(
    gateway_process: StartProcess, tmp_path: Path, processes: int
) -> None:
    log = tmp_path / "events.log"
    plugins = write_plugin(tmp_path / "plugins", RECORDER.replace("LOG", str(log)))
    flags = ("--plugins", str(plugins))
    seed = time.time_ns()
    storm = Storm(random.Random(seed))
    clients = [asyncio.create_task(Client(storm, number).run()) for number in range(CLIENTS)]
    await kill_repeatedly(storm, gateway_process, flags, processes)
    async with asyncio.timeout(TIMEOUT * 4):
        await asyncio.gather(*clients)
    assert storm.gateway is not None
    await wait_settled(storm.gateway)
    print(f"seed {seed}: {storm.uploads} uploads, {storm.requests} requests, {storm.cuts} cuts")
    assert storm.uploads > KILLS
    assert storm.cuts

    data = tmp_path / "data"
    assert files_below(data / "upload") == storm.files
    events: dict[str, set[str]] = defaultdict(set)
    uploads: dict[str, set[str]] = defaultdict(set)
    for line in complete_lines(log):
        path, upload_id, event_id = line.split()
        events[upload_id].add(event_id)
        uploads[path.rpartition("/")[2]].add(upload_id)
    assert all(len(ids) == 1 for ids in events.values())
    assert uploads.keys() == storm.files.keys()
    # A whole body by ranges may be stored although its client has gone, and comes again.
    twice = [name for name, ids in uploads.items() if len(ids) > 1]
    assert [name for name in twice if int(name.partition("-")[0]) % 3] == []
    assert leftovers(data) == []
    left = {name.partition(".")[0] for name in os.listdir(data / ".gateway/partials")}
    # A kill may come between a creation and its answer: that upload waits for a client until it expires.
    assert not left & storm.known
