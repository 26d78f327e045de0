"""A handler of OnFileReceived that does what the header `X-Act` of the upload says.

And every way to upload a file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from gateway.domain.model import RECEIVED
from gateway.server.app import Gateway
from tests.support.harness import curl, files_below, leftovers, put, raw_connection, request_head
from tests.support.recorders import write_handler
from tests.support.resumable import append, request
from tests.support.tus import tus

LARGE = os.urandom(9 << 20)
"""More than what the socket receive path takes from 8 MiB on."""

_SCRIPT = """
import hashlib, pathlib
async with files.open(event) as file:
    content = await file.read()
assert len(content) == event["bytes"]
if event["filepath"] is not None:
    assert pathlib.Path(event["filepath"]).read_bytes() == content
act, gate = event["headers"].get("X-Act", ""), pathlib.Path("{gate}")
if act == "wait":
    gate.with_suffix(".begun").touch()
    while not gate.exists():
        await asyncio.sleep(0.01)
    act = gate.read_text()
if act == "refuse":
    await handle.terminate(422, {{"virus": "EICAR"}})
if act == "raise":
    1 / 0
if act == "hang":
    await asyncio.Event().wait()
if act.startswith("path "):
    event["path"] = act[5:]
event["metadata"]["Judged-By"] = "judge"
handle.result({{"size": len(content), "sha": hashlib.sha256(content).hexdigest()}})
"""


class Judge:
    """The handler `judge` in `folder`: it accepts, or does what `X-Act` says.

    With `wait` it waits until `decide` tells it what to do.
    """

    def __init__(self, folder: Path, more: str = "timeout: 3\n") -> None:
        self._gate = folder.parent / "gate"
        script = _SCRIPT.format(gate=self._gate)
        self.plugins = write_handler(folder, script, name="judge", event=RECEIVED, more=more)

    def has_begun(self) -> bool:
        """Whether the handler waits."""
        return self._gate.with_suffix(".begun").exists()

    def decide(self, act: str = "") -> None:
        """Let it go on."""
        aside = self._gate.with_suffix(".new")
        aside.write_text(act)
        aside.rename(self._gate)


def result_of(body: bytes) -> dict[str, Any]:
    """Return what the handler leaves for the client of a body that it accepts."""
    return {"size": len(body), "sha": hashlib.sha256(body).hexdigest()}


def is_clean(data: Path) -> bool:
    """Tell whether nothing of any upload is left below a directory, visible or private."""
    partials = [name for name in os.listdir(data / ".gateway/partials") if "-" in name]
    return files_below(data / "upload") == {} and leftovers(data) == [] and not partials


Send = Callable[..., Awaitable[tuple[int, bytes, Any]]]
"""Uploads to a path below /upload/, with further header lines; returns the status, the body that was
sent, and what was told of it."""


async def small(gateway: Gateway, name: str, *lines: str) -> tuple[int, bytes, Any]:
    """A body that comes with its head."""
    answer = await put(gateway, f"/upload/{name}", b"small", *lines)
    return answer.status, b"small", answer.json


async def large(gateway: Gateway, name: str, *lines: str) -> tuple[int, bytes, Any]:
    """A body that a thread reads from the socket."""
    answer = await put(gateway, f"/upload/{name}", LARGE, *lines)
    return answer.status, LARGE, answer.json


async def chunked(gateway: Gateway, name: str, *lines: str) -> tuple[int, bytes, Any]:
    """A body without a length."""
    body, fields = os.urandom(300_000), [part for line in lines for part in ("-H", line)]
    answer = await curl("-T", "-", *fields, f"{gateway.url}/upload/{name}", stdin=body)
    return answer.status, body, json.loads(answer.body)


async def expecting(gateway: Gateway, name: str, *lines: str) -> tuple[int, bytes, Any]:
    """A client that waits for 100 Continue."""
    async with raw_connection(gateway) as connection:
        waiting = ("Content-Length: 5", "Expect: 100-continue")
        await connection.send(request_head("PUT", f"/upload/{name}", *waiting, *lines))
        assert (await connection.head()).status == 100
        await connection.send(b"later")
        answer = await connection.answer()
        return answer.status, b"later", answer.json


async def form(gateway: Gateway, name: str, *lines: str) -> tuple[int, bytes, Any]:
    """The only file of a form."""
    body, fields = b"form" * 50_000, [part for line in lines for part in ("-H", line)]
    file = f"file=@-;filename={name}"
    answer = await curl("-F", file, *fields, f"{gateway.url}/upload/", stdin=body)
    [told] = json.loads(answer.body)["uploads"]
    assert told.pop("status") == answer.status
    del told["filename"]
    return answer.status, body, told


async def by_draft(gateway: Gateway, name: str, *lines: str) -> tuple[int, bytes, Any]:
    """Two requests of the IETF draft."""
    body, target = os.urandom(200_000), f"/upload/{name}"
    first = await request(gateway, "POST", target, "Upload-Complete: ?0", *lines, body=body[:100_000])
    answer = await append(gateway, first.resource, 100_000, body[100_000:], end=True)
    assert answer.complete == "?1"
    return answer.status, body, json.loads(answer.final.body)


async def by_range(gateway: Gateway, name: str, *lines: str) -> tuple[int, bytes, Any]:
    """A PUT that could go on after a break."""
    target, field = f"/upload/{name}?resume=0123456789abcdef", f"bytes 0-{len(LARGE) - 1}/{len(LARGE)}"
    answer = await put(gateway, target, LARGE, f"Content-Range: {field}", *lines)
    return answer.status, LARGE, answer.json


async def by_tus(gateway: Gateway, name: str, *lines: str) -> tuple[int, bytes, Any]:
    """A creation of tus with the whole body: 201, as tus has no 202."""
    answer = await tus(gateway, "POST", f"/upload/{name}", "Upload-Length: 5", *lines, body=b"tus 1")
    return answer.status, b"tus 1", answer.json


SENDERS: list[Send] = [small, large, chunked, expecting, form, by_draft, by_range, by_tus]
