"""The short path and the ordinary one treat an upload alike: answers, files, counts and log lines."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import re
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from gateway.auth.tokens import token_digest
from gateway.endpoints.short_path import ShortExchange
from gateway.server.app import Gateway, running_gateway
from gateway.server.resources import open_resources
from gateway.settings import load
from tests.conftest import StartGateway
from tests.integration.signed_urls.test_signed_uploads import sign
from tests.support.harness import (
    RawConnection,
    files_below,
    get,
    leftovers,
    raw_connection,
    request_head,
    wait_until,
)
from tests.support.recorders import captured_log, write_handler

MASKS = (
    (rb"[0-9A-HJKMNP-TV-Z]{26}-\d+", b"ID"),
    (rb"X-Request-Id: [0-9a-f]{16}", b"X-Request-Id: R"),
    (rb"Date: [^\r]*", b"Date: D"),
    (rb'"url": "http://127.0.0.1:\d{5}/', b'"url": "http://H/'),
)
"""What differs between two requests of one path too."""

COUNTED = re.compile(r"^(gateway_(?:uploads|upload_bytes|requests|refused_bytes)_total\S* \S+)$", re.M)


@dataclass
class Case:
    """Uploads on one connection. `taken` of them are served by the short path, where it is on."""

    uploads: tuple[tuple[str, ...], ...] = (("/upload/x",),)
    body: bytes = b"hello"
    taken: int = 1
    settings: dict[str, object] = field(default_factory=dict)
    script: str | None = None
    more: str = ""
    files: tuple[str, ...] = ()
    faults: Mapping[str, Exception] = field(default_factory=dict)
    signed: dict[str, Any] | None = None


def hook(script: str, **named: Any) -> Case:
    return Case(script=script, **named)


def with_lines(*lines: str, taken: int = 1, **named: Any) -> Case:
    return Case((("/upload/x", *lines),), taken=taken, **named)


TOKENS: Final[dict[str, object]] = {"auth": "token", "tokens": [f"alice:{token_digest('secret-alice')}"]}

CASES = {
    "a new file, and then another content": Case((("/upload/x",), ("/upload/x",)), taken=2),
    "an empty file": Case(body=b""),
    "a digest of the setting": Case(settings={"digest": "sha256"}),
    "a large file": Case(body=b"x" * 200_000, taken=0),
    "a file in new folders": Case((("/upload/a/b/c/x",),)),
    "too many new folders": Case((("/upload/1/2/3/x",),), settings={"max_new_folders": "1"}),
    "a percent-encoded name": Case((("/upload/caf%C3%A9",),)),
    "a bad path": Case((("/upload/a/%2e%2e/x",),), taken=0),
    "a protected place": Case((("/upload/plugins/x",),)),
    "a name that is a folder": Case((("/upload/old",),), files=("old/x",)),
    "a folder that is a file": Case((("/upload/old/x",),), files=("old",)),
    "a taken name, rejected": Case(
        (("/upload/old",),), settings={"on_conflict": "reject"}, files=("old",)
    ),
    "a taken name, renamed": Case(
        (("/upload/old",), ("/upload/old",)), taken=2, settings={"on_conflict": "rename"}, files=("old",)
    ),
    "a file that must be new": with_lines("If-None-Match: *", files=("x",)),
    "a file that must exist": with_lines("If-Match: *", taken=0),
    "too large a body": Case(settings={"max_bytes": "4"}, taken=0),
    "no space": Case(settings={"min_free_bytes": str(1 << 60)}),
    "a media type": with_lines("Content-Type: text/plain; charset=utf-8"),
    "a form": with_lines("Content-Type: multipart/form-data; boundary=x", taken=0),
    "metadata": with_lines("X-Amz-Meta-Title: Grüße", "x-amz-meta-user: 7"),
    "bad metadata": with_lines("X-Amz-Meta-a_b: 1", taken=0),
    "repeated and odd headers": with_lines("X-A: 1", "x-a: 2", "Cookie: s=secret1234", "X-B: \udce9"),
    "a query with a secret": Case((("/upload/x?a=1&token=secret-1234&a=2",),)),
    "a bad query": Case((("/upload/x?a=%ff",),), taken=0),
    "a digest": with_lines("Content-MD5: XUFAKrxLKna5cZ2REBfFkg==", taken=0),
    "a wrong digest": with_lines("Content-MD5: AAAAAAAAAAAAAAAAAAAAAA==", taken=0),
    "the range of the whole file": with_lines("Content-Range: bytes 0-4/5", taken=0),
    "a part of a file": with_lines("Content-Range: bytes 0-4/9", taken=0),
    "no token": Case(settings=TOKENS, taken=0),
    "a wrong token": with_lines("Authorization: Bearer secret-bob", settings=TOKENS, taken=0),
    "a token": with_lines("Authorization: Bearer secret-alice", settings=TOKENS),
    "a token of its own header": with_lines("X-Auth-Token: secret-alice", settings=TOKENS),
    "a forged internal credential": with_lines("X-Gateway-Internal: forged"),
    "a forged signature": Case((("/upload/x?X-Gateway-Signature=00&X-Gateway-Key=1",),), taken=0),
    "a proxy": with_lines("X-Forwarded-For: 203.0.113.9", settings={"auth": "none"}),
    "a believed proxy": with_lines(
        "X-Forwarded-For: 203.0.113.9",
        settings={"auth": "none", "trusted_proxies": ["127.0.0.0/8"]},
    ),
    "a signed URL": Case(signed={}),
    "a signed URL for less": Case(signed={"max_length": 4}, taken=0),
    "a signed URL that replaces nothing": Case(signed={"overwrite": False}, files=("x",)),
    "a signed URL with metadata": Case(signed={"metadata": {"title": "Grüße"}}),
    "a one-time URL": Case((("",), ("",)), signed={"once": True}, taken=0),
    "a journal that cannot be written": Case(
        faults={"gateway.events.outbox.JournalOutbox.record_uploads_now": sqlite3.OperationalError()}
    ),
    "a disk that fails to give the name": Case(
        faults={"gateway.commit.publish.replace": OSError(errno.EIO, "I/O error")}
    ),
    "a disk that fails to sync the folder": Case(
        faults={"gateway.storage.local.directory.OpenDirectory.sync": OSError(errno.EIO, "I/O error")}
    ),
    "a handler that accepts": hook("pass"),
    "a handler that raises with secrets": Case(
        (("/upload/x?token=secret-1234", "Authorization: Bearer secret-5678"),),
        script="raise RuntimeError(event['headers']['Authorization'] + event['params']['token'][0])",
    ),
    "a handler that rewrites the path": hook(
        "event['path'] = '/upload/' + event['upload_id'][-2:] + '/y'"
    ),
    "a handler that waits": hook("await asyncio.sleep(0.01)"),
    "a handler that rewrites to a bad path": hook("event['path'] = '/upload/../x'"),
    "a handler that rewrites to a protected place": hook("event['path'] = '/upload/plugins/x'"),
    "a handler that limits the size": hook("event['max_bytes'] = 4"),
    "a handler that rejects replacements": Case(script="event['on_conflict'] = 'reject'", files=("x",)),
    "a handler that terminates": hook("await handle.terminate(402, {'pay': 'first'})"),
    "a handler that raises": hook("1 / 0"),
    "a handler that raises and may": hook("1 / 0", more="on_error: allow\n"),
    "a handler that takes too long": hook("await asyncio.sleep(60)", more="timeout: 0.05\n"),
    "a handler with an invalid result": hook("event['path'] = 7"),
    "a handler that authorizes in place of tokens": hook("pass", settings=TOKENS),
    "a handler behind the tokens": hook("pass", taken=0, more="authorization: keep\n", settings=TOKENS),
}


@dataclass
class Seen:
    """What a client and an operator see of a case."""

    answers: list[bytes]
    files: dict[str, bytes]
    leftovers: list[str]
    counts: list[str]
    log: list[str]
    taken: int


class Paths:
    """Plays a case on one path, each in a folder of its own."""

    def __init__(self, start: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._start = start
        self._tmp_path = tmp_path
        self._taken = 0
        begin = ShortExchange.begin

        def counted(exchange: ShortExchange) -> None:
            self._taken += 1
            begin(exchange)

        monkeypatch.setattr(ShortExchange, "begin", counted)
        self._monkeypatch = monkeypatch

    async def gateway(self, case: Case, *, short: bool) -> tuple[Gateway, Path]:
        """Start a gateway for a case; return it and the folder of its uploads."""
        data = self._tmp_path / ("short" if short else "ordinary")
        plugins = data / "upload/plugins"
        plugins.mkdir(parents=True)
        for name in case.files:
            (data / "upload" / name).parent.mkdir(exist_ok=True)
            (data / "upload" / name).write_bytes(b"old")
        if case.script is not None:
            write_handler(plugins, case.script, more=case.more)
        settings = {"directory": str(data), "plugins": [str(plugins)], **case.settings}
        return await self._start(short_path=str(short).lower(), **settings), data

    async def play(self, case: Case, *, short: bool) -> Seen:
        self._taken = 0
        gateway, data = await self.gateway(case, short=short)
        with captured_log() as lines, self._monkeypatch.context() as faults:
            for name, error in case.faults.items():
                faults.setattr(name, raising(error))
            answers = await exchanged(gateway, case)
        token = () if "tokens" not in case.settings else ("X-Auth-Token: secret-alice",)
        page = (await get(gateway, "/-/metrics", *token)).body.decode()
        log = [_without_times(line).replace(str(data), "DATA") for line in lines]
        stored = {
            re.sub("[0-9A-HJKMNP-TV-Z]{26}", "ID", name): content
            for name, content in files_below(data / "upload").items()
        }
        return Seen(answers, stored, leftovers(data), COUNTED.findall(page), log, self._taken)


def raising(error: Exception) -> Callable[..., None]:
    def fails(*_: object) -> None:
        raise type(error)(*error.args)  # a new one: each traceback is logged

    return fails


def _without_times(line: dict[str, Any]) -> str:
    kept = {name: value for name, value in line.items() if name not in {"time", "ms"}}
    if "request_id" in kept:
        kept["request_id"] = "R"
    return _masked(json.dumps(kept, sort_keys=True).encode()).decode()


def _masked(text: bytes) -> bytes:
    for pattern, replacement in MASKS:
        text = re.sub(pattern, replacement, text)
    return text


async def exchanged(gateway: Gateway, case: Case) -> list[bytes]:
    """Send the uploads of a case, and a last request that shows whether the connection is open."""
    signed = ""
    if case.signed is not None:
        signed = await sign(gateway, "PUT", "/upload/x", **case.signed)
    async with raw_connection(gateway) as connection:
        answers = []
        for target, *lines in case.uploads:
            head = request_head("PUT", signed or target, f"Content-Length: {len(case.body)}", *lines)
            await connection.send(head + case.body)
            answers.append(_masked(await whole_answer(connection)))
        await connection.send(request_head("GET", "/-/health", "Connection: close"))
        return [*answers, _masked(await connection.closed())]


async def whole_answer(connection: RawConnection) -> bytes:
    """Read one response as it came; nothing where the connection is closed without one."""
    try:
        async with asyncio.timeout(30):
            head = await connection.reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"Content-Length: (\d+)", head)
            return head + await connection.reader.readexactly(int(length[1]) if length else 0)
    except asyncio.IncompleteReadError as error:
        return error.partial


@pytest.fixture
def paths(start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    return Paths(start_gateway, tmp_path, monkeypatch)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_an_upload_is_served_alike_on_both_paths(paths: Paths, case: Case) -> None:
    ordinary, short = await paths.play(case, short=False), await paths.play(case, short=True)
    assert short.answers == ordinary.answers
    assert short.files == ordinary.files
    assert (short.leftovers, ordinary.leftovers) == ([], [])
    assert short.counts == ordinary.counts
    assert short.log == ordinary.log
    assert "secret-" not in "".join(short.log)
    assert (short.taken, ordinary.taken) == (case.taken, 0)


# -- who does not wait for the end

WAITS = "await asyncio.sleep(0.2)"


async def test_a_client_that_leaves_while_a_handler_decides_has_its_whole_file_stored(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(plugins=write_handler(tmp_path / "plugins", WAITS))
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", "/upload/x", "Content-Length: 5") + b"hello")
        await wait_until(lambda: len(gateway.endpoints.inflight))
        connection.reset()
    await wait_until(lambda: not len(gateway.endpoints.inflight))
    assert files_below(tmp_path / "data/upload") == {"x": b"hello"}
    page = (await get(gateway, "/-/metrics")).body.decode()
    assert 'gateway_uploads_total{outcome="stored"} 1.0' in page
    assert 'gateway_requests_total{method="PUT",status="201"} 1.0' in page


@pytest.mark.both_paths
async def test_a_stop_cuts_off_an_upload_whose_handler_does_not_decide(
    tmp_path: Path, short_path: bool
) -> None:
    plugins = write_handler(tmp_path / "plugins", "await asyncio.sleep(60)", more="timeout: 60\n")
    given = {
        "directory": str(tmp_path), "port": "0", "grace": "0", "plugins": plugins,
        "short_path": str(short_path).lower(),
    }  # fmt: skip
    resources = await asyncio.to_thread(open_resources, load(given, {}))
    async with contextlib.AsyncExitStack() as client:
        async with running_gateway(resources) as gateway:
            inflight = gateway.endpoints.inflight
            connection = await client.enter_async_context(raw_connection(gateway))
            await connection.send(request_head("PUT", "/upload/x", "Content-Length: 5") + b"hello")
            upload_id = await wait_until(lambda: next(iter(inflight._active), None))
        assert await connection.closed() == b""
    assert len(inflight) == 0
    described = inflight.describe(upload_id)
    assert described is not None
    assert (described["state"], described["error"]) == ("failed", "stopping")
    assert files_below(tmp_path / "upload") == {}
