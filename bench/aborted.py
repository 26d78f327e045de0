"""Requests whose clients disconnect before the end, at every endpoint that reads or writes bodies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MIB: Final = 1 << 20
LARGE_ANSWER: Final = 8 * MIB
STORED: Final = "/upload/folder/stored"
"""A file to download; the flags of the gateway have to be those of `FLAGS`."""

FLAGS: Final = ("--auth", "none", "--downloads", "--log-level", "warning")

_PLUGINS: Final = """\
- name: checked
  upstreams: []
  proxy: {{path: /checked, authorization: {{auth_mode: none}}}}
  spec: [{{method: POST, schema: {{request: {{body: {{type: object}}}}}}}}]
- name: read
  upstreams: []
  proxy: {{path: /read, authorization: {{auth_mode: none}}}}
  limits: {{max_body: 16777216}}
  request_script: |
    return {{"bytes": len(request.body)}}
- name: large
  upstreams: []
  proxy: {{path: /large, authorization: {{auth_mode: none}}}}
  request_script: |
    return b"x" * {large}
- name: proxied
  upstreams: ["{upstream}"]
  proxy: {{path: "/proxied/{{rest:path}}", authorization: {{auth_mode: none}}}}
- name: rewritten
  upstreams: ["{upstream}"]
  proxy: {{path: "/rewritten/{{rest:path}}", authorization: {{auth_mode: none}}}}
  response_script: |
    return response.body
"""


@dataclass(frozen=True)
class AbortedRequest:
    """A request, and how its client ends it.

    It disconnects when all of `data` is sent and `read_bytes` of the answer have come.
    """

    name: str
    data: bytes
    read_bytes: int = 0


def aborted_bodies(size: int = MIB) -> list[AbortedRequest]:
    """Return requests with bodies of about `size` bytes that never end well."""
    part = b"a" * (size - 100)
    broken = b"%x\r\n%s\r\nZZ\r\n" % (len(part), part)
    return [
        AbortedRequest("upload with a length", _head("PUT", "/upload/a", size) + part),
        AbortedRequest("large upload with a length", _head("PUT", "/upload/a", 20 * size) + part),
        AbortedRequest("chunked upload", _head("PUT", "/upload/a") + broken[:-4]),
        AbortedRequest("malformed chunk", _head("PUT", "/upload/a") + broken, 12),
        AbortedRequest("form cut in a file", _form_head(size) + part),
        AbortedRequest("form that is not well-formed", _form_head(size) + part + b"\r\n--b?!", 12),
        AbortedRequest("route with a schema", _head("POST", "/checked", size) + part),
        AbortedRequest("route with a malformed chunk", _head("POST", "/checked") + broken, 12),
        AbortedRequest("script that reads the body", _head("POST", "/read", size) + part),
        AbortedRequest("proxied body", _head("POST", "/proxied/x", size) + part),
        AbortedRequest("notification", _head("POST", "/-/notifications", size) + part),
    ]


def aborted_answers() -> list[AbortedRequest]:
    """Return requests whose answers have 8 MiB, which their clients do not read."""
    targets = {
        "script answer": "/large",
        "proxied answer": "/proxied/large",
        "rewritten answer": "/rewritten/large",
        "download": STORED,
        "archive": "/upload/folder/?format=zip",
    }
    return [AbortedRequest(name, _head("GET", target, 0), 100) for name, target in targets.items()]


def _form_head(length: int) -> bytes:
    """Return the head of a form of about `length` bytes in a folder, and those of its two files."""
    lines = f"POST /upload/forms/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length + 400}\r\n"
    lines += "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    file = '--b\r\nContent-Disposition: form-data; name="f"; filename="{}"\r\n\r\n'
    return f"{lines}{file.format('whole')}x\r\n{file.format('cut')}".encode()


def _head(method: str, target: str, length: int | None = None) -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n".encode()


async def send_and_disconnect(address: tuple[str, int], request: AbortedRequest) -> None:
    """Send a request of this module and disconnect, whatever the gateway does meanwhile."""
    reader, writer = await asyncio.open_connection(*address, limit=4096)
    try:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            writer.write(request.data)
            await writer.drain()
            await reader.readexactly(request.read_bytes)
    finally:
        writer.transport.abort()


async def store_file(address: tuple[str, int], target: str = STORED, size: int = LARGE_ANSWER) -> int:
    """Upload a file of zeros; return the status."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(_head("PUT", target, size) + bytes(size))
        return int((await reader.readline()).split()[1])
    finally:
        writer.close()


def write_plugins(folder: Path, upstream: str) -> Path:
    """Write the plugins that the requests need; return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    text = _PLUGINS.format(upstream=upstream, large=LARGE_ANSWER)
    (folder / "aborted.yaml").write_text(text, encoding="utf-8")
    return folder


@contextlib.asynccontextmanager
async def upstream_server() -> AsyncIterator[str]:
    """Serve as the upstream of the routes; yield its HOST:PORT. It reads a body, then answers 8 MiB."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = head.partition(b"content-length:")[2].partition(b"\r\n")[0].strip()
            await reader.readexactly(int(length or 0))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE_ANSWER)
            for _ in range(LARGE_ANSWER // MIB):
                writer.write(b"x" * MIB)
                await writer.drain()
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 16)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"
