"""`gateway events ...`: the same from a running server and from the journal itself."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gateway.cli.events import sources
from gateway.storage.local.state_dir import StateDirectory
from tests.conftest import StartGateway
from tests.support.cli import Ask, fill, listed, stopped_journal
from tests.support.records import claim_deliveries, publish_uploads, result_of, settle_run, upload_record

ISO_TIME = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
FIELDS = [
    "event_id", "upload_id", "handler", "event", "path", "state", "attempt", "error", "created", "due",
]  # fmt: skip


@pytest.fixture(params=["running", "stopped"])
async def filled(request: pytest.FixtureRequest, start_gateway: StartGateway, tmp_path: Path) -> str:
    """A directory with deliveries, with and without a server that owns it."""
    if request.param == "running":
        gateway = await start_gateway()
        fill(gateway.resources.journal)
    else:
        journal = stopped_journal(tmp_path / "data")
        fill(journal)
        journal.close()
    return str(request.param)


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
    assert all(re.fullmatch(ISO_TIME, dead[name]) for name in ("created", "due"))


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
    assert lines.pop(0) == "queue: journal"
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
    assert (code, out, err) == (1, "", "gateway: unknown event e-unknown\n")


@pytest.mark.parametrize("event_id", ["../uploads/dead", "..", "?state=dead", "e%2Ddead", ""])
async def test_an_id_that_is_none_does_not_reach_another_page(
    start_gateway: StartGateway, ask: Ask, event_id: str
) -> None:
    gateway = await start_gateway()
    fill(gateway.resources.journal)
    code, out, err = await ask("show", event_id)
    assert (code in {1, 2}, out) == (True, "")
    assert err.startswith("gateway: ")


# -- retry, drop, replay, pause


async def test_events_are_retried_dropped_and_replayed_by_their_ids(filled: str, ask: Ask) -> None:
    assert await ask("retry", "e-dead", "e-delayed") == (0, "retried 2 deliveries\n", "")
    assert await ask("drop", "e-dead") == (0, "dropped 1 delivery\n", "")
    assert await ask("replay", "e-done", "--json") == (0, '{"count": 1}\n', "")
    ready_now = [row["upload_id"] for row in await listed(ask, "--state", "ready")]
    assert ready_now == ["done", "delayed", "ready", "ö"]


async def test_what_is_dead_is_retried_or_dropped_at_once(filled: str, ask: Ask) -> None:
    assert await ask("retry", "--dead", "--handler", "other") == (
        0,
        "retried 0 deliveries: none that matches is dead or delayed\n",
        "",
    )
    assert await ask("retry", "--dead", "--handler", "h") == (0, "retried 1 delivery\n", "")
    code, out, _ = await ask("drop", "--dead", "--since", "1h")
    assert (code, out.partition(":")[0]) == (0, "dropped 0 deliveries")


async def test_the_dead_are_shown_in_groups_and_one_group_is_retried(filled: str, ask: Ask) -> None:
    code, out, _ = await ask("errors")
    lines = out.splitlines()
    assert (code, lines[0].split()) == (0, ["COUNT", "HANDLER", "OLDEST", "NEWEST", "EVENT"])
    assert re.fullmatch(r" +1  h  .* e-dead", lines[1])
    code, out, _ = await ask("errors", "--json", "--handler", "h")
    [group] = json.loads(out)["groups"]
    assert (code, group["count"], group["event_id"]) == (0, 1, "e-dead")
    assert re.fullmatch(ISO_TIME, group["oldest"])
    assert json.loads((await ask("errors", "--state", "delayed", "--json"))[1])["read"] == 1
    assert (await ask("errors", "--handler", "nobody"))[1] == "no deliveries\n"
    nothing = "retried 0 deliveries: none that matches is dead or delayed\n"
    assert (await ask("retry", "--dead", "--error", "another"))[1] == nothing
    done = await ask("retry", "--dead", "--handler", "h", "--error", group["error"])
    assert done == (0, "retried 1 delivery\n", "")


async def test_a_command_that_changed_nothing_tells_why(filled: str, ask: Ask) -> None:
    why = "retried 0 deliveries: h is ready; retry changes what is dead or delayed\n"
    assert await ask("retry", "e-ready") == (0, why, "")


async def test_what_was_done_since_then_is_replayed(filled: str, ask: Ask) -> None:
    code, out, _ = await ask("replay", "--since", "2099-01-01")
    assert (code, out) == (0, "replayed 0 deliveries: none that matches is done\n")
    assert await ask("replay", "--since", "2h", "--handler", "h") == (0, "replayed 1 delivery\n", "")


async def test_ids_that_nobody_knows_are_named_and_the_others_are_done(filled: str, ask: Ask) -> None:
    code, out, err = await ask("retry", "e-none", "e-dead", "../x")
    assert (code, out) == (1, "retried 1 delivery\n")
    assert err == "gateway: unknown event e-none\ngateway: unknown event ../x\n"


async def test_a_handler_is_paused_and_resumed(filled: str, ask: Ask) -> None:
    code, out, _ = await ask("pause", "--handler", "h")
    assert (code, out.startswith("paused h: ")) == (0, True)
    assert (await ask("list"))[1].splitlines()[-1] == "paused: h"
    assert await ask("resume", "--handler", "h") == (0, "resumed h\n", "")
    code, out, _ = await ask("resume", "--handler", "h", "--json")
    assert json.loads(out) == {"handler": "h", "paused": False}


# -- at a terminal


async def test_what_others_wrote_moves_no_cursor(filled: str, ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    journal = stopped_journal(tmp_path / "other")
    publish_uploads(journal, "a")
    settle_run(journal, claim_deliveries(journal)[0], "dead", "\033[2Jgone\x9b1m\nand \033]0;title\007")
    journal.close()
    for words in (["list"], ["show", "e-a"]):
        _, out, _ = await ask(*words, "--directory", str(tmp_path / "other"))
        assert "gone" in out
        assert not {"\033", "\x9b", "\007"} & set(out)


# -- nothing, and much


async def test_an_empty_list_is_an_empty_array(start_gateway: StartGateway, ask: Ask) -> None:
    await start_gateway()
    assert await ask("list", "--json") == (0, "[]\n", "")
    assert await ask("list") == (0, "queue: journal\nno deliveries\n", "")
    assert await ask("list", "--state", "dead") == (0, "queue: journal\nno deliveries match\n", "")


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("count", [500, 1201])
async def test_a_long_list_is_complete(
    start_gateway: StartGateway, ask: Ask, tmp_path: Path, running: bool, count: int
) -> None:
    journal = (
        (await start_gateway()).resources.journal if running else stopped_journal(tmp_path / "data")
    )
    names = [f"u{number}" for number in range(count)]
    result_of(journal.outbox.record_uploads([upload_record(name) for name in names]))
    if not running:
        journal.close()
    assert [row["upload_id"] for row in await listed(ask)] == names


# -- where there is no server, and where there is half of one


async def test_a_server_that_does_not_answer_is_told_as_such(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "SERVER_TIMEOUT", 0.2)
    stopped_journal(tmp_path / "data").close()
    owner = StateDirectory(tmp_path / "data" / ".gateway")
    owner.lock.acquire()
    code, out, err = await ask("list", "--json")
    owner.lock.release()
    assert (code, out) == (2, "")
    assert "the server that owns the directory does not answer" in err


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
