"""Loads of resumable uploads: a client of the tus protocol creates an upload and appends pieces."""

from __future__ import annotations

import http.client
import mmap
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from bench.contestants import Contestant
from bench.load import LIMIT
from bench.samples import BenchError, Sample
from bench.sources import part_of, same

TUS = {"Tus-Resumable": "1.0.0"}


@dataclass(frozen=True)
class Appends:
    """One upload of `source` in appends of `piece` bytes, each sent when the one before is answered.

    `counts` tells what the rate counts: the bytes, or the appends.
    """

    source: Path
    piece: int
    counts: str = "bytes"
    large = True

    def run(self, contestant: Contestant, turn: str) -> Sample:
        with self.source.open("rb") as file:
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        started = time.perf_counter()
        times = _upload(contestant, f"{turn}0", content, self.piece)
        seconds = time.perf_counter() - started
        amount = len(content) if self.counts == "bytes" else len(times)
        milliseconds = sorted(one * 1000 for one in times)
        last = milliseconds[min(len(milliseconds) * 99 // 100, len(milliseconds) - 1)]
        return Sample(seconds, amount, statistics.median(milliseconds), last)

    def check(self, contestant: Contestant, turn: str, sample: Sample) -> None:
        landed = contestant.landed / f"{turn}0"
        if not landed.exists() or not same(self.source, landed):
            raise BenchError(f"{landed.name} does not hold the bytes that were sent")

    def shorter(self) -> Self:
        return replace(self, source=part_of(self.source))


def _upload(contestant: Contestant, name: str, content: memoryview, piece: int) -> list[float]:
    """Upload `content`; return the seconds that each append took."""
    connection = http.client.HTTPConnection("127.0.0.1", contestant.port, timeout=LIMIT)
    path = contestant.prefix.rstrip("/") if contestant.creates else f"{contestant.prefix}{name}"
    told = {**TUS, "Upload-Length": str(len(content)), "Content-Length": "0", "X-Name": name}
    location = urlsplit(_ask(connection, "POST", path, told)["Location"])
    target = location.path + (f"?{location.query}" if location.query else "")
    times = []
    for offset in range(0, len(content), piece):
        headers = {
            **TUS,
            "Content-Type": "application/offset+octet-stream",
            "Upload-Offset": str(offset),
        }
        started = time.perf_counter()
        _ask(connection, "PATCH", target, headers, content[offset : offset + piece])
        times.append(time.perf_counter() - started)
    connection.close()
    return times


def _ask(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    headers: dict[str, str],
    body: memoryview | None = None,
) -> http.client.HTTPMessage:
    connection.request(method, target, body, headers)
    response = connection.getresponse()
    text = response.read()
    if response.status not in {201, 204}:
        raise BenchError(f"{method} was answered {response.status}: {text[-300:]!r}")
    return response.headers
