"""Output: tables for the terminal, goals and figures for docs/benchmarks.md, three lines for the README.

The pages are made from `bench/results.json` alone, so that a reader can check them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.cases import COPYPARTY, DD, NGINX, OURS
from bench.samples import Results, Sample, Spread, Turns
from bench.targets import CONTEXT, TARGETS, Target

PROJECT = Path(__file__).parent.parent
STORE = PROJECT / "bench" / "results.json"
README = PROJECT / "README.md"
PAGE = PROJECT / "docs" / "benchmarks.md"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A case that was played: its title, what its rates count, and the turns."""

    title: str
    unit: str
    results: Results


Outcomes = dict[str, Outcome]


# -- tables

HEADLINE = (
    ("big", NGINX, "a large `PUT`, nothing synced, is received at {} the rate of nginx"),
    ("big-synced", DD, "a large `PUT`, synced to a disk, takes {} the rate of `dd conv=fsync`"),
    ("small-16", COPYPARTY, "4 KiB `PUT`s on 16 connections are answered at {} the rate of copyparty"),
)
"""What the README shows: case, peer, sentence."""


def headline(outcomes: Outcomes) -> str:
    """Return the README's list: one line a ratio, the median, the minimum and the maximum."""
    lines = []
    for case, peer, sentence in HEADLINE:
        target = Target(case, "", OURS, "rate", None, peer)
        spread = target.measured({key: outcome.results for key, outcome in outcomes.items()})
        if spread:
            lines.append(f"- {sentence.format(_spread(spread, target.unit))}")
    return "\n".join(lines)


def targets_table(outcomes: Outcomes) -> str:
    """Return the targets and whether they were reached, as markdown, of the cases that were run."""
    results = {key: outcome.results for key, outcome in outcomes.items()}
    lines = [
        "| figure | compared with | median (minimum to maximum) | goal | |",
        "|---|---|---|---|---|",
    ]
    measured = ((target, target.measured(results)) for target in (*TARGETS, *CONTEXT))
    lines += [_target_line(target, spread) for target, spread in measured if spread]
    return "\n".join(lines)


def _target_line(target: Target, measured: Spread) -> str:
    beside = f"{target.peer}{', CPU' if target.figure == 'cpu' else ''}"
    cells = [
        target.what,
        beside,
        _spread(measured, target.unit),
        target.goal(),
        target.verdict(measured),
    ]
    return f"| {' | '.join(cells)} |".replace("  ", " ")


def _spread(spread: Spread, unit: str = "") -> str:
    least, middle, most = (_number(x) for x in (spread.least, spread.middle, spread.most))
    return f"{middle}{unit}" if least == most else f"{middle}{unit} ({least} to {most})"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 or value == 0 else f"{value:.3g}"


def case_table(outcome: Outcome) -> str:
    """Return all figures of a case, as markdown."""
    large = outcome.unit == "bytes"
    rate, cost = ("MiB/s", "CPU s per GiB") if large else (f"{outcome.unit}/s", "CPU µs each")
    lines = [
        f"| | {rate} | {cost} | p50 ms | p99 ms | memory MiB: idle, peak |",
        "|---|---|---|---|---|---|",
    ]
    for name, turns in outcome.results.items():
        rates = [value / 2**20 if large else value for value in turns.rates()]
        costs = [value * (2**30 if large else 1e6) for value in turns.costs()]
        cells = [rates, costs, turns.figures("p50_ms"), turns.figures("p99_ms")]
        shown = [_spread(Spread.of(cell)) if cell else "" for cell in cells]
        lines.append(f"| {' | '.join([name, *shown, _memory(turns)])} |".replace("  ", " "))
    return "\n".join(lines)


def case_section(key: str, outcome: Outcome) -> str:
    """Return all of a case for the terminal: its title, its figures, its goals."""
    return f"\n### {outcome.title}\n\n{case_table(outcome)}\n\n{targets_table({key: outcome})}\n"


def _memory(turns: Turns) -> str:
    if turns.idle is None or turns.peak is None:
        return ""
    return f"{turns.idle / 2**20:.0f}, {turns.peak / 2**20:.0f}"


def case_tables(outcomes: Outcomes) -> str:
    """Return the tables of all cases under their titles, as markdown."""
    return "\n\n".join(f"### {outcome.title}\n\n{case_table(outcome)}" for outcome in outcomes.values())


# -- keeping


def load(store: Path = STORE) -> Outcomes:
    """Return the outcomes in `store`; none if there is no such file."""
    if not store.exists():
        return {}
    return {key: _outcome(value) for key, value in json.loads(store.read_text()).items()}


def _outcome(value: Mapping[str, Any]) -> Outcome:
    results = {
        name: Turns([Sample(**sample) for sample in turns["samples"]], turns["idle"], turns["peak"])
        for name, turns in value["results"].items()
    }
    return Outcome(value["title"], value["unit"], results)


def keep(new: Outcomes, order: Iterable[str], store: Path = STORE) -> Outcomes:
    """Replace these cases of `store` by `new`; return all, in `order`."""
    every = {**load(store), **new}
    kept = {key: every[key] for key in order if key in every}
    shown = {key: dataclasses.asdict(outcome) for key, outcome in kept.items()}
    store.write_text(json.dumps(shown, indent=1) + "\n")
    return kept


def write_pages(kept: Outcomes) -> None:
    """Write the stored outcomes into the README and docs/benchmarks.md."""
    write(README, headline(kept), "bench")
    write(PAGE, targets_table(kept), "bench goals")
    write(PAGE, case_tables(kept), "bench figures")


def write_profile(lines: Iterable[str], page: Path = PAGE) -> None:
    """Write what `--profile` printed into docs/benchmarks.md."""
    text = "\n".join(lines).strip()
    write(page, f"```text\n{text}\n```", "bench profile")


def write(page: Path, text: str, section: str) -> None:
    """Replace the text between the markers of a section of `page`. Raises ValueError where they are
    missing."""
    opening, closing = f"<!-- {section}: written by scripts/bench --write -->", f"<!-- /{section} -->"
    before, begin, rest = page.read_text().partition(opening)
    _, end, after = rest.partition(closing)
    if not begin or not end:
        raise ValueError(f"{page}: the markers {opening} and {closing} are missing")
    page.write_text(f"{before}{opening}\n\n{text}\n\n{closing}{after}")
