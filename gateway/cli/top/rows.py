"""Rows and lines of the screen, made of what the server says. Pure: no clock is read, nothing is drawn.

All texts of clients are without control characters, and none of them is markup.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from rich.text import Text

from gateway.cli.events.formatting import cut, printable
from gateway.cli.status import duration, fact_lines
from gateway.cli.top.snapshot import Snapshot
from gateway.domain.units import format_size, unix_time
from gateway.events.protocols import DeliveryRow

STYLES: Final[Mapping[str, str]] = {"bad": "bold red", "warn": "yellow", "good": "green", "": ""}
"""How each level of a fact is written: also without colours a bad one stands out."""

_STATE_LEVELS: Final[Mapping[str, str]] = {
    "stored": "good",
    "held": "warn",
    "deciding": "warn",
    "rejected": "bad",
    "failed": "bad",
    "dead": "bad",
    "delayed": "warn",
}
_MOVING: Final = frozenset({"admitting", "receiving", "committing"})
"""States of uploads that are on their way."""

_BARS: Final = "▁▂▃▄▅▆▇█"
_BAR_WIDTH: Final = 8
_NAME_WIDTH: Final = 24
_HANDLED: Final = frozenset({"handler", "handlers"})
"""Facts that have a pane of their own."""

Json = dict[str, Any]


class Row(NamedTuple):
    """A row of a pane: its key stays the same from look to look."""

    key: str
    cells: tuple[Text, ...]


ACTIVE_COLUMNS: Final = ("done", "rate", "left", "by", "file")
LATEST_COLUMNS: Final = ("at", "state", "size", "by", "file")
BACKLOG_COLUMNS: Final = ("handler", "state", "count", "age", "file and error")


def active_rows(live: Json) -> Iterator[Row]:
    """Yield the uploads on their way, the newest first."""
    for upload in live["active"]:
        cells = (
            Text(_progress(upload["bytes"], upload.get("expected"))),
            Text(_rate(upload), justify="right"),
            Text(_left(upload), justify="right"),
            Text(_name(upload)),
            Text(printable(upload["path"])),
        )
        yield Row(f"upload:{upload['upload_id']}", cells)


def latest_rows(snapshot: Snapshot) -> Iterator[Row]:
    """Yield the latest uploads that have ended, or wait; those of this run of the server first."""
    latest = {upload["upload_id"]: upload for upload in snapshot.live["latest"]}
    for upload in snapshot.listed:
        upload_id, live = upload["upload_id"], latest.get(upload["upload_id"])
        # What a process tells of a held upload stays so after the decision about it.
        if upload["state"] not in _MOVING and (live is None or live["state"] == "held"):
            latest[upload_id] = upload
    for upload_id, upload in latest.items():
        moment = upload.get("ended") or upload.get("committed") or upload["created"]
        error = Text(f"  {upload['error']}" if upload.get("error") else "", STYLES["bad"])
        cells = (
            Text(time.strftime("%H:%M:%S", time.localtime(unix_time(moment)))),
            _state(upload["state"]),
            Text(format_size(upload["bytes"] or 0), justify="right"),
            Text(_name(upload)),
            Text(printable(upload["path"])).append_text(error),
        )
        yield Row(f"upload:{upload_id}", cells)


def backlog_rows(snapshot: Snapshot) -> Iterator[Row]:
    """Yield what waits for each handler, those with dead deliveries first, each of these below."""
    groups: dict[str, list[Json]] = {}
    for depth in snapshot.facts.get("deliveries", ()):
        groups.setdefault(depth["handler"], []).append(depth)
    paused = snapshot.facts.get("paused", ())
    dead: dict[str, list[DeliveryRow]] = {}
    for row in snapshot.dead:
        dead.setdefault(row.handler, []).append(row)
    for handler in sorted(groups, key=lambda name: (name not in dead, name)):
        for depth in sorted(groups[handler], key=lambda depth: depth["state"] != "dead"):
            yield _group(depth, snapshot.moment, note="paused" if handler in paused else "")
        yield from (_delivery(row, snapshot.moment) for row in dead.get(handler, ()))


def _group(depth: Json, now: float, note: str) -> Row:
    cells = (
        Text(cut(printable(depth["handler"]), _NAME_WIDTH), "bold"),
        _state(depth["state"]),
        Text(f"{depth['count']:,}", justify="right"),
        Text(_age(now - unix_time(depth["oldest"])), justify="right"),
        Text(note, STYLES["warn"]),
    )
    return Row(f"group:{depth['state']}:{depth['handler']}", cells)


def _delivery(row: DeliveryRow, now: float) -> Row:
    error = printable((row.error or "").partition("\n")[0])
    about = Text(f"{printable(row.path or row.event_id)}  ").append(error, STYLES["bad"])
    cells = (
        Text(f"  tries {row.attempt}"),
        Text("dead"),
        Text(""),
        Text(_age(now - row.created), justify="right"),
        about,
    )
    return Row(f"delivery:{row.event_id}:{row.handler}", cells)


def title_line(snapshot: Snapshot) -> Text:
    """Return the version, the URL and how long the server is up."""
    facts = snapshot.facts
    up = duration(snapshot.moment - unix_time(facts["started"]))
    return Text(f"gateway {facts['version']}  {facts['url']}  up {up}")


def figure_lines(snapshot: Snapshot, history: Sequence[float]) -> Text:
    """Return rates, uploads, disk and processes. `history` are the latest rates in bytes a second."""
    facts, live = snapshot.facts, snapshot.live
    rates = live["rates"]
    parts = [
        Text(f"{format_size(int(rates['bytes_per_second'] or 0))}/s {sparkline(history)}", "bold"),
        Text(f"{rates['requests_per_second'] or 0:.0f} requests/s"),
        Text(f"{live['active_count']} on their way"),
    ]
    if failing := (rates["by_status"] or {}).get("5xx"):
        parts.append(Text(f"{failing:.1f}/s fail with 5xx", STYLES["bad"]))
    if (disk := facts.get("disk")) is not None:
        level = "" if disk["accepts_uploads"] else "bad"
        parts.append(Text(f"{format_size(disk['free'])} free", STYLES[level]))
    if facts["processes"] > 1:
        parts.append(Text(f"{facts['processes']} processes"))
    return Text("  ·  ").join(parts)


def attention_lines(snapshot: Snapshot) -> list[Text]:
    """Return what needs attention, the worst first: upstreams, faults, quotas, keys, what is unknown."""
    lines = [
        (level != "bad", f"{name}: {printable(text)}", level)
        for name, text, level in fact_lines(snapshot.facts, snapshot.moment)
        if level in {"bad", "warn"} and name not in _HANDLED
    ]
    return [Text(text, STYLES[level]) for _, text, level in sorted(lines, key=lambda line: line[0])]


def sparkline(values: Sequence[float]) -> str:
    """Return values as bars, the highest of them as a full one."""
    top = max(values, default=0.0)
    if top <= 0:
        return _BARS[0] * len(values)
    return "".join(_BARS[min(int(value / top * len(_BARS)), len(_BARS) - 1)] for value in values)


def _progress(received: int, expected: int | None) -> str:
    if not expected:
        return f"{format_size(received):>{_BAR_WIDTH + 5}}"
    share = min(received / expected, 1.0)
    full = int(share * _BAR_WIDTH)
    return f"{'█' * full}{'░' * (_BAR_WIDTH - full)} {share:>4.0%}"


def _rate(upload: Json) -> str:
    if upload["state"] != "receiving":
        return str(upload["state"])
    return f"{format_size(int(upload.get('rate') or 0))}/s"


def _left(upload: Json) -> str:
    rate, expected = upload.get("rate"), upload.get("expected")
    if not rate or not expected or upload["state"] != "receiving":
        return ""
    return duration(max(expected - upload["bytes"], 0) / rate)


def _age(seconds: float) -> str:
    return duration(seconds).partition(" ")[0]


def _name(upload: Json) -> str:
    principal = upload.get("principal")
    return printable(principal["name"]) if principal else "-"


def _state(state: str) -> Text:
    return Text(state, STYLES[_STATE_LEVELS.get(state, "")])
