"""The command: plays the cases, prints the figures and optionally stores them.

Servers are stopped and their files removed, however the run ends.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bench import report, threads
from bench.cases import CASES
from bench.entrants import Case, play, spread
from bench.inputs import FULL, QUICK, Sizes, Sources
from bench.peers import install
from bench.report import Outcome, Outcomes
from bench.samples import BenchError
from bench.scheduling import isolate
from bench.targets import needed

TMPFS = "/dev/shm"

DESCRIPTION = """\
Measures the gateway beside other servers, in turns, and checks the bytes that were stored. All cases
take less than 20 minutes on two cores, --quick less than 5. It needs 4 GiB in /dev/shm and 3 GiB on a
disk (a quarter of that with --quick), and a machine that does nothing else."""

EPILOG = """\
cases (--only):
{cases}

how to read the figures:
  The servers of a case take turns within a round. A ratio is computed within a round; its median, least
  and greatest are printed, beside the goal. Rates are of this machine in these minutes: compare them
  within one table, never between two runs.

examples:
  scripts/bench --quick                        each goal, roughly
  scripts/bench --only get-16 --only json-16   two cases in full
  scripts/bench --profile                      where the microseconds of a small request go
  scripts/bench --install                      with @tus/server, which npm installs into .venv/npm
  scripts/bench --write                        figures into bench/results.json, README.md and
                                               docs/benchmarks.md
  scripts/bench --profile --write              the microseconds into docs/benchmarks.md"""


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    cases = textwrap.fill(" ".join(CASES), 94, break_on_hyphens=False)
    parser = argparse.ArgumentParser(
        "scripts/bench",
        description=DESCRIPTION,
        epilog=EPILOG.format(cases=textwrap.indent(cases, "  ")),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--quick", action="store_true", help="short turns, two rounds, only the servers that goals name"
    )
    parser.add_argument(
        "--only", metavar="CASE", action="append", choices=CASES, help="play this case (repeatable)"
    )
    parser.add_argument("--rounds", type=int, help="turns of each server (default: 5, with --quick 2)")
    parser.add_argument(
        "--folder", default="/var/tmp", help="where the cases on a disk run (default: /var/tmp)"
    )
    parser.add_argument(
        "--memory",
        default=TMPFS,
        metavar="FOLDER",
        help=f"a tmpfs for all other cases (default: {TMPFS})",
    )
    parser.add_argument("--install", action="store_true", help="install the peers of npm first")
    parser.add_argument(
        "--profile", action="store_true", help="print microseconds by layer instead of playing the cases"
    )
    parser.add_argument(
        "--write", action="store_true", help="keep the figures, write them into the pages"
    )
    parsed = parser.parse_args(words)
    if parsed.quick and parsed.write:
        parser.error("--quick is for trying: its figures do not go into the pages")
    if parsed.profile and parsed.only:
        parser.error("--profile plays no cases: leave out --only")
    return parsed


def _folder(stack: ExitStack, parent: str, space: int) -> Path:
    if not Path(parent).is_dir() or shutil.disk_usage(parent).free < space:
        raise BenchError(f"{parent}: {space >> 20} MiB of free space are needed there")
    folder = Path(tempfile.mkdtemp(prefix="gateway-bench-", dir=parent))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _check_disk(folder: Path) -> None:
    kind = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True, check=True)
    if kind.stdout.strip() in {"tmpfs", "ramfs"}:
        raise BenchError(f"{folder.parent} is in memory: say --folder with a folder on a disk")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _chosen(key: str, sizes: Sizes, sources: Sources, *, quick: bool) -> Case:
    case = CASES[key](sizes, sources)
    if not quick:
        return case
    return replace(case, entrants=tuple(who for who in case.entrants if who.name in needed(key)))


def run(keys: Sequence[str], sizes: Sizes, disk: str, *, quick: bool, memory: str = TMPFS) -> Outcomes:
    """Play the cases; folders for them are made in `disk` and `memory` and removed."""
    outcomes: Outcomes = {}
    with ExitStack() as stack:
        # What is sent, what lands, and what a server keeps of its own while it lands.
        places = {
            "memory": _folder(stack, memory, 4 * sizes.big),
            "disk": _folder(stack, disk, 5 * sizes.big // 2),
        }
        _check_disk(places["disk"])
        spread(places["disk"])
        sources = Sources(_folder(stack, memory, 4 * sizes.big))
        for key in keys:
            case = _chosen(key, sizes, sources, quick=quick)
            _say(f"{key}: {case.title}")
            home = places[case.place] / key
            home.mkdir()
            started = time.monotonic()
            try:
                results = play(case, home, sizes.rounds, _say, sources.folder)
            except BenchError as error:
                # The figures of the other cases are not lost with this one.
                _say(f"scripts/bench: {key}: no figures: {error}")
                shutil.rmtree(home)
                continue
            _say(f"{key}: {time.monotonic() - started:.0f} s")
            outcomes[key] = Outcome(case.title, case.unit, results)
            print(report.case_section(key, outcomes[key]), flush=True)
    return outcomes


def main(words: Sequence[str]) -> int:
    """Run the command; return its exit status: 1 where a figure could not be had."""
    wish = arguments(words)
    # A plain SIGTERM would leave the servers behind, and in the background Ctrl-C may be ignored.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _say(isolate())
    if wish.install:
        _say(install())
    try:
        return _profile(quick=wish.quick, write=wish.write) if wish.profile else _play(wish)
    except BenchError as error:
        _say(f"scripts/bench: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


def _play(wish: argparse.Namespace) -> int:
    sizes = QUICK if wish.quick else FULL
    if wish.rounds:
        sizes = replace(sizes, rounds=wish.rounds)
    keys, started = wish.only or list(CASES), time.monotonic()
    outcomes = run(keys, sizes, wish.folder, quick=wish.quick, memory=wish.memory)
    print(f"## Goals\n\n{report.targets_table(outcomes)}")
    _say(f"{len(outcomes)} of {len(keys)} cases in {(time.monotonic() - started) / 60:.1f} minutes")
    if wish.write:
        report.write_pages(report.keep(outcomes, CASES))
    return 0 if len(outcomes) == len(keys) else 1


def _profile(*, quick: bool, write: bool) -> int:
    lines: list[str] = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    words = [sys.executable, "-m", "bench.layers", *(["--quick"] if quick else [])]
    # A process of its own: it is the gateway that is measured.
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as layers:
        try:
            for line in layers.stdout or ():
                say(line.rstrip())
            status = layers.wait()
        finally:
            layers.terminate()
    if status:
        raise BenchError("the layers could not be measured, see above")
    with tempfile.TemporaryDirectory(prefix="gateway-bench-", dir=TMPFS) as folder:
        threads.play(Path(folder), QUICK.seconds if quick else FULL.seconds, say)
    if write:
        report.write_profile(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
