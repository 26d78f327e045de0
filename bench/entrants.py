"""The entrants of a case and their turns: A B C, B C A, C A B, each beside the others in time.

Work, files and unwritten pages of one turn do not fall into the next one.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from bench.contestants import Contestant
from bench.load import Load
from bench.nginx import NginxUpstream
from bench.samples import BenchError, NotInstalledError, Results, Sample, Turns

Place = Literal["memory", "disk"]
Unit = Literal["bytes", "requests"]
T = TypeVar("T")

_ZEROS = bytes(1 << 20)


class Player(Protocol):
    """An entrant that is set up."""

    def warm_up(self) -> None:
        """Run a short turn that does not count."""

    def take(self, turn: str) -> Sample:
        """Run a turn and check its result."""

    def memory(self) -> tuple[int, int] | None:
        """Return bytes resident before the first turn and the most since; None without a server."""


@dataclass(frozen=True)
class Entrant:
    """A name, and its set-up in a folder of its own."""

    name: str
    ready: Callable[[Path, Place], AbstractContextManager[Player]]


@dataclass(frozen=True)
class Case:
    """The entrants and load of a comparison. `place` is where files land.

    `memory` is the number of bytes that a turn fills of it.
    """

    key: str
    title: str
    place: Place
    unit: Unit
    entrants: tuple[Entrant, ...]
    memory: int = 0


# -- servers


class _Served:
    def __init__(self, contestant: Contestant, load: Load, place: Place) -> None:
        self._contestant = contestant
        self._load = load
        # ext4 does not reuse inodes for minutes after their files were removed, and creating files
        # beside many such costs thirty times as much: small files on disk stay until the end.
        self._keep = place == "disk" and not load.large
        self._idle = contestant.server.resident()

    def warm_up(self) -> None:
        self._load.shorter().run(self._contestant, "warm-up-")
        self._contestant.server.settle()
        self._remove()

    def take(self, turn: str) -> Sample:
        server = self._contestant.server
        before = server.cpu()
        sample = self._load.run(self._contestant, turn)
        server.settle()
        cpu = server.cpu() - before
        self._load.check(self._contestant, turn, sample)
        self._remove()
        return replace(sample, cpu=cpu)

    def _remove(self) -> None:
        if not self._keep:
            for file in self._contestant.landed.iterdir():
                file.unlink()

    def memory(self) -> tuple[int, int]:
        return self._idle, self._contestant.server.peak()


def serving(name: str, make: Callable[[Path], Contestant], load: Load) -> Entrant:
    """Return a server under a load as an entrant."""

    @contextmanager
    def ready(folder: Path, place: Place) -> Iterator[Player]:
        with make(folder) as contestant:
            yield _Served(contestant, load, place)

    return Entrant(name, ready)


def proxying(name: str, make: Callable[[Path, Contestant], Contestant], load: Load) -> Entrant:
    """Return a proxy under a load, with an upstream of its own, as an entrant."""

    @contextmanager
    def ready(folder: Path, place: Place) -> Iterator[Player]:
        (folder / "upstream").mkdir()
        with NginxUpstream(folder / "upstream") as upstream, make(folder, upstream) as contestant:
            yield _Served(contestant, load, place)

    return Entrant(name, ready)


# -- probes


class _Probed:
    def __init__(self, probe: Callable[[Path, str], Sample], folder: Path) -> None:
        self._probe = probe
        self._folder = folder

    def warm_up(self) -> None:
        """Do nothing: each turn begins anew."""

    def take(self, turn: str) -> Sample:
        return self._probe(self._folder, turn)

    def memory(self) -> None:
        return None


def probing(name: str, probe: Callable[[Path, str], Sample]) -> Entrant:
    """Return a probe without server as an entrant: called with a folder and the turn's name."""

    @contextmanager
    def ready(folder: Path, place: Place) -> Iterator[Player]:
        yield _Probed(probe, folder)

    return Entrant(name, ready)


# -- taking turns


def play(
    case: Case, folder: Path, rounds: int, say: Callable[[str], None], tmpfs: Path | None = None
) -> Results:
    """Let the entrants of `case` take `rounds` turns each, interleaved; return what they did.

    `folder` is removed afterwards; in `tmpfs`, if given, memory is touched before each turn.
    An entrant that is not installed is left out with a message; any other error raises `BenchError`.
    """
    results: Results = {}
    if case.place == "disk":
        spread(folder)
    with ExitStack() as stack:
        players: dict[str, Player] = {}
        for number, entrant in enumerate(case.entrants):
            home = folder / str(number)
            home.mkdir()
            try:
                players[entrant.name] = stack.enter_context(entrant.ready(home, case.place))
            except NotInstalledError as error:
                say(f"without {entrant.name}: {error}")
        for name, player in players.items():
            results[name] = Turns()
            _named(name, player.warm_up)
        names = list(players)
        for number in range(rounds):
            first = number % max(1, len(names))  # no entrant always follows the same one
            for name in names[first:] + names[:first]:
                _calm(case, folder, tmpfs)
                take = partial(players[name].take, f"r{number}-")
                results[name].samples.append(_named(name, take))
        for name, player in players.items():
            if memory := player.memory():
                results[name].idle, results[name].peak = memory
    shutil.rmtree(folder)
    return results


def spread(folder: Path) -> None:
    """Let ext4 give each folder below `folder` a part of the disk of its own; others ignore it.

    ext4 skips the inodes of files that were deleted within the last minutes one by one, which costs
    400 to 600 microseconds for each new file in the same part.
    """
    subprocess.run(["chattr", "+T", folder], capture_output=True, check=False)


def _named(name: str, step: Callable[[], T]) -> T:
    try:
        return step()
    except BenchError as error:
        raise BenchError(f"{name}: {error}") from error


def _calm(case: Case, folder: Path, tmpfs: Path | None) -> None:
    if case.place == "disk":
        subprocess.run(["sync", "-f", folder], check=True)
    if tmpfs is not None and case.memory:
        # A virtual machine may hand free memory back to its host within seconds; the process that
        # touches it first then pays for all. So it is touched just before each turn.
        file = tmpfs / "touched"
        with file.open("wb") as out:
            for _ in range(case.memory // len(_ZEROS)):
                out.write(_ZEROS)
        file.unlink()
