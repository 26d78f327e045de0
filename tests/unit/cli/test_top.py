"""`gateway top`: the rows of what a server says; nobody else imports Textual."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from gateway.cli.top import rows
from gateway.cli.top.snapshot import Snapshot
from gateway.domain.units import iso_time
from gateway.events.protocols import DeliveryRow
from tests.support import PROJECT

NOW = 1_796_000_000.0
BIDI = "\u202etxt.\x1b[31mexe"
SHOWN = "\ufffdtxt.\ufffd[31mexe"


def snapshot(**changes: Any) -> Snapshot:
    facts = {
        "version": "1.0",
        "started": iso_time(NOW - 3700),
        "url": "http://x:1",
        "directory": "/d",
        "storage": "file",
        "authorization": "none",
        "events": "journal",
        "processes": 2,
        "silent_processes": [],
        "uploads": {"in_flight": 0, "held": 1, "failed": 2, "resumable": 0},
        "disk": {"free": 5_000_000, "kept_free": 0, "accepts_uploads": True},
    }
    rates: dict[str, Any] = {"bytes_per_second": None, "requests_per_second": None, "by_status": {}}
    live = {"active": [], "active_count": 0, "latest": [], "rates": rates}
    parts: dict[str, Any] = {"facts": facts, "live": live, "dead": [], "listed": [], "moment": NOW}
    for name, value in changes.items():
        parts[name] = {**parts[name], **value} if isinstance(value, dict) else value
    return Snapshot(**parts)


def texts(shown: Any) -> list[list[str]]:
    return [[cell.plain for cell in row.cells] for row in shown]


def upload(**fields: Any) -> dict[str, Any]:
    row = {
        "upload_id": "u",
        "state": "receiving",
        "path": "/upload/a",
        "bytes": 250,
        "expected": 1000,
        "rate": 50.0,
        "principal": {"name": "ann", "kind": "token"},
        "created": iso_time(NOW),
    }
    return {**row, **fields}


def test_an_active_upload_has_progress_rate_time_left_and_principal() -> None:
    active = [upload(), upload(expected=None, rate=None), upload(state="committing", bytes=1000)]
    assert texts(rows.active_rows({"active": active})) == [
        ["██░░░░░░  25%", "50 B/s", "15s", "ann", "/upload/a"],
        ["        250 B", "0 B/s", "", "ann", "/upload/a"],
        ["████████ 100%", "committing", "", "ann", "/upload/a"],
    ]


def test_texts_of_clients_neither_control_the_terminal_nor_are_markup() -> None:
    hostile = upload(path=f"/upload/{BIDI}[b]", principal={"name": BIDI, "kind": "token"})
    dead = DeliveryRow("e", "u", "h", "t", BIDI, "dead", 3, f"{BIDI}\nsecond", NOW, NOW)
    depth = {"handler": "h", "state": "dead", "count": 1000, "oldest": iso_time(NOW - 7300)}
    for look in (
        texts(rows.active_rows({"active": [hostile]})),
        texts(rows.latest_rows(snapshot(listed=[{**hostile, "state": "stored"}]))),
        texts(rows.backlog_rows(snapshot(facts={"deliveries": [depth]}, dead=[dead]))),
    ):
        cells = "".join(cell for row in look for cell in row)
        assert SHOWN in cells
        assert cells.isprintable()
        assert "second" not in cells


def test_handlers_with_dead_deliveries_come_first_each_dead_one_below() -> None:
    deliveries = [
        {"handler": handler, "state": state, "count": count, "oldest": iso_time(NOW - 90)}
        for handler, state, count in (("a", "ready", 1), ("z", "delayed", 2), ("z", "dead", 3000))
    ]
    dead = [DeliveryRow("e", "u", "z", "t", "/upload/a", "dead", 8, "no luck", NOW - 90, NOW)]
    look = rows.backlog_rows(snapshot(facts={"deliveries": deliveries, "paused": ["z"]}, dead=dead))
    assert [(row.key, [cell.plain for cell in row.cells]) for row in look] == [
        ("group:dead:z", ["z", "dead", "3,000", "1m", "paused"]),
        ("group:delayed:z", ["z", "delayed", "2", "1m", "paused"]),
        ("delivery:e:z", ["  tries 8", "dead", "", "1m", "/upload/a  no luck"]),
        ("group:ready:a", ["a", "ready", "1", "1m", ""]),
    ]


def test_latest_uploads_are_those_of_this_run_then_older_ones_each_once() -> None:
    latest = [upload(upload_id="2", state="failed", error="upload_broken", ended=iso_time(NOW))]
    listed = [upload(upload_id=each, state="stored") for each in ("3", "2", "1")]
    moving = upload(upload_id="4")
    look = [*rows.latest_rows(snapshot(live={"latest": latest}, listed=[moving, *listed]))]
    assert [row.key for row in look] == ["upload:2", "upload:3", "upload:1"]
    assert look[0].cells[-1].plain == "/upload/a  upload_broken"


def test_a_held_upload_is_what_the_journal_tells_after_its_decision() -> None:
    held = [upload(upload_id=each, state="held", ended=iso_time(NOW)) for each in ("1", "2")]
    listed = [upload(upload_id="1", state="stored"), upload(upload_id="2", state="held")]
    look = [*rows.latest_rows(snapshot(live={"latest": held}, listed=listed))]
    assert [(row.key, row.cells[1].plain) for row in look] == [
        ("upload:1", "stored"),
        ("upload:2", "held"),
    ]


def test_figures_and_what_needs_attention_are_lines() -> None:
    failing = {"bytes_per_second": 2e6, "requests_per_second": 40.4, "by_status": {"5xx": 1.5}}
    down = {"upstream": "u:1", "processes": 2, "routes": ["r"], "route_count": 1}
    look = snapshot(live={"rates": failing, "active_count": 3}, facts={"upstreams_down": [down]})
    assert rows.figure_lines(look, [0.0, 1e6, 2e6]).plain == (
        "2.0 MB/s ▁▅█  ·  40 requests/s  ·  3 on their way  ·  1.5/s fail with 5xx  ·"
        "  5.0 MB free  ·  2 processes"
    )
    assert rows.title_line(look).plain == "gateway 1.0  http://x:1  up 1h 1m"
    assert [line.plain for line in rows.attention_lines(look)] == [
        "upstream: u:1 is out in 2 of 2 processes: requests or probes fail; routes r",
        "uploads: 0 in flight, 0 resumable, 1 held",
        "last hour: 2 failed: gateway uploads list --since 1h",
    ]


def test_other_verbs_and_the_help_do_without_textual() -> None:
    program = (
        "import sys, gateway.cli, gateway.cli.serve, gateway.cli.status, gateway.cli.top\n"
        "print(sorted({'textual', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=PROJECT, check=True
    )
    assert done.stdout == "[]\n"
