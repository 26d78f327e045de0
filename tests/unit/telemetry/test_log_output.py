"""The log: one line per record, no text can forge a line, context fields are on every line."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry import log_output, logs


def entry(message: str, fields: object = None, error: BaseException | None = None) -> logging.LogRecord:
    exc_info = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord("gateway.test", logging.INFO, __file__, 1, message, (), exc_info)
    if fields is not None:
        record.fields = fields
    return record


def raised(text: str) -> ValueError:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def text(message: str, fields: object = None, error: BaseException | None = None) -> str:
    return log_output.TextFormatter().format(entry(message, fields, error))


def as_json(message: str, fields: object = None, error: BaseException | None = None) -> dict[str, Any]:
    line = log_output.JsonFormatter().format(entry(message, fields, error))
    assert "\n" not in line
    parsed: dict[str, Any] = json.loads(line)
    return parsed


FORGED = "ok\n2026-01-01T00:00:00.000Z INFO    gateway.access: request status=200"


def test_a_line_has_time_level_logger_message_and_fields() -> None:
    line = text("stored", {"bytes": 5, "path": "/a b", "note": "", "pair": "k=v"})
    moment, level, name, rest = line.split(maxsplit=3)
    assert (moment[-1], level, name) == ("Z", "INFO", "gateway.test:")
    assert rest == 'stored bytes=5 path="/a b" note="" pair="k=v"'


@pytest.mark.parametrize("place", ["message", "field", "traceback"])
def test_a_second_line_cannot_pass_for_a_record_of_its_own(place: str) -> None:
    line = text(
        FORGED if place == "message" else "m",
        {"reason": FORGED.replace(" ", "_") if place == "field" else "x"},
        raised(FORGED) if place == "traceback" else None,
    )
    assert [more for more in line.splitlines()[1:] if not more.startswith("    ")] == []
    assert (len(line.splitlines()) > 1) == (place != "field")


@given(st.text(), st.text(), st.text())
def test_no_text_can_put_control_characters_or_lines_into_the_log(
    message: str, fact: str, fault: str
) -> None:
    first, *more = text(message, {"field": fact}, raised(fault)).split("\n")
    assert first.isprintable()
    assert all(line.isprintable() and line.startswith("    ") for line in more)
    assert as_json(message, {"field": fact})["field"] == fact


def test_a_json_line_has_the_same_and_its_traceback() -> None:
    line = as_json("broke", {"bytes": 5}, raised(FORGED))
    assert (line["level"], line["logger"], line["message"], line["bytes"]) == (
        "info",
        "gateway.test",
        "broke",
        5,
    )
    assert FORGED in line["traceback"]


def test_fields_that_json_cannot_express_become_text() -> None:
    assert as_json("m", {"fault": ValueError("x"), "path": b"1"}) | {"time": ""} == {
        "time": "",
        "level": "info",
        "logger": "gateway.test",
        "message": "m",
        "fault": "x",
        "path": "b'1'",
    }
    assert "fields" not in as_json("m", "not a mapping")


def test_a_json_line_carries_the_event_word_of_its_call_and_no_field_replaces_it() -> None:
    record = entry("upload failed")
    vars(record).update(logs.event("upload.failed", reason="disk_full", bytes=5, event="other"))
    line = json.loads(log_output.JsonFormatter().format(record))
    assert list(line) == ["time", "level", "logger", "event", "message", "reason", "bytes"]
    assert (line["event"], line["reason"], line["bytes"]) == ("upload.failed", "disk_full", 5)


def test_a_text_line_shows_the_fields_of_an_event_and_leaves_out_its_word() -> None:
    record = entry("upload failed")
    vars(record).update(logs.event("upload.failed", reason="disk_full"))
    assert log_output.TextFormatter().format(record).endswith(": upload failed reason=disk_full")


def test_a_line_without_an_event_word_has_no_such_key() -> None:
    assert "event" not in as_json("m", {"reason": "x"})


def test_bound_fields_are_on_every_line_inside_and_none_outside() -> None:
    with logs.bind(upload_id="u1", event_id="e1"):
        with logs.bind(event_id="e2", attempt=3):
            assert text("m", {"attempt": 4}).endswith("m upload_id=u1 event_id=e2 attempt=4")
        assert text("m").endswith("m upload_id=u1 event_id=e1")
    assert text("m").endswith(": m")


async def test_fields_bound_in_one_task_are_not_seen_in_another() -> None:
    both = asyncio.Barrier(2)

    async def task(name: str) -> dict[str, Any]:
        with logs.bind(upload_id=name):
            await both.wait()
            return as_json("m")

    lines = await asyncio.gather(task("a"), task("b"))
    assert [line["upload_id"] for line in lines] == ["a", "b"]


def test_off_a_terminal_the_log_is_json_unless_text_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log_output.configure()
    logging.getLogger("gateway.x").info("one")
    log_output.configure("text", "warning")
    logging.getLogger("gateway.x").info("not shown")
    logging.getLogger("gateway.x").warning("two")
    first, second = capsys.readouterr().err.splitlines()
    assert json.loads(first)["message"] == "one"
    assert second.endswith("WARNING gateway.x: two")


# -- on a terminal


def request_line(**fields: object) -> logging.LogRecord:
    record = entry("request")
    record.name = "gateway.access"
    record.created = 0.0
    whole = {"method": "PUT", "path": "/upload/a b", "status": 201, "ms": 35.6, "remote": "::1"}
    vars(record).update(logs.event("request.answered", **whole, **fields))
    return record


@pytest.fixture
def greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("greenwich")
def test_a_request_is_a_short_line_whose_ids_are_for_debugging() -> None:
    with logs.bind(request_id="r1", upload_id="u1"):
        short = log_output.TerminalFormatter(details=False, colour=False)
        assert short.format(request_line(bytes=10_300)) == (
            '00:00:00 PUT 201 "/upload/a b" 10.3 kB 36 ms'
        )
        whole = log_output.TerminalFormatter(details=True, colour=False).format(request_line())
        assert all(text in whole for text in ("request_id=r1", "upload_id=u1", "remote=::1"))


@pytest.mark.usefixtures("greenwich")
def test_a_failure_names_its_upstream_on_a_terminal_and_the_line_of_the_request_does_not() -> None:
    formatter = log_output.TerminalFormatter(details=False, colour=False)
    where = {"upstream": "10.0.0.5:80", "route": "api"}
    failed = entry("the upstream cannot be reached", {"request_id": "r1", **where})
    assert formatter.format(failed).endswith("cannot be reached upstream=10.0.0.5:80 route=api")
    assert formatter.format(request_line(**where)) == '00:00:00 PUT 201 "/upload/a b" 36 ms'


@pytest.mark.usefixtures("greenwich")
def test_levels_and_statuses_have_colours_and_info_has_no_word() -> None:
    formatter = log_output.TerminalFormatter(details=False, colour=True)
    assert "\x1b[32m201\x1b[0m" in formatter.format(request_line())
    failed = entry("disk is full", {"upload_id": "u1", "reason": "no_space"})
    failed.levelname, failed.created = "ERROR", 0.0
    assert formatter.format(failed) == (
        "\x1b[2m00:00:00\x1b[0m \x1b[31mERROR \x1b[0mdisk is full reason=no_space"
    )


@given(st.text(), st.text())
def test_no_text_can_put_lines_or_colours_on_a_terminal(message: str, fact: str) -> None:
    formatter = log_output.TerminalFormatter(details=True, colour=False)
    first, *more = formatter.format(entry(message, {"field": fact})).split("\n")
    assert first.isprintable()
    assert all(line.isprintable() and line.startswith("    ") for line in more)
    record = request_line()
    vars(record)["fields"] = {"method": fact, "path": message, "status": 200, "ms": 1}
    assert formatter.format(record).isprintable()


@pytest.mark.parametrize(
    ("style", "variables", "coloured"),
    [
        (None, {}, True),
        ("text", {}, True),
        (None, {"NO_COLOR": "1"}, False),
        (None, {"TERM": "dumb"}, False),
    ],
)
def test_a_terminal_gets_colours_unless_its_user_wants_none(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    style: str | None,
    variables: dict[str, str],
    coloured: bool,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda _: True)
    log_output.configure(style)
    logging.getLogger("gateway.x").warning("one")
    line = capsys.readouterr().err
    assert ("\x1b[" in line, "WARNING" in line, "gateway.x" in line) == (coloured, True, False)
    log_output.configure("json")
    logging.getLogger("gateway.x").warning("one")
    assert json.loads(capsys.readouterr().err)["message"] == "one"


# -- what a request hides


class _Shown:
    """An object whose text has a secret."""

    def __repr__(self) -> str:
        return "<Shown secret-word-1>"


def _line(logger: str, message: str, *arguments: object, **fields: object) -> dict[str, Any]:
    record = logging.LogRecord(logger, logging.INFO, __file__, 1, message, arguments, None)
    record.fields = fields
    parsed: dict[str, Any] = json.loads(log_output.JsonFormatter().format(record))
    return parsed


def test_what_a_request_hides_is_masked_in_arguments_and_fields_but_not_in_our_words() -> None:
    with logs.hide(lambda: ["secret-word-1", "upload failed"]):
        line = _line(
            "gateway.uploads", "upload failed: %s %r %d", "secret-word-1", _Shown(), 7, f="secret-word-1"
        )
    assert line["message"] == "upload failed: [redacted] <Shown [redacted]> 7"
    assert line["f"] == "[redacted]"


@pytest.mark.parametrize("logger", ["gateway.plugin.mine", "asyncio"])
def test_the_sentences_of_scripts_and_libraries_are_masked_whole(logger: str) -> None:
    with logs.hide(lambda: ["secret-word-1"]):
        assert _line(logger, "got secret-word-1 %s", "and more")["message"] == "got [redacted] and more"


def test_a_sentence_with_named_arguments_is_masked_too() -> None:
    with logs.hide(lambda: ["secret-word-1"]):
        line = _line("gateway", "got %(what)s", {"what": "secret-word-1"})
    assert line["message"] == "got [redacted]"
