"""Loads: curl for large bodies, wrk for small ones, a plain socket for refusals.

A client is cheap and bounded in time, and what it sent is compared with what was stored. Each load is a
class with `run`, which is timed, and `check`, which is not. A server gets a shorter one first, so that
it is warm when it counts.
"""

from __future__ import annotations

import contextlib
import json
import socket
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, Self

from bench.contestants import Contestant, program
from bench.samples import BenchError, Sample
from bench.sources import part_of, random_block, same

LIMIT = 120
"""Seconds after which a client gives up."""

FILE_AGE = 0.2
"""Seconds that a file is unchanged before it is fetched: a server may cache nothing of a newer one."""

WARM_UP_SECONDS = 1
WARM_UP_REFUSALS = 10

Kind = Literal["put", "tus", "get", "json"]
"""What `load.lua` sends."""


class Load(Protocol):
    """What is done to a contestant in one turn; `turn` begins the names of the turn's files."""

    large: bool
    """Whether the files are removed after each turn even on disk."""

    def run(self, contestant: Contestant, turn: str) -> Sample:
        """Run the load. Raises `BenchError` if the contestant refuses it."""

    def check(self, contestant: Contestant, turn: str, sample: Sample) -> None:
        """Compare what was stored. Raises `BenchError` if it differs from what was sent."""

    def shorter(self) -> Self:
        """Return the same load, short: what warms a server up."""


@dataclass(frozen=True)
class Upload:
    """`copies` curls at once, each sending `source`; in chunks of unknown total if `chunked`."""

    source: Path
    copies: int = 1
    chunked: bool = False
    large = True

    def run(self, contestant: Contestant, turn: str) -> Sample:
        words = [program("curl"), "-sS", "--insecure", "--max-time", str(LIMIT), "-w", "\n%{http_code}"]
        words += [
            "-T",
            str(self.source),
            *(("-H", "Transfer-Encoding: chunked") if self.chunked else ()),
        ]
        started = time.perf_counter()
        with contextlib.ExitStack() as stack:
            clients = [
                stack.enter_context(_client([*words, f"{contestant.url}{turn}{number}"]))
                for number in range(self.copies)
            ]
            answers = [client.communicate() for client in clients]
        seconds = time.perf_counter() - started
        for out, err in answers:
            if out.rpartition("\n")[2] not in {"200", "201", "204"}:
                raise BenchError(f"curl was not answered 2xx: {out[-300:]} {err[-300:]}")
        return Sample(seconds, self.source.stat().st_size * self.copies)

    def check(self, contestant: Contestant, turn: str, sample: Sample) -> None:
        for number in range(self.copies):
            landed = contestant.landed / f"{turn}{number}"
            if not landed.exists() or not same(self.source, landed):
                raise BenchError(f"{landed.name} does not hold the bytes that were sent")

    def shorter(self) -> Self:
        return replace(self, source=part_of(self.source))


@contextlib.contextmanager
def _client(words: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Wrk:
    """wrk with one thread and `connections` kept alive, for `seconds`.

    PUTs bodies of `size` bytes to ever new names; `ring` > 0: to so many names, again and again.
    """

    size: int
    connections: int
    seconds: int
    ring: int = 0
    large = False

    def run(self, contestant: Contestant, turn: str) -> Sample:
        return self._wrk(
            contestant, "tus" if contestant.creates else "put", f"{contestant.prefix}{turn}"
        )

    def _wrk(self, contestant: Contestant, kind: Kind, path: str) -> Sample:
        script = str(Path(__file__).with_name("load.lua"))
        words = [program("wrk"), "-t", "1", "-c", str(self.connections), "-d", f"{self.seconds}s"]
        words += ["--timeout", "20s", "-s", script, contestant.url]
        words += ["--", kind, path, str(self.size), str(self.ring)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=LIMIT)
        lines = [line for line in done.stdout.splitlines() if line.startswith('{"requests"')]
        if not lines:
            raise BenchError(f"wrk failed: {done.stdout[-300:]} {done.stderr[-300:]}")
        result = json.loads(lines[0])
        if result["bad_status"] or result["broken"] or not result["requests"]:
            raise BenchError(f"not every request was answered 2xx: {result}")
        return Sample(result["seconds"], result["requests"], result["p50_ms"], result["p99_ms"])

    def check(self, contestant: Contestant, turn: str, sample: Sample) -> None:
        names = [file.name for file in contestant.landed.iterdir() if file.name.startswith(turn)]
        if contestant.creates:
            # A tus server keeps the part of a body whose client left, to be continued.
            names = [n for n in names if (contestant.landed / n).stat().st_size == self.size]
        least = min(sample.amount, self.ring) if self.ring else sample.amount
        # What was on its way when wrk stopped may have landed too.
        if not least <= len(names) <= least + self.connections:
            raise BenchError(f"{len(names)} files for {sample.amount} answers")
        for number, name in enumerate(names):
            self._compare(contestant, name, closely=number % 101 == 0)

    def _compare(self, contestant: Contestant, name: str, *, closely: bool) -> None:
        file = contestant.landed / name
        if file.stat().st_size != self.size:
            raise BenchError(f"{name} has {file.stat().st_size} bytes, {self.size} were sent")
        if closely:
            head = f"{contestant.prefix}{name}\n".encode()
            filler = b"0123456789abcdef" * (self.size // 16)
            if file.read_bytes() != head + filler[len(head) :]:
                raise BenchError(f"{name} does not hold the bytes that were sent")

    def shorter(self) -> Self:
        return replace(self, seconds=WARM_UP_SECONDS)


@dataclass(frozen=True)
class Json(Wrk):
    """wrk that POSTs `size` bytes of JSON to `json/` again and again."""

    def run(self, contestant: Contestant, turn: str) -> Sample:
        return self._wrk(contestant, "json", f"{contestant.prefix}json/")

    def check(self, contestant: Contestant, turn: str, sample: Sample) -> None:
        request = urllib.request.Request(f"{contestant.url}json/", b"{}")
        with urllib.request.urlopen(request, timeout=LIMIT) as answer:
            if len(json.loads(answer.read())["text"]) != 4082:
                raise BenchError("the upstream's answer did not come through")


@dataclass(frozen=True)
class Fetch(Wrk):
    """wrk that GETs one file of `size` bytes again and again."""

    def run(self, contestant: Contestant, turn: str) -> Sample:
        (contestant.landed / turn).write_bytes(random_block()[: self.size])
        time.sleep(FILE_AGE)
        return self._wrk(contestant, "get", f"{contestant.prefix}{turn}")

    def check(self, contestant: Contestant, turn: str, sample: Sample) -> None:
        with urllib.request.urlopen(f"{contestant.url}{turn}", timeout=LIMIT) as answer:
            if answer.read() != (contestant.landed / turn).read_bytes():
                raise BenchError("the bytes that came are not those of the file")


@dataclass(frozen=True)
class Download:
    """curl fetching `source`, whose bytes are compared when it is fetched a second time."""

    source: Path
    large = True

    def run(self, contestant: Contestant, turn: str) -> Sample:
        (contestant.landed / turn).hardlink_to(self.source)
        started = time.perf_counter()
        self._fetch(contestant, turn, "/dev/null")
        return Sample(time.perf_counter() - started, self.source.stat().st_size)

    def check(self, contestant: Contestant, turn: str, sample: Sample) -> None:
        fetched = contestant.folder / "fetched"
        self._fetch(contestant, turn, str(fetched))
        if not same(self.source, fetched):
            raise BenchError("the bytes that came are not those of the file")
        fetched.unlink()

    def shorter(self) -> Self:
        return replace(self, source=part_of(self.source))

    def _fetch(self, contestant: Contestant, turn: str, out: str) -> None:
        words = [program("curl"), "-sS", "--fail", "--max-time", str(LIMIT), "-o", out]
        done = subprocess.run(
            [*words, f"{contestant.url}{turn}"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise BenchError(f"curl did not get the file: {done.stderr[-300:]}")


@dataclass(frozen=True)
class Refusal:
    """Clients with `Expect: 100-continue`, one after the other, that are refused.

    `p50_ms` is from opening the connection to the refusal; `sent` is what curl sends of `source`.
    """

    source: Path
    count: int
    large = False

    def run(self, contestant: Contestant, turn: str) -> Sample:
        started = time.perf_counter()
        times = sorted(self._ask(contestant, f"{turn}{number}") for number in range(self.count))
        seconds = time.perf_counter() - started
        p99 = times[int(len(times) * 0.99)]
        return Sample(seconds, self.count, statistics.median(times), p99, self._sent(contestant, turn))

    def _ask(self, contestant: Contestant, name: str) -> float:
        lines = [
            f"PUT {contestant.prefix}{name} HTTP/1.1",
            "Host: localhost",
            f"Content-Length: {1 << 30}",
        ]
        head = "\r\n".join([*lines, "Expect: 100-continue", "", ""]).encode()
        started = time.perf_counter()
        with socket.create_connection(("127.0.0.1", contestant.port), LIMIT) as client:
            client.sendall(head)
            answer = client.recv(1 << 16)
            seconds = time.perf_counter() - started
        if answer.split()[1:2] not in ([b"401"], [b"403"]):
            raise BenchError(f"not refused: {answer[:300]!r}")
        return seconds * 1000

    def _sent(self, contestant: Contestant, name: str) -> int:
        words = [program("curl"), "-sS", "-o", "/dev/null", "-w", "%{size_upload}"]
        words += ["--expect100-timeout", "30", "--max-time", str(LIMIT)]
        words += ["-T", str(self.source), f"{contestant.url}{name}"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        return int(done.stdout or -1)

    def check(self, contestant: Contestant, turn: str, sample: Sample) -> None:
        if any(contestant.landed.iterdir()):
            raise BenchError("something of a refused body is visible")

    def shorter(self) -> Self:
        return replace(self, count=min(self.count, WARM_UP_REFUSALS))
