"""The log: one line per fact, nothing that is logged can look like a line, facts travel along."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry import logs


def entry(message: str, facts: object = None, fault: BaseException | None = None) -> logging.LogRecord:
    exc_info = None if fault is None else (type(fault), fault, fault.__traceback__)
    made = logging.LogRecord("gateway.test", logging.INFO, __file__, 1, message, (), exc_info)
    if facts is not None:
        made.facts = facts
    return made


def raised(text: str) -> ValueError:
    try:
        raise ValueError(text)
    except ValueError as fault:
        return fault


def text(message: str, facts: object = None, fault: BaseException | None = None) -> str:
    return logs.TextFormatter().format(entry(message, facts, fault))


def as_json(message: str, facts: object = None, fault: BaseException | None = None) -> dict[str, Any]:
    line = logs.JsonFormatter().format(entry(message, facts, fault))
    assert "\n" not in line
    found: dict[str, Any] = json.loads(line)
    return found


FORGED = "ok\n2026-01-01T00:00:00.000Z INFO    gateway.access: request status=200"


def test_a_line_tells_when_how_grave_who_and_what() -> None:
    line = text("stored", {"bytes": 5, "path": "/a b", "note": "", "pair": "k=v"})
    moment, level, name, rest = line.split(maxsplit=3)
    assert (moment[-1], level, name) == ("Z", "INFO", "gateway.test:")
    assert rest == 'stored bytes=5 path="/a b" note="" pair="k=v"'


@pytest.mark.parametrize("place", ["message", "fact", "traceback"])
def test_a_second_line_cannot_pass_for_a_record_of_its_own(place: str) -> None:
    line = text(
        FORGED if place == "message" else "m",
        {"reason": FORGED.replace(" ", "_") if place == "fact" else "x"},
        raised(FORGED) if place == "traceback" else None,
    )
    assert [more for more in line.splitlines()[1:] if not more.startswith("    ")] == []
    assert (len(line.splitlines()) > 1) == (place != "fact")


@given(st.text(), st.text(), st.text())
def test_no_text_can_bring_control_characters_or_lines_into_the_log(
    message: str, fact: str, fault: str
) -> None:
    first, *more = text(message, {"fact": fact}, raised(fault)).split("\n")
    assert first.isprintable()
    assert all(line.isprintable() and line.startswith("    ") for line in more)
    assert as_json(message, {"fact": fact})["fact"] == fact


def test_a_json_line_tells_the_same_and_keeps_the_traceback_in_it() -> None:
    line = as_json("broke", {"bytes": 5}, raised(FORGED))
    assert (line["level"], line["logger"], line["message"], line["bytes"]) == (
        "info",
        "gateway.test",
        "broke",
        5,
    )
    assert FORGED in line["traceback"]


def test_facts_that_json_does_not_know_are_told_as_text() -> None:
    assert as_json("m", {"fault": ValueError("x"), "path": b"1"}) | {"time": ""} == {
        "time": "",
        "level": "info",
        "logger": "gateway.test",
        "message": "m",
        "fault": "x",
        "path": "b'1'",
    }
    assert "facts" not in as_json("m", "not a mapping")


def test_a_json_line_carries_the_event_word_of_its_call_and_no_field_replaces_it() -> None:
    record = entry("upload failed")
    vars(record).update(logs.event("upload.failed", reason="disk_full", bytes=5, event="other"))
    line = json.loads(logs.JsonFormatter().format(record))
    assert list(line) == ["time", "level", "logger", "event", "message", "reason", "bytes"]
    assert (line["event"], line["reason"], line["bytes"]) == ("upload.failed", "disk_full", 5)


def test_a_text_line_shows_the_fields_of_an_event_and_leaves_out_its_word() -> None:
    record = entry("upload failed")
    vars(record).update(logs.event("upload.failed", reason="disk_full"))
    assert logs.TextFormatter().format(record).endswith(": upload failed reason=disk_full")


def test_a_line_without_an_event_word_has_no_such_key() -> None:
    assert "event" not in as_json("m", {"reason": "x"})


def test_bound_facts_are_on_every_line_inside_and_none_outside() -> None:
    with logs.bind(upload_id="u1", event_id="e1"):
        with logs.bind(event_id="e2", attempt=3):
            assert text("m", {"attempt": 4}).endswith("m upload_id=u1 event_id=e2 attempt=4")
        assert text("m").endswith("m upload_id=u1 event_id=e1")
    assert text("m").endswith(": m")


async def test_facts_bound_in_one_task_are_not_seen_in_another() -> None:
    both = asyncio.Barrier(2)

    async def task(name: str) -> dict[str, Any]:
        with logs.bind(upload_id=name):
            await both.wait()
            return as_json("m")

    lines = await asyncio.gather(task("a"), task("b"))
    assert [line["upload_id"] for line in lines] == ["a", "b"]


@pytest.fixture
def logs_as_before() -> Iterator[None]:
    loggers = [logging.getLogger("gateway"), logging.getLogger()]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    yield
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.mark.usefixtures("logs_as_before")
def test_off_a_terminal_the_log_is_json_unless_text_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure()
    logging.getLogger("gateway.x").info("one")
    logs.configure("text", "warning")
    logging.getLogger("gateway.x").info("not shown")
    logging.getLogger("gateway.x").warning("two")
    first, second = capsys.readouterr().err.splitlines()
    assert json.loads(first)["message"] == "one"
    assert second.endswith("WARNING gateway.x: two")
