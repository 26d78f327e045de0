"""Targets, one line each, and whether a run reached them.

A ratio is computed turn by turn, between neighbours in time, and shown as its median.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bench.cases import AIOFILES, COPYPARTY, DD, DISK, HOOK, HOOKS, LOOP, NGINX, OURS
from bench.samples import Results, Spread

Figure = Literal["rate", "cpu", "p50 ms", "p99 ms", "body bytes sent", "memory MiB"]

EVERY = "every case"

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
    """

    case: str
    what: str
    who: str
    figure: Figure
    bound: float | None
    peer: str = ""

    @property
    def at_least(self) -> bool:
        return self.figure == "rate"

    def goal(self) -> str:
        """Return the bound as text."""
        if self.bound is None:
            return ""
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}{self.unit}"

    @property
    def unit(self) -> str:
        """Return the unit of a figure."""
        return " ×" if self.peer else UNITS[self.figure]

    def verdict(self, measured: Spread) -> str:
        """Return whether the target was reached, else by how much of the bound it was missed."""
        if self.bound is None:
            return ""
        over = measured.middle - self.bound
        if (over >= 0) if self.at_least else (over <= 0):
            return "reached"
        return f"missed by {abs(over) / self.bound:.0%}" if self.bound else "missed"

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
        if who.startswith(OURS) and turns.peak
    ]
    # The target is about the worst of all cases, so that is what stands in the middle.
    return Spread(min(peaks), max(peaks), max(peaks)) if peaks else None


TARGETS = (
    Target("big", "one large PUT, not synced", OURS, "rate", 1.0, NGINX),
    Target("big", "CPU of that", OURS, "cpu", 1.15, NGINX),
    Target("parallel", "8 large PUTs at once, not synced", OURS, "rate", 1.0, NGINX),
    Target("big-synced", "one large PUT, synced, disk", OURS, "rate", 0.95, DD),
    Target("chunked", "one large chunked PUT, not synced", OURS, "rate", 0.7, NGINX),
    Target("small-16", "4 KiB PUTs, 16 connections, not synced", OURS, "rate", 1.0, LOOP),
    Target("small-16", "4 KiB PUTs, 16 connections, not synced", OURS, "rate", 2.5, COPYPARTY),
    Target("small-64", "4 KiB PUTs, 64 connections, not synced", OURS, "rate", 1.0, LOOP),
    Target("small-64", "4 KiB PUTs, 64 connections, not synced", OURS, "rate", 2.5, COPYPARTY),
    Target("small-16", "the same, 16 connections, with OnFileUploading", HOOK, "rate", 0.85, LOOP),
    Target("small-64", "the same, 64 connections, with OnFileUploading", HOOK, "rate", 0.85, LOOP),
    Target("small-synced", "4 KiB PUTs, 64 connections, synced, both hooks", HOOKS, "rate", 0.4, DISK),
    Target("small-synced", "p99 response time of that", HOOKS, "p99 ms", 60),
    Target(
        "refusal", "refusal of a PUT with Expect: 100-continue", "gateway, --auth token", "p50 ms", 2
    ),
    Target("refusal", "body bytes of a refused upload", "gateway, --auth token", "body bytes sent", 0),
    Target("proxied", "a large body through the proxy", OURS, "rate", 0.4, NGINX),
    Target(EVERY, "maximum memory of all cases", OURS, "memory MiB", 120),
)
"""What the project aims at, for one process on two cores."""

CONTEXT = (
    Target("small-1", "4 KiB PUTs, 1 connection, not synced", OURS, "rate", None, LOOP),
    Target("medium", "1 MiB PUTs, 16 connections, not synced", OURS, "rate", None, NGINX),
    Target("big", "one large PUT, not synced", OURS, "rate", None, AIOFILES),
    Target("tls", "one large PUT over TLS", OURS, "rate", None, NGINX),
    Target("proxied-json", "4 KiB of JSON through the proxy", OURS, "rate", None, NGINX),
    Target("get-big", "one large GET", OURS, "rate", None, NGINX),
    Target("get-16", "4 KiB GETs, 16 connections", OURS, "rate", None, NGINX),
)
"""Further comparisons, without a goal."""


def needed(case: str) -> set[str]:
    """Return the entrants of a case whose figures are compared; a quick run does with them."""
    about = [target for target in (*TARGETS, *CONTEXT) if target.case == case]
    return {target.who for target in about} | {target.peer for target in about}
