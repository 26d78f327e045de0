"""What each thread of a gateway takes for a request under load, read from the kernel's accounts.

Unlike `layers`, with sockets, a client beside it and cold caches: 1.5 to 2.5 times as much, most with
one connection. `waits` is how often a thread waited for something, for each request.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench.contestants import Bare, Contestant, Ours, OursProxy
from bench.load import Fetch, Json, Wrk
from bench.nginx import NginxUpstream
from bench.samples import NotInstalledError, Sample

CONNECTIONS: Final = (1, 16, 64)

THREADS: Final[Mapping[str, str]] = {
    "loop": "loop",
    "committer": "committer",
    "journal": "journal",
    "script-admissio": "admission",
    "script-work": "delivery",
    "read": "read",
}
"""The threads that have a column, as the kernel names them, and its heading."""

STARTER: Final = (str(Path(__file__).with_name("thread_names.py")),)


@dataclass(frozen=True)
class Account:
    """What a thread has taken: seconds of the processor, and how often it waited."""

    seconds: float = 0.0
    waits: int = 0

    def __sub__(self, other: Account) -> Account:
        return Account(self.seconds - other.seconds, self.waits - other.waits)

    def __add__(self, other: Account) -> Account:
        return Account(self.seconds + other.seconds, self.waits + other.waits)


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
    """Return a line of the table, for each request: microseconds of all threads, waits, each thread."""
    whole = sum(taken.values(), Account())
    threads = [taken.get(name, Account()).seconds for name in THREADS]
    spent = [whole.seconds, *threads, whole.seconds - sum(threads)]
    every, *each = [f"{seconds / sample.amount * 1e6:.0f}" for seconds in spent]
    waits = f"{whole.waits / sample.amount:.1f}"
    rate = f"{sample.amount / sample.seconds:.0f}"
    return _row(title, str(connections), rate, every, waits, *each)


def _row(title: str, connections: str, rate: str, every: str, waits: str, *threads: str) -> str:
    cells = "".join(f"{cell:>10}" for cell in threads)
    return f"{title:<22}{connections:>3}{rate:>8}{every:>7}{waits:>7}{cells}"


HEADING: Final = (
    "Microseconds of processor time for a request of 4 KiB under load, by connections and thread\n\n"
    + _row("", "", "1/s", "all", "waits", *THREADS.values(), "others")
)


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


def play(
    folder: Path, seconds: int, say: Callable[[str], None], many: Sequence[int] = CONNECTIONS
) -> None:
    """Measure all servers, one after the other; say a line for each number of connections."""
    say(HEADING)
    with servers(folder) as listed:
        for title, contestant, load in listed:
            for number in many:
                sized = replace(load, connections=number, seconds=seconds)
                measure(contestant, sized.shorter(), f"warm-up-{number}-")
                sample, taken = measure(contestant, sized, f"r{number}-")
                say(line(title, number, sample, taken))
