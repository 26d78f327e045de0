"""`gateway events ...`: the same from a running server and from the journal itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.cli.events import arguments as asking
from gateway.cli.events import formatting as tables
from gateway.cli.events import sources
from gateway.errors import ConfigError
from gateway.events.journal import Journal
from gateway.storage.local.state_dir import StateDirectory
from tests.conftest import StartGateway
from tests.support import PROJECT
from tests.support.records import claimed, now, ready, record, settle

FIELDS = [
    "event_id", "upload_id", "handler", "event", "path", "state", "attempt", "error", "created", "due",
]  # fmt: skip

Ask = Callable[..., Awaitable[tuple[int, str, str]]]


def fill(journal: Journal) -> None:
    """Leave a delivery in each state."""
    for name, outcome, delay in (("done", "done", 0), ("dead", "dead", 0), ("delayed", "retry", 900.0)):
        ready(journal, name)
        error = "first line\nsecond line"
        settle(journal, claimed(journal)[0], outcome, error, delay)
    ready(journal, "running")
    claimed(journal)
    now(journal.outbox.record_uploads([record("ready"), record("ö", ("other",))]))


def stopped_journal(directory: Path) -> Journal:
    """Return an open journal as a server that has ended left it."""
    state = StateDirectory(directory / ".gateway")
    state.prepare()
    journal = Journal(state.journal, full=False)
    journal.open()
    return journal


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Run `gateway events ...` for tmp_path/data; return exit code, stdout and stderr."""

    async def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        arguments = ["events", "--directory", str(tmp_path / "data"), *words]
        code = await asyncio.to_thread(main, arguments)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture(params=["running", "stopped"])
async def filled(request: pytest.FixtureRequest, start_gateway: StartGateway, tmp_path: Path) -> str:
    """A directory with deliveries, with and without a server that owns it."""
    if request.param == "running":
        gateway = await start_gateway()
        fill(gateway.journal)
    else:
        journal = stopped_journal(tmp_path / "data")
        fill(journal)
        journal.close()
    return str(request.param)


async def listed(ask: Ask, *words: str) -> list[dict[str, Any]]:
    code, out, _ = await ask("list", "--json", *words)
    assert code == 0
    rows: list[dict[str, Any]] = json.loads(out)
    return rows


async def test_a_list_for_programs_is_one_array_with_the_fields_that_were_promised(
    filled: str, ask: Ask
) -> None:
    rows = await listed(ask)
    assert [list(row) for row in rows] == [FIELDS] * 6
    assert [row["upload_id"] for row in rows] == ["done", "dead", "delayed", "running", "ready", "ö"]
    dead = rows[1]
    assert (dead["event_id"], dead["handler"], dead["event"]) == ("e-dead", "h", "APIGW.OnFileUploaded")
    assert (dead["path"], dead["attempt"], dead["error"]) == (
        "/upload/dead",
        1,
        "first line\nsecond line",
    )
    assert isinstance(dead["created"], float)
    assert isinstance(dead["due"], float)


async def test_a_list_can_be_narrowed_to_a_state_or_a_handler(filled: str, ask: Ask) -> None:
    for state in ("done", "dead", "delayed", "running"):
        assert [row["upload_id"] for row in await listed(ask, "--state", state)] == [state]
    assert [row["upload_id"] for row in await listed(ask, "--state", "ready")] == ["ready", "ö"]
    assert [row["upload_id"] for row in await listed(ask, "--handler", "other")] == ["ö"]
    assert await listed(ask, "--handler", "other", "--state", "dead") == []


async def test_a_list_for_people_is_a_line_each_and_of_an_error_its_first(filled: str, ask: Ask) -> None:
    code, out, err = await ask("list")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0].split() == ["EVENT", "HANDLER", "STATE", "TRIES", "DUE", "PATH"]
    assert len(lines) == 1 + 6 + 2
    assert "    first line" in lines
    assert "second line" not in out


async def test_an_event_is_shown_with_body_runs_and_errors(filled: str, ask: Ask) -> None:
    code, out, _ = await ask("show", "e-dead", "--json")
    event = json.loads(out)
    assert code == 0
    assert (event["id"], event["path"], event["body"]["bytes"]) == ("e-dead", "/upload/dead", 3)
    (handler,) = event["handlers"]
    assert (handler["state"], handler["runs"][0]["error"]) == ("dead", "first line\nsecond line")
    code, out, _ = await ask("show", "e-dead")
    assert code == 0
    assert "handler  h: dead, tries 1" in out
    assert "      second line" in out.splitlines()


async def test_an_event_nobody_knows_is_exit_code_1(filled: str, ask: Ask) -> None:
    code, out, err = await ask("show", "e-unknown", "--json")
    assert (code, out, err) == (1, "", "gateway: no event e-unknown is known\n")


@pytest.mark.parametrize("event_id", ["../uploads/dead", "..", "?state=dead", "e%2Ddead", ""])
async def test_an_id_that_is_none_does_not_reach_another_page(
    start_gateway: StartGateway, ask: Ask, event_id: str
) -> None:
    gateway = await start_gateway()
    fill(gateway.journal)
    code, out, err = await ask("show", event_id)
    assert (code in {1, 2}, out) == (True, "")
    assert err.startswith("gateway: ")


# -- steering


async def test_events_are_retried_dropped_and_replayed_by_their_ids(filled: str, ask: Ask) -> None:
    assert await ask("retry", "e-dead", "e-delayed") == (0, "retried 2 deliveries\n", "")
    assert await ask("drop", "e-dead") == (0, "dropped 1 delivery\n", "")
    assert await ask("replay", "e-done", "--json") == (0, '{"count": 1}\n', "")
    ready_now = [row["upload_id"] for row in await listed(ask, "--state", "ready")]
    assert ready_now == ["done", "delayed", "ready", "ö"]


async def test_what_is_dead_is_retried_or_dropped_at_once(filled: str, ask: Ask) -> None:
    assert await ask("retry", "--dead", "--handler", "other") == (0, "retried 0 deliveries\n", "")
    assert await ask("retry", "--dead", "--handler", "h") == (0, "retried 1 delivery\n", "")
    assert await ask("drop", "--dead", "--since", "1h") == (0, "dropped 0 deliveries\n", "")


async def test_what_was_done_since_then_is_replayed(filled: str, ask: Ask) -> None:
    assert await ask("replay", "--since", "2099-01-01") == (0, "replayed 0 deliveries\n", "")
    assert await ask("replay", "--since", "2h", "--handler", "h") == (0, "replayed 1 delivery\n", "")


async def test_ids_that_nobody_knows_are_named_and_the_others_are_done(filled: str, ask: Ask) -> None:
    code, out, err = await ask("retry", "e-none", "e-dead", "../x")
    assert (code, out) == (1, "retried 1 delivery\n")
    assert err == "gateway: no event e-none is known\ngateway: no event ../x is known\n"


async def test_a_handler_is_paused_and_resumed(filled: str, ask: Ask) -> None:
    code, out, _ = await ask("pause", "--handler", "h")
    assert (code, out.startswith("paused h: ")) == (0, True)
    assert (await ask("list"))[1].splitlines()[-1] == "paused: h"
    assert await ask("resume", "--handler", "h") == (0, "resumed h\n", "")
    code, out, _ = await ask("resume", "--handler", "h", "--json")
    assert json.loads(out) == {"handler": "h", "paused": False}


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90s", 999_910.0),
        ("2h", 992_800.0),
        ("7d", 395_200.0),
        ("1w", 395_200.0),
        ("999999999d", 0.0),
        ("0", 0.0),
        ("12345.5", 12345.5),
        ("1970-01-02T00:00:00Z", 86400.0),
        ("1970-01-02T00:00:00+01:00", 82800.0),
    ],
)
def test_times_are_read_as_people_write_them(text: str, moment: float) -> None:
    assert asking.moment(text, 1_000_000.0) == moment


@pytest.mark.parametrize("text", ["", "h", "2 h", "nan", "inf", "-1", "1e999", "2026-13-01", "soon"])
def test_times_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="say 2h"):
        asking.moment(text, 1_000_000.0)


# -- at a terminal


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Make stdout and stderr, as they are captured, a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    for kind in {type(sys.stdout), type(sys.stderr)}:
        monkeypatch.setattr(kind, "isatty", lambda _: True)


@pytest.mark.usefixtures("terminal")
async def test_lines_fit_the_terminal_and_ids_stay_whole(tmp_path: Path, ask: Ask) -> None:
    journal = stopped_journal(tmp_path / "data")
    name = "01JD0000000000000000000000-0"
    ready(journal, name, handlers=("a-handler-with-a-long-name-that-is-its-own",))
    settle(journal, claimed(journal, "a-handler-with-a-long-name-that-is-its-own")[0], "dead", "x" * 300)
    now(journal.outbox.move_upload(name, "/upload/" + "deep/" * 50 + "file.bin"))
    journal.close()
    code, out, _ = await ask("list")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    line = out.splitlines()[1]
    assert line.startswith(f"e-{name} a-ha")
    assert line.endswith(".bin")
    assert line.count("…") == 2


@pytest.mark.usefixtures("terminal")
async def test_long_work_tells_how_far_it_has_come(tmp_path: Path, ask: Ask) -> None:
    journal = stopped_journal(tmp_path / "data")
    fill(journal)
    journal.close()
    code, out, err = await ask("retry", "--dead")
    assert (code, out) == (0, "retried 1 delivery\n")
    assert err == "\rretried 1 so far\r\033[K"


async def test_what_others_wrote_moves_no_cursor(filled: str, ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    journal = stopped_journal(tmp_path / "other")
    ready(journal, "a")
    settle(journal, claimed(journal)[0], "dead", "\033[2Jgone\x9b1m\nand \033]0;title\007")
    journal.close()
    for words in (["list"], ["show", "e-a"]):
        _, out, _ = await ask(*words, "--directory", str(tmp_path / "other"))
        assert "gone" in out
        assert not {"\033", "\x9b", "\007"} & set(out)


@pytest.mark.parametrize(("width", "shown"), [(9, "abcdefghi"), (5, "ab…hi"), (4, "a…hi"), (1, "…")])
def test_what_is_too_long_is_cut_in_its_middle(width: int, shown: str) -> None:
    assert tables.cut("abcdefghi", width) == shown


# -- nothing, and much


async def test_an_empty_list_is_an_empty_array(start_gateway: StartGateway, ask: Ask) -> None:
    await start_gateway()
    assert await ask("list", "--json") == (0, "[]\n", "")
    assert await ask("list") == (0, "no deliveries\n", "")
    assert await ask("list", "--state", "dead") == (0, "no deliveries that fit\n", "")


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("count", [500, 1201])
async def test_a_long_list_is_complete(
    start_gateway: StartGateway, ask: Ask, tmp_path: Path, running: bool, count: int
) -> None:
    journal = (await start_gateway()).journal if running else stopped_journal(tmp_path / "data")
    names = [f"u{number}" for number in range(count)]
    now(journal.outbox.record_uploads([record(name) for name in names]))
    if not running:
        journal.close()
    assert [row["upload_id"] for row in await listed(ask)] == names


async def test_a_reader_that_has_seen_enough_is_no_fault(tmp_path: Path) -> None:
    journal = stopped_journal(tmp_path / "data")
    now(journal.outbox.record_uploads([record(f"u{number}") for number in range(1000)]))
    journal.close()
    words = [sys.executable, "-m", "gateway", "events", "list", "--directory", str(tmp_path / "data")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=PROJECT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"EVENT")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 0


# -- where there is no server, and where there is half of one


async def test_without_a_journal_the_directory_is_named_and_nothing_is_made(
    ask: Ask, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    code, out, err = await ask("list", "--json")
    assert (code, out) == (2, "")
    assert "there is no journal" in err
    assert str(tmp_path / "data") in err
    assert list((tmp_path / "data").iterdir()) == []


async def test_the_socket_of_a_dead_server_is_not_asked(ask: Ask, tmp_path: Path) -> None:
    journal = stopped_journal(tmp_path / "data")
    fill(journal)
    journal.close()
    with socket.socket(socket.AF_UNIX) as dead, contextlib.chdir(tmp_path / "data" / ".gateway"):
        dead.bind("owner-0.sock")
    assert len(await listed(ask)) == 6


async def test_a_server_that_does_not_answer_is_told_as_such(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "SECONDS", 0.2)
    stopped_journal(tmp_path / "data").close()
    owner = StateDirectory(tmp_path / "data" / ".gateway")
    owner.lock()
    code, out, err = await ask("list", "--json")
    owner.unlock()
    assert (code, out) == (2, "")
    assert "the server that owns the directory does not answer" in err


async def test_a_journal_without_its_other_folders_can_be_read(ask: Ask, tmp_path: Path) -> None:
    journal = stopped_journal(tmp_path / "data")
    fill(journal)
    journal.close()
    (tmp_path / "data/.gateway/slots").rmdir()
    assert len(await listed(ask)) == 6


async def test_a_journal_that_cannot_be_read_is_told_and_let_go_of(ask: Ask, tmp_path: Path) -> None:
    stopped_journal(tmp_path / "data").close()
    state = StateDirectory(tmp_path / "data" / ".gateway")
    state.journal.write_bytes(b"no database" * 100)
    code, _, err = await ask("list")
    assert code == 2
    assert "move the file away" in err
    state.lock()
    state.unlock()


async def test_looking_leaves_the_journal_to_the_next_server(
    ask: Ask, start_gateway: StartGateway, tmp_path: Path
) -> None:
    journal = stopped_journal(tmp_path / "data")
    fill(journal)
    journal.close()
    before = await listed(ask)
    assert [row["state"] for row in before] == ["done", "dead", "delayed", "running", "ready", "ready"]
    assert [row["state"] for row in await listed(ask)] == [row["state"] for row in before]
    await start_gateway()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["show"], "needs the id of an event"),
        (["show", "e-1", "e-2"], "needs the id of an event"),
        (["show", "e-1", "--dead"], "takes no --dead"),
        (["list", "e-1"], "did you mean `gateway events show`?"),
        (["list", "--since", "yesterday"], "say 2h, 7d"),
        (["list", "--since", "-5"], "say 2h, 7d"),
        (["retry"], "either ids of events or --dead"),
        (["retry", "--handler", "h"], "either ids of events or --dead"),
        (["drop", "e-1", "--dead"], "either ids of events or --dead"),
        (["drop", "--dead", "--state", "dead"], "takes no --state"),
        (["replay", "--handler", "h"], "--since 2h"),
        (["replay", "e-1", "--since", "2h"], "either ids of events or --since"),
        (["pause"], "needs --handler"),
        (["resume", "h"], "takes no id"),
        (["list", "--state", "held"], "invalid choice"),
        ([], "required"),
    ],
)
async def test_a_slip_is_told_with_a_way_on(ask: Ask, words: list[str], told: str) -> None:
    code, _, err = await ask(*words)
    assert code == 2
    assert told in err
