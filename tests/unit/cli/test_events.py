"""gateway events without a server: times, columns, journals at rest."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli import events
from gateway.cli.events import formatting as tables
from gateway.errors import ConfigError
from gateway.storage.local.state_dir import StateDirectory
from tests.support import PROJECT
from tests.support.cli import Ask, fill, listed, stopped_journal
from tests.support.records import claim_deliveries, publish_uploads, result_of, settle_run, upload_record


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
    assert events.parse_time(text, 1_000_000.0) == moment


@pytest.mark.parametrize("text", ["", "h", "2 h", "nan", "inf", "-1", "1e999", "2026-13-01", "soon"])
def test_times_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="use 2h"):
        events.parse_time(text, 1_000_000.0)


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
    publish_uploads(journal, name, handlers=("a-handler-with-a-long-name-that-is-its-own",))
    settle_run(
        journal,
        claim_deliveries(journal, "a-handler-with-a-long-name-that-is-its-own")[0],
        "dead",
        error := "cannot connect to " + "x" * 300 + " [connect call failed]",
    )
    path = "/upload/" + "deep/" * 50 + "file.bin"
    result_of(journal.outbox.move_upload(name, path))
    journal.close()
    code, out, _ = await ask("list")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    line, *below = out.splitlines()[2:]
    assert line.startswith(f"e-{name} a-ha")
    assert line.count("…") == 1
    assert "".join(text.removeprefix("    ") for text in below) == path + error


@pytest.mark.usefixtures("terminal")
async def test_a_path_that_fits_stays_in_the_line_of_its_delivery(tmp_path: Path, ask: Ask) -> None:
    journal = stopped_journal(tmp_path / "data")
    publish_uploads(journal, "a")
    journal.close()
    code, out, _ = await ask("list")
    assert (code, len(out.splitlines())) == (0, 3)
    assert out.rstrip().endswith("/upload/a")


@pytest.mark.usefixtures("terminal")
async def test_long_work_tells_how_far_it_has_come(tmp_path: Path, ask: Ask) -> None:
    journal = stopped_journal(tmp_path / "data")
    fill(journal)
    journal.close()
    code, out, err = await ask("retry", "--dead")
    assert (code, out) == (0, "retried 1 delivery\n")
    assert err == "\rretried 1 so far\r\033[K"


@pytest.mark.parametrize(("width", "shown"), [(9, "abcdefghi"), (5, "abcd…"), (1, "…")])
def test_what_is_too_long_is_cut_at_its_end(width: int, shown: str) -> None:
    assert tables.cut("abcdefghi", width) == shown


async def test_a_reader_that_has_seen_enough_is_no_fault(tmp_path: Path) -> None:
    journal = stopped_journal(tmp_path / "data")
    result_of(journal.outbox.record_uploads([upload_record(f"u{number}") for number in range(1000)]))
    journal.close()
    words = [sys.executable, "-m", "gateway", "events", "list", "--directory", str(tmp_path / "data")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=PROJECT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"queue: journal")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 0


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
    state.lock.acquire()
    state.lock.release()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["show"], "needs the id of an event"),
        (["show", "e-1", "e-2"], "needs the id of an event"),
        (["show", "e-1", "--dead"], "has no --dead"),
        (["list", "e-1"], "did you mean `gateway events show`?"),
        (["list", "--since", "yesterday"], "use 2h, 7d"),
        (["list", "--since", "-5"], "use 2h, 7d"),
        (["retry"], "either ids of events or --dead"),
        (["retry", "--handler", "h"], "either ids of events or --dead"),
        (["drop", "e-1", "--dead"], "either ids of events or --dead"),
        (["drop", "--dead", "--state", "dead"], "has no --state"),
        (["replay", "--handler", "h"], "--since 2h"),
        (["replay", "e-1", "--since", "2h"], "either ids of events or --since"),
        (["pause"], "needs --handler"),
        (["resume", "h"], "accepts no id"),
        (["list", "--state", "held"], "invalid choice"),
        ([], "required"),
    ],
)
async def test_a_slip_is_told_with_a_way_on(ask: Ask, words: list[str], told: str) -> None:
    code, _, err = await ask(*words)
    assert code == 2
    assert told in err
