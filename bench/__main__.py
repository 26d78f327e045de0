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
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bench import report
from bench.cases import CASES, FULL, QUICK, Sizes, Sources
from bench.entrants import Case, play
from bench.report import Outcome, Outcomes
from bench.samples import BenchError
from bench.targets import needed

TMPFS = "/dev/shm"

DESCRIPTION = """\
Measures the gateway beside its peers, in turns, and checks the bytes that landed. Needs 8 GiB in
/dev/shm and 5 GiB on a disk (a sixth of that with --quick), and a machine that does nothing else."""


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser("scripts/bench", description=DESCRIPTION)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="small sizes, one turn each, no more entrants than goals need: under a minute",
    )
    parser.add_argument(
        "--only", metavar="CASE", action="append", choices=CASES, help="(repeatable) " + " ".join(CASES)
    )
    parser.add_argument("--rounds", type=int, help="turns of each entrant")
    parser.add_argument(
        "--folder", default="/var/tmp", help="where the cases on a disk run (default: /var/tmp)"
    )
    parser.add_argument(
        "--write", action="store_true", help="keep the figures, write them into the pages"
    )
    parsed = parser.parse_args(words)
    if parsed.quick and parsed.write:
        parser.error("--quick is for trying: its figures do not go into the pages")
    return parsed


def _folder(stack: ExitStack, parent: str, space: int) -> Path:
    if not Path(parent).is_dir() or shutil.disk_usage(parent).free < space:
        raise BenchError(f"{parent}: {space >> 20} MiB of free space are needed there")
    folder = Path(tempfile.mkdtemp(prefix="gateway-bench-", dir=parent))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _prepare_disk(folder: Path) -> None:
    # ext4 gives each folder below a part of the disk of its own then; others need no such thing.
    subprocess.run(["chattr", "+T", folder], capture_output=True, check=False)
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
        _prepare_disk(places["disk"])
        sources = Sources(_folder(stack, memory, 4 * sizes.big))
        for key in keys:
            case = _chosen(key, sizes, sources, quick=quick)
            _say(f"{key}: {case.title}")
            home = places[case.place] / key
            home.mkdir()
            outcomes[key] = Outcome(
                case.title, case.unit, play(case, home, sizes.rounds, _say, sources.folder)
            )
            print(f"\n### {case.title}\n\n{report.case_table(outcomes[key])}\n", flush=True)
    return outcomes


def main(words: Sequence[str]) -> int:
    """Run the command; return its exit status: 1 where a figure could not be had."""
    wish = arguments(words)
    # A plain SIGTERM would leave the servers behind, and in the background Ctrl-C may be ignored.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sizes = QUICK if wish.quick else FULL
    if wish.rounds:
        sizes = replace(sizes, rounds=wish.rounds)
    try:
        outcomes = run(wish.only or list(CASES), sizes, wish.folder, quick=wish.quick)
    except BenchError as error:
        _say(f"scripts/bench: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    print(report.targets_table(outcomes))
    if wish.write:
        kept = report.keep(outcomes, CASES)
        report.write_pages(kept)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
