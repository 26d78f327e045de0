"""Gateways as processes, raw HTTP connections, curl, and waiting for a gateway."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from gateway.server.app import Gateway
from tests.support.spawner import ForkedProcess, start_executed, start_forked

TIMEOUT = 30.0
"""Seconds in which anything that must happen does."""

KILL_TIMEOUT = 90.0
"""Seconds in which a killed process is gone: the kernel lets it finish what it writes to the disk."""


def write_plugin(folder: Path, text: str, name: str = "plugin.yaml") -> Path:
    """Write a plugin file and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def self_signed_certificate(folder: Path, name: str = "localhost", days: int = 2) -> tuple[str, str]:
    """Make a self-signed certificate that is valid for `days`; return its file and its key's."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}",
         "-days", f"{days}", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    return str(cert), str(key)


def failing_open(name: str) -> Callable[..., int]:
    """Return an `os.open` that fails with EIO for `name`."""
    real = os.open

    def opened(path: Any, *arguments: Any, **named: Any) -> int:
        if path == name:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return real(path, *arguments, **named)

    return opened


# -- a gateway as a process of its own


class GatewayProcess:
    """`gateway serve` in a process, which kills itself at the failpoint `die_at`, if one is named.

    With `forked` it is no child of this process, and its command line is that of the spawner.
    """

    def __init__(
        self, directory: Path, flags: Sequence[str], die_at: str = "", *, forked: bool = True
    ) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.log_path = directory.parent / f"{directory.name}.log"
        self._log = self.log_path.open("ab")
        arguments = [die_at or "never", "serve", "--directory", str(directory), "--port", "0", *flags]
        start = start_forked if forked else start_executed
        self.process: ForkedProcess | subprocess.Popen[bytes] = start(arguments, self._log.fileno())
        self.printed: list[str] = []
        self.url = self._wait_for_url()

    def _wait_for_url(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            text = line.decode().strip()
            self.printed.append(text)
            if text.startswith("listening on "):
                return text.removeprefix("listening on ")
        self.kill()
        raise AssertionError(f"the gateway did not start:\n{self.log()}")

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.rpartition("/")[2].rsplit(":", 1)
        return host, int(port)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(TIMEOUT)

    def kill(self) -> None:
        """SIGKILL, and wait; a second call does nothing."""
        if self.process.poll() is None:
            self.process.kill()
        try:
            self.process.wait(KILL_TIMEOUT)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"killed, and not gone: {_state_of(self.process.pid)}") from error
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()

    def terminate(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def _state_of(pid: int) -> str:
    """Return what the kernel tells of each thread of a process: its state, and where it waits."""
    lines = [f"process {pid}:"]
    for task in sorted(Path(f"/proc/{pid}/task").glob("*")):
        with contextlib.suppress(OSError):
            state = re.findall(r"State:.*", (task / "status").read_text())
            lines.append(f"{task.name} {state} {(task / 'wchan').read_text()}")
    return "\n".join(lines)


# -- HTTP by hand


@dataclass
class RawResponse:
    """A parsed HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class RawConnection:
    """A socket that speaks HTTP as the test wants, right or wrong."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def line(self) -> bytes:
        async with asyncio.timeout(TIMEOUT):
            return await self.reader.readline()

    async def answer(self, *, head: bool = False) -> RawResponse:
        """Read one final answer; interim ones are passed over."""
        async with asyncio.timeout(TIMEOUT):
            while (answer := await self.head()).status < 200:
                pass
            status, headers = answer.status, answer.headers
            length = 0 if head else int(headers.get("Content-Length", 0))
            return RawResponse(status, headers, await self.reader.readexactly(length))

    async def head(self) -> RawResponse:
        """Read the head of one answer, which may be an interim one."""
        async with asyncio.timeout(TIMEOUT):
            block = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = block.decode().strip().split("\r\n")
        return RawResponse(int(first.split()[1]), dict(line.split(": ", 1) for line in lines), b"")

    async def closed(self) -> bytes:
        """Wait for the other side to close; return what it still sent."""
        async with asyncio.timeout(TIMEOUT):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read()
            return b""

    def reset(self) -> None:
        """Close with RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.writer.transport.abort()


class Addressed(Protocol):
    """What listens at an address."""

    @property
    def address(self) -> tuple[str, int]: ...


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@contextlib.asynccontextmanager
async def raw_connection(server: Addressed, source: str = "127.0.0.1") -> AsyncIterator[RawConnection]:
    """Open a raw connection from an address of this machine, with TLS to what has an HTTPS URL.

    A port on which nothing listens any more can be the one that the system gives to the socket itself:
    TCP connects it to itself then, and that is refused.
    """
    host, port = server.address
    secure = _trusting() if getattr(server, "url", "").startswith("https:") else None
    reader, writer = await asyncio.open_connection(
        host, port, limit=1 << 22, local_addr=(source, 0), ssl=secure
    )
    try:
        if writer.get_extra_info("sockname") == writer.get_extra_info("peername"):
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the socket is connected to itself")
        yield RawConnection(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def request_head(method: str, target: str, *lines: str) -> bytes:
    """Return a request head, with a Host."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode(
        "utf-8", "surrogateescape"
    )


async def put(
    gateway: Gateway | GatewayProcess, target: str, body: bytes = b"x", *lines: str
) -> RawResponse:
    """Upload `body` in one go, with extra header lines."""
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", target, f"Content-Length: {len(body)}", *lines) + body)
        return await connection.answer()


async def get(gateway: Gateway | GatewayProcess, target: str, *lines: str) -> RawResponse:
    """Fetch a page."""
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("GET", target, *lines))
        return await connection.answer()


# -- curl


@dataclass
class Curl:
    """How a run of curl ended: its exit code, the status, the body, and the bytes it sent."""

    code: int
    status: int
    body: str
    uploaded: int
    error: str


async def curl(*arguments: str, stdin: bytes | None = None) -> Curl:
    """Run the real curl, bounded in time."""
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "--max-time", "100", "-w", "\n%{http_code} %{size_upload}", *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate(stdin)
    body, _, figures = out.decode(errors="replace").rpartition("\n")
    status, uploaded = figures.split()
    return Curl(process.returncode or 0, int(status), body, int(uploaded), err.decode())


# -- waiting for what the gateway does by itself


async def wait_until(condition: Callable[[], Any], seconds: float = TIMEOUT) -> Any:
    """Poll a function or coroutine function until its result is true; return the result.

    For what only a page, a file or another process shows. Raises `TimeoutError`.
    """
    async with asyncio.timeout(seconds):
        while True:
            result = condition()
            if inspect.isawaitable(result):
                result = await result
            if result:
                return result
            await asyncio.sleep(0.02)


async def wait_port_closed(gateway: GatewayProcess) -> None:
    """Wait until a gateway that was asked to stop accepts no connection."""

    async def closed() -> bool:
        try:
            await get(gateway, "/-/health")
        except (OSError, asyncio.IncompleteReadError):
            return True
        return False

    await wait_until(closed)


async def handlers_done(
    gateway: Gateway | GatewayProcess, upload_id: str, *, state: str = "done"
) -> Any:
    """Follow the status page of an upload until every handler is in `state`; return the story."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        answer = await get(gateway, f"/-/uploads/{upload_id}")
        story = answer.json
        states = {handler["state"] for handler in story.get("handlers", ())}
        if states == {state}:
            return story
        await asyncio.sleep(0.02)  # the page is the only public sign; its end is what is awaited
    raise AssertionError(f"handlers are not {state}: {story}")


def complete_lines(path: Path) -> list[str]:
    """Return the complete lines of a file that is being written; none without a file."""
    text = path.read_text(errors="replace") if path.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()


def files_below(folder: Path) -> dict[str, bytes]:
    """Return every regular file below `folder`, by relative path."""
    files: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                files[str(path.relative_to(folder))] = path.read_bytes()
    return files


def leftovers(directory: Path) -> list[str]:
    """Return the names of bodies that still lie in `incoming/`."""
    return [name for _, _, names in os.walk(directory / ".gateway" / "incoming") for name in names]


async def wait_decided(gateway: Gateway | GatewayProcess, *, seconds: float = TIMEOUT) -> None:
    """Wait until every held upload is published or rejected.

    The folder of held bodies does not tell: while one is being published its body is in `incoming/`.
    """

    async def none_is_held() -> bool:
        lines = (await get(gateway, "/-/metrics")).body.decode().splitlines()
        held = [line for line in lines if line.startswith("gateway_held_uploads")]
        return bool(held) and all(line.endswith(" 0.0") for line in held)

    await wait_until(none_is_held, seconds=seconds)


async def wait_settled(gateway: Gateway | GatewayProcess) -> None:
    """Wait until no delivery is held, waiting or running."""
    deadline = time.monotonic() + TIMEOUT
    unfinished: list[str] = []
    while time.monotonic() < deadline:
        lines = (await get(gateway, "/-/metrics")).body.decode().splitlines()
        depth = [line for line in lines if line.startswith("gateway_deliveries{")]
        unfinished = [line for line in depth if 'state="dead"' not in line]
        if not unfinished:
            return
        await asyncio.sleep(0.02)  # as above
    raise AssertionError(f"not settled: {unfinished}")
