"""Plugin clamav: clamd scans a private file, and what it says becomes a verdict.

The file is sent in chunks by clamd's command INSTREAM (clamd(8)): never whole in memory, and clamd needs
no access to it. clamd says `OK` of what it does not read, so that what it may leave out is unscannable.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, Self

from gateway.domain.units import parse_duration, parse_size

CHUNK_BYTES: Final = 256 * 1024
"""Bytes that are sent at a time."""

CONNECT_TIMEOUT: Final = 10.0
"""Seconds to connect to clamd."""

MAX_BYTES: Final = 100 << 20
"""What clamd reads of a file by default (clamd.conf(5), MaxFileSize)."""

MAX_REPLY_BYTES: Final = 4096

SOCKET: Final = "/run/clamav/clamd.ctl"
PORT: Final = 3310

UNSCANNABLE: Final = ("Heuristics.Encrypted.", "Heuristics.Limits.Exceeded")
"""Beginnings of what clamd reports of files that it could not read (AlertEncrypted, AlertExceedsMax)."""

_TOO_LARGE: Final = "size limit exceeded"
_ENDS: Final = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN})

log = logging.getLogger("gateway.plugin.clamScan")


class ScannerUnavailableError(Exception):
    """clamd cannot be reached, does not answer in time, or failed itself."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a file: `clean`, `infected`, `unscannable` or `unscanned`.

    `result` is for the client; `status` and `refusal` are those of a refusal, None where it is accepted.
    """

    outcome: Literal["clean", "infected", "unscannable", "unscanned"]
    result: Mapping[str, Any]
    status: int = 200
    refusal: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ScanSettings:
    """The config `clamav`; each field is a key of it. Sizes in bytes, times in seconds."""

    socket: str | None = None
    host: str | None = None
    port: int = PORT
    scanner_unavailable: str = "refuse"
    unscannable: str = "refuse"
    max_bytes: int = MAX_BYTES
    timeout: float = 100.0

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """Read a config. Raises `ValueError` that names the key that is wrong."""
        names = [field.name for field in fields(cls)]
        for key in config:
            if key not in names:
                raise ValueError(
                    f"config clamav: there is no key {key}; the keys are {', '.join(names)}"
                )
        if config.get("socket") and config.get("host"):
            raise ValueError("config clamav: socket and host exclude each other")
        for key, word in (("scanner_unavailable", "hold"), ("unscannable", "mark")):
            if config.get(key, word) not in {"refuse", word}:
                raise ValueError(f"config clamav: {key} is refuse or {word}")
        numbers = {
            "port": _number("port", config.get("port", PORT), int),
            "max_bytes": _number("max_bytes", config.get("max_bytes", MAX_BYTES), parse_size),
            "timeout": _number("timeout", config.get("timeout", 100), parse_duration),
        }
        return cls(**{**config, **numbers})


def _number(key: str, value: object, parse: Any) -> Any:
    try:
        number = parse(str(value))
    except ValueError:
        number = 0
    if number <= 0:
        raise ValueError(f"config clamav: {key} is not valid")
    return number


async def scan(event: Mapping[str, Any], files: Any, config: Mapping[str, Any]) -> Verdict:
    """Scan the private file of an `APIGW.OnFileReceived` event.

    Raises `ScannerUnavailableError` where the config holds a file that cannot be scanned now,
    `ValueError` for a bad config.
    """
    settings = ScanSettings.of(config)
    size = int(event["bytes"])
    if size > settings.max_bytes:
        reason = f"the file has {size} bytes, of which {settings.max_bytes} are scanned"
        return _unscannable(settings, reason)
    try:
        async with asyncio.timeout(settings.timeout), files.open(event) as file:
            reply = await _instream(settings, _chunks(file))
    except TimeoutError:
        return _unavailable(settings, f"clamd did not answer in {settings.timeout:g} s")
    except ScannerUnavailableError as error:
        return _unavailable(settings, str(error))
    return _verdict(settings, reply)


def _verdict(settings: ScanSettings, reply: str) -> Verdict:
    """Return what a reply of clamd means: `stream: OK`, `stream: NAME FOUND` or `... ERROR`."""
    text = reply.removeprefix("stream: ")
    if text == "OK":
        return Verdict("clean", {"outcome": "clean"})
    name = text.removesuffix(" FOUND")
    if name != text and name.startswith(UNSCANNABLE):
        return _unscannable(settings, f"clamd reports {name}")
    if name != text:
        log.warning("clamd found %s: the file is refused", name)
        refusal = {"error": "infected", "signature": name, "message": f"the file is infected: {name}"}
        return Verdict("infected", {"outcome": "infected", "signature": name}, 422, refusal)
    if _TOO_LARGE in text:
        return _unscannable(settings, "the file is larger than what clamd scans")
    return _unavailable(settings, f"clamd replied {text!r}")


def _unscannable(settings: ScanSettings, reason: str) -> Verdict:
    result = {"outcome": "unscannable", "reason": reason}
    if settings.unscannable == "mark":
        return Verdict("unscannable", result)
    return Verdict("unscannable", result, 422, {"error": "unscannable", "message": reason})


def _unavailable(settings: ScanSettings, reason: str) -> Verdict:
    if settings.scanner_unavailable == "hold":
        raise ScannerUnavailableError(reason)
    log.error("a file is refused, because it cannot be scanned: %s", reason)
    message = "the file cannot be scanned now: try again later"
    refusal = {"error": "scanner_unavailable", "message": message}
    return Verdict("unscanned", {"outcome": "unscanned"}, 503, refusal)


async def _chunks(file: Any) -> AsyncIterator[bytes]:
    while chunk := await file.read(CHUNK_BYTES):
        yield chunk


async def _instream(settings: ScanSettings, chunks: AsyncIterator[bytes]) -> str:
    """Send a file by INSTREAM; return the reply. Raises `ScannerUnavailableError`.

    A clamd that has seen enough replies, closes, and reads no more: the reply is read all the same.
    """
    with contextlib.closing(await _connected(settings)) as connection:
        is_open = await _sent(connection, b"zINSTREAM\0")
        while is_open and (chunk := await anext(chunks, b"")):
            is_open = await _sent(connection, len(chunk).to_bytes(4, "big") + chunk)
        if is_open:
            await _sent(connection, bytes(4))
        return await _reply(connection)


async def _sent(connection: socket.socket, content: bytes) -> bool:
    """Send something; return False where clamd reads no more. Raises `ScannerUnavailableError`."""
    try:
        await asyncio.get_running_loop().sock_sendall(connection, content)
    except OSError as error:
        if error.errno in _ENDS:
            return False
        raise ScannerUnavailableError(f"clamd cannot be reached: {error!r}") from error
    return True


async def _reply(connection: socket.socket) -> str:
    loop, reply = asyncio.get_running_loop(), bytearray()
    with contextlib.suppress(OSError):
        while received := await loop.sock_recv(connection, MAX_REPLY_BYTES):
            reply += received
            if reply.endswith(b"\0"):
                return reply[:-1].decode("utf-8", "replace").strip()
            if len(reply) > MAX_REPLY_BYTES:
                break
    raise ScannerUnavailableError("clamd closed the connection without a reply")


async def _connected(settings: ScanSettings) -> socket.socket:
    """Return a connection to clamd. Raises `ScannerUnavailableError`."""
    failure: Exception = OSError("it has no address")
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            for family, address in await _addresses(settings):
                connection = socket.socket(family, socket.SOCK_STREAM)
                try:
                    connection.setblocking(False)
                    await asyncio.get_running_loop().sock_connect(connection, address)
                except OSError as error:
                    connection.close()
                    failure = error
                except BaseException:
                    connection.close()
                    raise
                else:
                    return connection
    except (OSError, TimeoutError) as error:
        failure = error
    raise ScannerUnavailableError(f"clamd cannot be reached: {failure!r}") from failure


async def _addresses(settings: ScanSettings) -> list[tuple[int, Any]]:
    if settings.host is None:
        return [(socket.AF_UNIX, settings.socket or SOCKET)]
    loop, host = asyncio.get_running_loop(), settings.host
    found = await loop.getaddrinfo(host, settings.port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]
