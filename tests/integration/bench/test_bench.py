"""The bench: it plays cases with real servers, finds out who stores wrong bytes, says what it saw."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest

from bench import __main__ as command
from bench import peers, report
from bench.cases import CASES, HOOK, LOOP, NGINX, OURS, OURS_2
from bench.contestants import Bare, Contestant, Ours
from bench.entrants import Case, Entrant, Player, play, serving
from bench.inputs import Sizes, Sources
from bench.load import Download, Fetch, Load, Refusal, Upload, Wrk
from bench.peers import Tus
from bench.probes import batches, dd
from bench.report import Outcome
from bench.samples import BenchError, NotInstalledError, Sample, Spread, Turns
from bench.sources import make_source, same
from bench.targets import CONTEXT, TARGETS, Target
from tests.support import PROJECT

MODULES = sorted((PROJECT / "bench").glob("*.py"))
MIB = 1 << 20

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")

LIAR = """\
import sys
from pathlib import Path
import uvloop
import bare

def lying(folder):
    async def put(request):
        body = bytearray(await request.read())
        body[len(body) // 2] ^= 1
        Path(folder, request.match_info["name"]).write_bytes(body)
        return bare.web.Response(status=201)
    return put

bare.KINDS["lying"] = lying
uvloop.run(bare.serve("lying", Path(sys.argv[1]), int(sys.argv[2])))
"""


class Liar(Contestant):
    """Answers 201 and stores all but one bit."""

    def command(self) -> list[str]:
        return [sys.executable, "-c", LIAR, str(self.landed), str(self.port)]

    def environ(self) -> dict[str, str]:
        return {"PYTHONPATH": str(PROJECT / "bench")}


def case(tmp_path: Path, load: Load, *makes: tuple[str, object]) -> Case:
    (tmp_path / "play").mkdir()
    entrants = tuple(serving(name, make, load) for name, make in makes)  # type: ignore[arg-type]
    return Case("test", "A test", "memory", "bytes", entrants)


def silent(_: str) -> None:
    pass


# -- playing


def test_a_case_is_played_in_turns_and_tells_rate_cpu_and_memory(tmp_path: Path) -> None:
    load = Upload(make_source(tmp_path / "source", 4 * MIB), copies=2)
    ours = partial(Ours, durability="none")
    results = play(
        case(tmp_path, load, (OURS, ours), (LOOP, partial(Bare, kind="loop"))),
        tmp_path / "play",
        2,
        silent,
    )
    assert list(results) == [OURS, LOOP]
    for turns in results.values():
        assert [sample.amount for sample in turns.samples] == [8 * MIB] * 2
        assert min(turns.rates()) > 0
        assert len(turns.costs()) == 2
        assert turns.idle is not None
        assert turns.peak is not None
        assert turns.peak > 10 * MIB
    assert not (tmp_path / "play").exists()


@pytest.mark.slow
@needs_wrk
def test_files_are_fetched_large_ones_with_curl_and_small_ones_again_and_again(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", 4 * MIB)
    ours = partial(Ours, durability="none", flags=("--downloads",))
    loads: dict[str, Load] = {"large": Download(source), "small": Fetch(4096, 4, 1)}
    for name, load in loads.items():
        (tmp_path / name).mkdir()
        entrants = case(tmp_path / name, load, (OURS, ours))
        [sample] = play(entrants, tmp_path / name / "play", 1, silent)[OURS].samples
        assert sample.amount >= 2
    with Ours(tmp_path / "refused", "none") as contestant:
        for name, load in loads.items():
            with pytest.raises(BenchError):
                load.run(contestant, name)


@pytest.mark.slow
@needs_wrk
def test_small_files_of_ever_new_names_are_counted_and_looked_at(tmp_path: Path) -> None:
    load = Wrk(4096, 4, 1)
    results = play(
        case(tmp_path, load, (HOOK, partial(Ours, durability="none", handlers=("uploading",)))),
        tmp_path / "play",
        1,
        silent,
    )
    [sample] = results[HOOK].samples
    assert sample.amount > 0
    assert sample.p50_ms is not None
    assert sample.p99_ms is not None
    assert sample.p50_ms <= sample.p99_ms


@needs_wrk
def test_a_contestant_that_stores_wrong_small_files_is_found_out(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"liar: .* does not hold the bytes"):
        play(case(tmp_path, Wrk(4096, 1, 1), ("liar", Liar)), tmp_path / "play", 1, silent)


def test_a_contestant_that_stores_wrong_large_files_is_found_out(tmp_path: Path) -> None:
    load = Upload(make_source(tmp_path / "source", MIB))
    with pytest.raises(BenchError, match=r"liar: .* does not hold the bytes"):
        play(case(tmp_path, load, ("liar", Liar)), tmp_path / "play", 1, silent)


def test_files_are_counted_against_answers(tmp_path: Path) -> None:
    contestant = Bare(tmp_path, "loop")
    load = Wrk(16, 2, 1)
    (contestant.landed / "r0-0-1").write_bytes(b"/upload/r0-0-1\nf")
    load.check(contestant, "r0-", Sample(1, 1))
    with pytest.raises(BenchError, match="1 files for 2 answers"):
        load.check(contestant, "r0-", Sample(1, 2))
    (contestant.landed / "r0-0-2").write_bytes(b"short")
    with pytest.raises(BenchError, match="5 bytes, 16 were sent"):
        load.check(contestant, "r0-", Sample(1, 2))


def test_the_part_of_a_body_that_a_tus_server_keeps_is_not_a_file(tmp_path: Path) -> None:
    contestant = Tus(tmp_path)
    (contestant.landed / "r0-0-1").write_bytes(b"/upload/r0-0-1\nf")
    (contestant.landed / "r0-0-2").write_bytes(b"short")
    Wrk(16, 2, 1).check(contestant, "r0-", Sample(1, 1))
    with pytest.raises(BenchError, match="1 files for 2 answers"):
        Wrk(16, 2, 1).check(contestant, "r0-", Sample(1, 2))


def test_a_peer_of_npm_that_is_not_installed_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "NPM_FOLDER", tmp_path)
    with pytest.raises(NotInstalledError, match="scripts/bench --install"):
        Tus(tmp_path / "tus").command()
    monkeypatch.setattr(peers, "program", refusing)
    assert peers.install() == "without @tus/server: npm is not installed"


def refusing(name: str) -> str:
    raise NotInstalledError(f"{name} is not installed")


def test_servers_share_the_session_of_the_bench_and_not_its_signals(tmp_path: Path) -> None:
    with Bare(tmp_path) as contestant:
        [server] = [
            child for child in psutil.Process().children() if str(contestant.port) in child.cmdline()
        ]
        assert os.getsid(server.pid) == os.getsid(0)
        assert os.getpgid(server.pid) == server.pid != os.getpgid(0)


def test_a_server_is_warm_before_its_first_turn_counts(tmp_path: Path) -> None:
    load = Upload(make_source(tmp_path / "source", 33 * MIB))
    assert load.shorter().source.stat().st_size == 32 * MIB
    assert load.shorter().shorter() == load.shorter()
    assert Wrk(4096, 64, 5).shorter() == Wrk(4096, 64, 1)
    turns: list[str] = []

    class Noted(Upload):
        def run(self, contestant: Contestant, turn: str) -> Sample:
            turns.append(turn)
            return super().run(contestant, turn)

    noted = Noted(load.source)
    results = play(case(tmp_path, noted, (LOOP, Bare)), tmp_path / "play", 1, silent)
    assert turns == ["warm-up-", "r0-"]
    assert len(results[LOOP].samples) == 1


def test_a_refusal_costs_no_body_bytes_and_whoever_accepts_gives_no_figure(tmp_path: Path) -> None:
    load = Refusal(make_source(tmp_path / "source", 2 * MIB), 5)
    token = partial(Ours, durability="none", flags=("--auth", "token"))
    results = play(case(tmp_path, load, (OURS, token)), tmp_path / "play", 1, silent)
    assert results[OURS].figures("sent") == [0]
    with pytest.raises(BenchError, match="not refused"):
        play(case(tmp_path, load, (LOOP, partial(Bare, kind="loop"))), tmp_path / "play", 1, silent)


def test_a_server_that_does_not_start_is_told_with_what_it_said(tmp_path: Path) -> None:
    bad = partial(Ours, durability="none", flags=("--max-bytes", "many"))
    load = Upload(make_source(tmp_path / "source", MIB))
    with pytest.raises(BenchError, match=r"did not start(.|\n)*max.bytes"):
        play(case(tmp_path, load, (OURS, bad)), tmp_path / "play", 1, silent)


def test_an_entrant_that_is_not_installed_is_left_out_and_told(tmp_path: Path) -> None:
    def missing(_: Path, __: object) -> Player:
        raise NotInstalledError("rclone is not installed")

    said: list[str] = []
    (tmp_path / "play").mkdir()
    left_out = Case("test", "A test", "memory", "bytes", (Entrant("rclone", missing),))  # type: ignore[arg-type]
    assert play(left_out, tmp_path / "play", 1, said.append) == {}
    assert said == ["without rclone: rclone is not installed"]


def test_probes_say_what_the_disk_did(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", MIB)
    assert dd(source, tmp_path, "copy").amount == MIB
    assert not (tmp_path / "copy").exists()
    sample = batches(tmp_path, "r0-", 0)
    assert sample.amount == 64
    assert len(list((tmp_path / "r0-" / "upload").iterdir())) == 64
    assert list((tmp_path / "r0-" / "incoming").iterdir()) == []


def test_sources_differ_in_every_block(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", 2 * MIB)
    with source.open("rb") as file:
        assert file.read(MIB) != file.read(MIB)
    copy = Path(shutil.copy(source, tmp_path / "copy"))
    assert same(source, copy)
    os.truncate(copy, 2 * MIB - 1)
    assert not same(source, copy)


# -- the command


@pytest.mark.slow
def test_the_command_ends_every_server_and_removes_every_file(tmp_path: Path) -> None:
    sizes = Sizes(big=MIB, part=MIB, middle=MIB, seconds=1, refusals=2, rounds=1)
    disk, memory = tmp_path / "disk", tmp_path / "memory"
    disk.mkdir()
    memory.mkdir()
    outcomes = command.run(["big-synced", "refusal"], sizes, str(disk), quick=True, memory=str(memory))
    assert {who for outcome in outcomes.values() for who in outcome.results} >= {OURS, "dd conv=fsync"}
    assert list(disk.iterdir()) == []
    assert list(memory.iterdir()) == []
    children = psutil.Process().children(recursive=True)
    assert [child.name() for child in children if "gateway" in child.cmdline()] == []


@pytest.fixture
def memory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_middle_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals, status: int, memory: Path
) -> None:
    mark = {"BENCH_MARK": str(tmp_path)}
    words = [sys.executable, "-m", "bench", "--quick", "--only", "big", "--folder", "/var/tmp"]
    words += ["--memory", str(memory)]
    process = subprocess.Popen(words, cwd=PROJECT, env={**os.environ, **mark}, stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert process.stderr.readline().startswith(b"scheduling: ")
    assert process.stderr.readline().startswith(b"big: ")
    while not any("serve" in other.cmdline() for other in psutil.Process(process.pid).children()):
        assert process.poll() is None
    process.send_signal(number)
    assert process.wait(60) == status
    process.stderr.close()
    assert list(memory.iterdir()) == []
    assert [other.pid for other in psutil.process_iter() if _marked(other, mark)] == []


def _marked(process: psutil.Process, mark: dict[str, str]) -> bool:
    try:
        return mark.items() <= process.environ().items()
    except psutil.Error:
        return False


@pytest.mark.parametrize(
    "words", [["--quick", "--write"], ["--only", "nothing"], ["--profile", "--only", "big"]]
)
def test_a_wish_that_makes_no_sense_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        command.arguments(words)
    assert refused.value.code == 2


@pytest.mark.slow
def test_a_case_without_figures_does_not_take_those_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(sizes: Sizes, sources: Sources) -> Case:
        return Case("big", "Broken", "memory", "bytes", (serving("liar", Liar, load(sources)),))

    def load(sources: Sources) -> Load:
        return Upload(sources.file(MIB))

    def whole(sizes: Sizes, sources: Sources) -> Case:
        return Case("tls", "Whole", "memory", "bytes", (serving(LOOP, Bare, load(sources)),))

    monkeypatch.setattr(command, "CASES", {"big": broken, "tls": whole})
    sizes = Sizes(big=MIB, part=MIB, middle=MIB, seconds=1, refusals=2, rounds=1)
    disk = tmp_path / "disk"
    disk.mkdir()
    if _on_tmpfs(disk):
        pytest.skip("the folder of the tests is in memory")
    outcomes = command.run(["big", "tls"], sizes, str(disk), quick=False)
    assert list(outcomes) == ["tls"]
    assert "big: no figures: liar: " in capsys.readouterr().err


def _on_tmpfs(folder: Path) -> bool:
    words = ["stat", "-f", "-c", "%T", str(folder)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip() == "tmpfs"


def test_help_names_each_case_and_how_to_read_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.arguments(["--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert all(key in printed for key in CASES)
    assert "how to read the figures" in printed


def test_a_full_place_is_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="MiB of free space are needed"):
        command.run(["refusal"], Sizes(big=1 << 60), str(tmp_path), quick=True)


# -- what the figures mean


def outcomes() -> dict[str, Outcome]:
    mine = Turns(
        [Sample(1, 100, cpu=1.0), Sample(1, 300, cpu=1.0), Sample(1, 90, cpu=1.0)], 70 * MIB, 80 * MIB
    )
    theirs = Turns([Sample(1, 100, cpu=1.0), Sample(1, 100, cpu=1.0), Sample(1, 100, cpu=1.0)], MIB, MIB)
    return {"big": Outcome("One PUT", "bytes", {OURS: mine, NGINX: theirs})}


def test_ratios_are_taken_within_a_turn_and_told_with_their_spread() -> None:
    results = {key: outcome.results for key, outcome in outcomes().items()}
    target = Target("big", "a PUT", OURS, "rate", 1.0, NGINX)
    measured = target.measured(results)
    assert measured == Spread(0.9, 1.0, 3.0)
    assert target.verdict(measured) == "reached"
    assert replace(target, stretch=1.5).verdict(measured) == "reached"
    assert replace(target, stretch=1.5).goal() == "≥ 1 ×, better 1.5"
    assert replace(target, bound=0.5, stretch=1.0).verdict(measured) == "reached, the better one too"
    assert replace(target, bound=2.0).verdict(measured) == "missed by 50%"
    costs = replace(target, figure="cpu", bound=0.5).measured(results)
    assert costs is not None
    assert costs.middle == 1.0
    assert replace(target, figure="cpu", bound=0.5).verdict(costs) == "missed by 100%"
    assert replace(target, case="parallel").measured(results) is None


def test_memory_is_that_of_the_worst_case_with_one_process() -> None:
    [target] = [target for target in TARGETS if target.figure == "memory MiB"]
    results = {key: outcome.results for key, outcome in outcomes().items()}
    several = {OURS_2: replace(results["big"][OURS], peak=300 * MIB)}
    assert target.measured({**results, "small-64": several}) == Spread(80, 80, 80)


def test_what_is_aimed_at_is_in_some_case(tmp_path: Path) -> None:
    sources = Sources(tmp_path)
    sizes = Sizes(big=MIB, part=MIB, middle=MIB)
    made = {key: make(sizes, sources) for key, make in CASES.items()}
    assert all(key == case.key for key, case in made.items())
    for target in (*TARGETS, *CONTEXT):
        if target.case in made:
            names = {entrant.name for entrant in made[target.case].entrants}
            assert {target.who, target.peer} - {""} <= names, target


# -- what is written


def test_figures_are_kept_case_by_case_and_come_back_as_they_were(tmp_path: Path) -> None:
    store = tmp_path / "results.json"
    first = outcomes()
    assert report.keep(first, ["tls", "big"], store) == first
    tls = {"tls": replace(first["big"], title="TLS")}
    assert list(report.keep(tls, ["tls", "big"], store)) == ["tls", "big"]
    assert report.load(store) == {**tls, **first}


def profile_page(folder: Path) -> Path:
    page = folder / "profile.md"
    opening = "<!-- bench profile: written by scripts/bench --write -->"
    page.write_text(f"{opening}\n<!-- /bench profile -->\n")
    return page


def test_pages_keep_what_stands_around_the_figures(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    opening, closing = "<!-- bench goals: written by scripts/bench --write -->", "<!-- /bench goals -->"
    page.write_text(f"before\n{opening}\nold\n{closing}\nafter\n")
    report.write(page, "new", "bench goals")
    assert page.read_text() == f"before\n{opening}\n\nnew\n\n{closing}\nafter\n"
    report.write_profile(["PUT  1", "loop 2", ""], profile_page(tmp_path))
    assert "\n```text\nPUT  1\nloop 2\n```\n" in (tmp_path / "profile.md").read_text()
    page.write_text("no markers")
    with pytest.raises(ValueError, match="markers"):
        report.write(page, "new", "bench goals")


def test_the_figures_of_the_pages_are_those_that_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = report.load()
    assert kept
    pages = {name: getattr(report, name) for name in ("README", "PAGE")}
    for name, page in pages.items():
        monkeypatch.setattr(report, name, Path(shutil.copy(page, tmp_path / page.name)))
    report.write_pages(kept)
    for name, page in pages.items():
        written: Path = getattr(report, name)
        assert written.read_text() == page.read_text(), "write the figures with scripts/bench --write"


def test_the_readme_shows_three_ratios() -> None:
    lines = report.headline(report.load()).splitlines()
    assert len(lines) == 3
    assert all(" × (" in line for line in lines)


def test_tables_are_tables() -> None:
    table = report.targets_table(outcomes()).splitlines()
    assert table[2] == "| one large PUT, not synced | nginx | 1 × (0.9 to 3) | ≥ 1 × | reached |"
    for line in [*table, *report.case_table(outcomes()["big"]).splitlines()]:
        assert line.startswith("|")
        assert line.endswith("|")
    assert {line.count("|") for line in table} == {6}
    assert json.loads(report.STORE.read_text())


# -- the code


def test_the_files_of_the_bench_are_as_small_as_those_of_the_gateway() -> None:
    assert {
        path.name: size for path in MODULES if (size := len(path.read_text().splitlines())) > 300
    } == {}


def test_the_bench_knows_the_gateway_by_its_command_line_only() -> None:
    # What measures the engine of events, or a request, without a server is the exception.
    outside = [path for path in MODULES if not path.name.startswith(("events", "in_process"))]
    assert [path.name for path in outside if "import gateway" in path.read_text()] == []
    assert [path.name for path in outside if "from gateway" in path.read_text()] == []


@pytest.mark.slow
def test_beside_a_greedy_client_nothing_fails() -> None:
    words = [sys.executable, "-m", "bench.fairness", "--seconds", "1", "--connections", "2"]
    done = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, timeout=100, check=True)
    failed = re.findall(r" (\d+) of \d+$", done.stdout, re.MULTILINE)
    assert failed == ["0", "0", "0"]
