"""What each thread of a gateway takes for a request under load, read from the kernel's accounts.

Unlike `layers`, with sockets, a client beside it and cold caches: 1.5 to 2.5 times as much, most with
one connection.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench.contestants import Bare, Contestant, Ours, OursProxy
from bench.load import Fetch, Json, Wrk
from bench.nginx import NginxUpstream
from bench.samples import NotInstalledError, Sample

CONNECTIONS: Final = (1, 16, 64)

MIN_SHOWN: Final = 0.3e-6
"""Seconds for a request below which a thread is left out."""

STARTER: Final = (str(Path(__file__).with_name("thread_names.py")),)


@dataclass(frozen=True)
class Account:
    """What a thread has taken: seconds of the processor, and how often it waited."""

    seconds: float = 0.0
    switches: int = 0

    def __sub__(self, other: Account) -> Account:
        return Account(self.seconds - other.seconds, self.switches - other.switches)

    def __add__(self, other: Account) -> Account:
        return Account(self.seconds + other.seconds, self.switches + other.switches)


def accounts(pid: int) -> dict[tuple[int, str], Account]:
    """Return the account of each thread of a process, by its number and name."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            name = "loop" if int(task.name) == pid else (task / "comm").read_text().strip()
            seconds = int((task / "schedstat").read_text().split()[0]) / 1e9
            status = (task / "status").read_text()
            match = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.MULTILINE)
            found[int(task.name), name.rstrip("_-0123456789")] = Account(
                seconds, int(match[1]) if match else 0
            )
    return found


def by_thread(
    before: Mapping[tuple[int, str], Account], after: Mapping[tuple[int, str], Account]
) -> dict[str, Account]:
    """Return what was taken between two readings, threads of the same name together."""
    taken: dict[str, Account] = {}
    for key, account in after.items():
        taken[key[1]] = taken.get(key[1], Account()) + (account - before.get(key, Account()))
    return taken


def line(title: str, connections: int, sample: Sample, taken: Mapping[str, Account]) -> str:
    """Return a line: the rate, the microseconds of all threads, then of each one with its switches."""
    shown = sorted(taken.items(), key=lambda item: -item[1].seconds)
    threads = ", ".join(
        f"{name} {account.seconds / sample.amount * 1e6:.0f} ({account.switches / sample.amount:.1f})"
        for name, account in shown
        if account.seconds / sample.amount > MIN_SHOWN
    )
    total = sum(account.seconds for account in taken.values()) / sample.amount * 1e6
    rate = sample.amount / sample.seconds
    return f"{title:<22} {connections:>3} {rate:>8.0f} {total:>7.0f}   {threads}"


class NamedGateway(Ours):
    """The gateway with names on its threads."""

    starter = STARTER


class NamedProxy(OursProxy):
    """The same as a proxy."""

    starter = STARTER


@contextlib.contextmanager
def servers(folder: Path) -> Iterator[list[tuple[str, Contestant, Wrk]]]:
    """Start what is measured; a server whose program is missing is left out."""
    put, get = Wrk(4096, 1, 1), Fetch(4096, 1, 1)
    places = iter(range(100))

    def place() -> Path:
        made = folder / str(next(places))
        made.mkdir(parents=True)
        return made

    with ExitStack() as stack:
        listed: list[tuple[str, Contestant, Wrk]] = [
            ("PUT", stack.enter_context(NamedGateway(place(), "none")), put),
            (
                "PUT, OnFileUploading",
                stack.enter_context(NamedGateway(place(), "none", ("uploading",))),
                put,
            ),
            (
                "PUT, both hooks",
                stack.enter_context(NamedGateway(place(), "none", ("uploading", "uploaded"))),
                put,
            ),
            ("GET", stack.enter_context(NamedGateway(place(), "none", flags=("--downloads",))), get),
            ("bare aiohttp: PUT", stack.enter_context(Bare(place())), put),
            ("bare aiohttp: GET", stack.enter_context(Bare(place())), get),
        ]
        try:
            upstream = stack.enter_context(NginxUpstream(place()))
            proxy = stack.enter_context(NamedProxy(place(), upstream))
            listed.insert(4, ("POST to an upstream", proxy, Json(4096, 1, 1)))
        except NotInstalledError as error:
            print(f"nothing is proxied: {error}", file=sys.stderr)
        yield listed


def measure(contestant: Contestant, load: Wrk, turn: str) -> tuple[Sample, dict[str, Account]]:
    """Run a load; return its result, and what the threads of the server took for it."""
    pid, server = contestant.server.pid, contestant.server
    before = accounts(pid)
    sample = load.run(contestant, turn)
    server.settle()
    taken = by_thread(before, accounts(pid))
    for file in contestant.landed.iterdir():
        file.unlink()
    return sample, taken


def play(folder: Path, seconds: int, many: Sequence[int] = CONNECTIONS) -> None:
    """Measure all servers, one after the other, and print a line for each number of connections."""
    print("Microseconds of processor time for a request of 4 KiB under load (waits for a request)\n")
    print(f"{'':<22} {'':>3} {'1/s':>8} {'µs':>7}   threads")
    with servers(folder) as listed:
        for title, contestant, load in listed:
            for number in many:
                sized = replace(load, connections=number, seconds=seconds)
                measure(contestant, sized.shorter(), f"warm-up-{number}-")
                sample, taken = measure(contestant, sized, f"r{number}-")
                print(line(title, number, sample, taken), flush=True)
