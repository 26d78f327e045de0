"""Targets, one line each, and whether a run reached them.

A ratio is computed turn by turn, between neighbours in time, and shown as its median.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from bench.cases import (
    AIOFILES,
    COPYPARTY,
    DD,
    DISK,
    DISK_SINGLE,
    HOOK,
    HOOKS,
    HOOKS_2,
    LOOP,
    MANY,
    NGINX,
    NGINX_LIST,
    OURS,
    OURS_2,
    OURS_DIGEST,
    OURS_NO_DIGEST,
    OURS_PAGES,
    OURS_PUT,
    RCLONE,
    RCLONE_S3,
    STARTED,
    TUS,
)
from bench.samples import Results, Spread

Figure = Literal["rate", "cpu", "p50 ms", "p99 ms", "body bytes sent", "memory MiB"]

EVERY = "every case"

SEVERAL = frozenset({OURS_2, HOOKS_2})
"""Entrants of several processes: their memory is in the tables, the goal is about one."""

UNITS: dict[Figure, str] = {
    "rate": "",
    "cpu": "",
    "p50 ms": " ms",
    "p99 ms": " ms",
    "body bytes sent": " bytes",
    "memory MiB": " MiB",
}


@dataclass(frozen=True)
class Target:
    """`figure` of `who` in `case`, beside that of `peer` if there is one, within `bound`.

    A rate must be at least the bound, every other figure at most. Without a bound it is only shown.
    `stretch` is a bound to aim at beyond.
    """

    case: str
    what: str
    who: str
    figure: Figure
    bound: float | None
    peer: str = ""
    stretch: float | None = None

    @property
    def at_least(self) -> bool:
        return self.figure == "rate"

    def goal(self) -> str:
        """Return the bound as text."""
        if self.bound is None:
            return ""
        beyond = "" if self.stretch is None else f", better {self.stretch:g}"
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}{self.unit}{beyond}"

    @property
    def unit(self) -> str:
        """Return the unit of a figure."""
        return " ×" if self.peer else UNITS[self.figure]

    def verdict(self, measured: Spread) -> str:
        """Return whether the target was reached, else by how much of the bound it was missed."""
        if self.bound is None:
            return ""
        if self.stretch is not None and self._within(measured.middle, self.stretch):
            return "reached, the better one too"
        if self._within(measured.middle, self.bound):
            return "reached"
        over = abs(measured.middle - self.bound)
        return f"missed by {over / self.bound:.0%}" if self.bound else "missed"

    def _within(self, value: float, bound: float) -> bool:
        return value >= bound if self.at_least else value <= bound

    def measured(self, results: Mapping[str, Results]) -> Spread | None:
        """Return what was measured; None where the case was not run, or not with both."""
        if self.case == EVERY:
            return _memory(results)
        turns = results.get(self.case, {})
        if self.who not in turns or (self.peer and self.peer not in turns):
            return None
        mine = _figures(turns, self.who, self.figure)
        if self.peer:
            theirs = _figures(turns, self.peer, self.figure)
            mine = [mine_value / other for mine_value, other in zip(mine, theirs, strict=True) if other]
        return Spread.of(mine) if mine else None


def _figures(turns: Results, who: str, figure: Figure) -> list[float]:
    if figure == "rate":
        return turns[who].rates()
    if figure == "cpu":
        return turns[who].costs()
    field = {"p50 ms": "p50_ms", "p99 ms": "p99_ms", "body bytes sent": "sent"}[figure]
    return turns[who].figures(field)


def _memory(results: Mapping[str, Results]) -> Spread | None:
    peaks = [
        turns.peak / 2**20
        for case in results.values()
        for who, turns in case.items()
        if who.startswith(OURS) and who not in SEVERAL and turns.peak
    ]
    # The target is about the worst of all cases, so that is what stands in the middle.
    return Spread(min(peaks), max(peaks), max(peaks)) if peaks else None


def _by_connections(
    case: str, what: str, who: str, peer: str, bounds: Mapping[int, tuple[float | None, float | None]]
) -> Iterator[Target]:
    for connections, (bound, stretch) in bounds.items():
        over = "1 connection" if connections == 1 else f"{connections} connections"
        yield Target(f"{case}-{connections}", f"{what}, {over}", who, "rate", bound, peer, stretch)


SYNCED = "4 KiB PUTs, synced, 64 connections, both hooks"
AS_STARTED = "4 KiB PUTs, synced, as the README starts it"

TARGETS = (
    *_by_connections(
        "get", "4 KiB GETs", OURS, NGINX, {1: (0.35, 0.45), 16: (0.25, 0.35), 64: (0.25, 0.35)}
    ),
    *_by_connections(
        "json",
        "4 KiB of JSON through the proxy",
        OURS,
        NGINX,
        {1: (0.25, 0.3), 16: (0.15, 0.25), 64: (0.14, 0.25)},
    ),
    *_by_connections(
        "small", "4 KiB PUTs, not synced", OURS, LOOP, {1: (0.3, 0.4), 16: (0.7, 0.9), 64: (0.75, 1.0)}
    ),
    *_by_connections(
        "small",
        "4 KiB PUTs, not synced, with OnFileUploading",
        HOOK,
        LOOP,
        {1: (0.25, 0.35), 16: (0.55, 0.8), 64: (0.6, 0.85)},
    ),
    Target(
        "small-64", "4 KiB PUTs, not synced, 64 connections, 2 processes", OURS_2, "rate", 1.1, LOOP, 1.4
    ),
    Target("small-synced", SYNCED, HOOKS, "rate", 0.28, DISK, 0.4),
    Target("small-synced", f"{SYNCED}, 2 processes", HOOKS_2, "rate", 0.4, DISK, 0.6),
    Target("small-synced", f"{SYNCED}: p99 response time", HOOKS, "p99 ms", 60),
    Target(
        "refusal", "refusal of a PUT with Expect: 100-continue", "gateway, --auth token", "p50 ms", 2
    ),
    Target("refusal", "body bytes of a refused upload", "gateway, --auth token", "body bytes sent", 0),
    Target("big", "one large PUT, not synced", OURS, "rate", 1.0, NGINX),
    Target("big", "one large PUT, not synced: CPU", OURS, "cpu", 1.15, NGINX),
    Target("parallel", "8 large PUTs at once, not synced", OURS, "rate", 1.0, NGINX),
    Target("big-synced", "one large PUT, synced, disk", OURS, "rate", 0.95, DD),
    Target("chunked", "one large chunked PUT, not synced", OURS, "rate", 0.7, NGINX),
    Target("small-16", "4 KiB PUTs, not synced, 16 connections", OURS, "rate", 2.5, COPYPARTY),
    Target("small-64", "4 KiB PUTs, not synced, 64 connections", OURS, "rate", 2.5, COPYPARTY),
    Target("proxied", "a large body through the proxy", OURS, "rate", 0.4, NGINX),
    Target(EVERY, "maximum memory, one process", OURS, "memory MiB", 120),
)
"""What the project aims at on two cores, with one process unless two are named."""

CONTEXT = (
    *_by_connections("get", "4 KiB GETs", OURS, LOOP, dict.fromkeys(MANY, (None, None))),
    Target("small-64", "4 KiB PUTs, not synced, 64 connections, both hooks", HOOKS, "rate", None, LOOP),
    *(
        Target("small-64", "4 KiB PUTs, not synced, 64 connections", OURS, "rate", None, peer)
        for peer in (NGINX, RCLONE, RCLONE_S3, TUS)
    ),
    Target(
        "small-synced",
        f"{AS_STARTED}, 64 connections",
        STARTED,
        "rate",
        None,
        DISK,
    ),
    Target("started", f"{AS_STARTED}, 1 connection", STARTED, "rate", None, DISK_SINGLE),
    Target("started", f"{AS_STARTED}, 1 connection: p50 response time", STARTED, "p50 ms", None),
    Target("medium", "1 MiB PUTs, 16 connections, not synced", OURS, "rate", None, NGINX),
    Target("big", "one large PUT, not synced", OURS, "rate", None, AIOFILES),
    Target("appends", "1 GiB in appends of 8 MiB, not synced", OURS, "rate", None, OURS_PUT),
    Target("appends", "1 GiB in appends of 8 MiB, not synced", OURS, "rate", None, TUS),
    Target("appends-synced", "1 GiB in appends of 8 MiB, each synced", OURS, "rate", None, OURS_PUT),
    Target("append", "appends of 64 KiB, not synced", OURS, "rate", None, TUS),
    Target("append", "an append of 64 KiB, not synced: p50 response time", OURS, "p50 ms", None),
    Target("append-synced", "an append of 64 KiB, synced: p50 response time", OURS, "p50 ms", None),
    Target("append-synced", "appends of 64 KiB, each synced", OURS, "rate", None, DISK_SINGLE),
    Target("digest-small", "4 KiB PUTs with a digest", OURS_DIGEST, "rate", None, OURS_NO_DIGEST),
    Target("digest-big", "one large PUT with a digest", OURS_DIGEST, "rate", None, OURS_NO_DIGEST),
    Target("listing", "100,000 files listed by pages", OURS_PAGES, "rate", None, NGINX_LIST),
    Target("tls", "one large PUT over TLS", OURS, "rate", None, NGINX),
    Target("get-big", "one large GET", OURS, "rate", None, NGINX),
)
"""Further comparisons, without a goal."""


def needed(case: str) -> set[str]:
    """Return the entrants of a case that its goals name, or its comparisons if it has no goal.

    A quick run does with them.
    """
    about = [target for target in TARGETS if target.case == case]
    about = about or [target for target in CONTEXT if target.case == case]
    return {target.who for target in about} | {target.peer for target in about}
