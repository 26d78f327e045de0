"""Tests of what scripts are given: event, headers, MU, configs, decisions, errors in YAML lines."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.event_bodies import uploading_event
from gateway.domain.model import Upload
from gateway.errors import ConfigError
from gateway.plugins.scripting.compile import ScriptSource, compile_source
from gateway.plugins.scripting.decision import Handle, InvalidResult, read_changes
from gateway.plugins.scripting.values import MU, Configs, Event, Headers


def upload(**values: Any) -> Upload:
    return Upload(id="u-0", path="/upload/a", headers={"X-Auth-Token": "t", "Host": "h"}, **values)


def test_a_missing_key_with_a_hyphen_is_looked_up_among_the_headers() -> None:
    event = Event(uploading_event(upload()))
    assert event.get("x-auth-token") == event["X-AUTH-TOKEN"] == "t"
    assert "X-Auth-Token" in event
    assert event.get("X-Other") is None
    assert event.get("X-Other", 1) == 1


def test_a_missing_key_without_a_hyphen_never_comes_from_the_headers() -> None:
    event = Event(uploading_event(upload()))
    assert event.get("Host") is None
    assert "Host" not in event
    with pytest.raises(KeyError):
        event["Host"]


def test_a_key_of_the_event_goes_before_a_header_of_that_name() -> None:
    assert Event({"x-a": 1, "headers": {"x-a": "2"}})["x-a"] == 1


def test_an_event_is_written_as_json_like_any_dict() -> None:
    event = Event(uploading_event(upload(params={"q": ["1", "2"]})))
    assert json.loads(json.dumps(event)) == dict(event)


def test_a_copy_of_an_event_shares_nothing_with_it() -> None:
    event = Event(uploading_event(upload(params={"q": ["1"]}, principal={"roles": ["a"]})))
    other = event.copy()
    other["params"]["q"].append("2")
    other["headers"]["Host"] = "x"
    other["principal"]["roles"].append("b")
    assert (event["params"], event["headers"]["host"]) == ({"q": ["1"]}, "h")
    assert event["principal"] == {"roles": ["a"]}


@given(st.dictionaries(st.text("aB-", min_size=1, max_size=3), st.text(max_size=3)))
def test_headers_are_found_in_every_case_and_set_once(values: dict[str, str]) -> None:
    headers = Headers()
    for name, value in values.items():
        headers[name] = value
    for name in values:
        assert headers[name.upper()] == headers[name.lower()]
        assert name.swapcase() in headers
    assert len(headers) == len({name.lower() for name in values})


def test_mu_reads_and_writes_attributes_through_dicts_and_lists() -> None:
    value = MU({"a": {"b": [{"c": 1}]}}, d=2)
    assert (value.a.b[0].c, value.d) == (1, 2)
    value.e = {"f": 3}
    value.update(g={"h": 4})
    assert (value.e.f, value.g.h, value.setdefault("i", {"j": 5}).j) == (3, 4, 5)
    del value.d
    assert "d" not in value
    assert json.loads(json.dumps(value))["a"] == {"b": [{"c": 1}]}
    assert copy.deepcopy(value) == value


def test_mu_tells_the_keys_there_are() -> None:
    with pytest.raises(AttributeError, match="no key 'c'; the keys are: a, b"):
        _ = MU(a=1, b=2).c


def test_configs_come_as_copies_that_do_not_show_their_values() -> None:
    configs = Configs({"one": {"key": "hunter22", "deep": [{"key": "hunter22"}]}}, ["hunter22"])
    for mu in (False, True):
        value = configs.get("one", mu)
        assert value["deep"][0]["key"] == "hunter22"
        assert "hunter22" not in f"{value} {value!r} {value['deep']} {configs!r}"
        value["key"] = "changed"
    assert configs.get("one", mu_conversion=True)["key"] == "hunter22"
    assert configs.mask("it was hunter22!") == "it was [redacted]!"


def test_an_unknown_config_is_an_error_that_lists_the_names() -> None:
    with pytest.raises(LookupError, match="'three'; the names are: one, two"):
        Configs({"two": {}, "one": {}}).get("three")


async def test_terminate_decides_at_once_and_can_be_awaited() -> None:
    handle = Handle()
    await handle.terminate(code=401, output="Unauthorized")
    assert handle.verdict is not None
    assert (handle.verdict.code, handle.verdict.body) == (401, b"Unauthorized")
    assert handle.verdict.content_type == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("output", "body", "content_type"),
    [
        (None, b"", "text/plain; charset=utf-8"),
        ({"a": "ä"}, '{"a": "ä"}'.encode(), "application/json"),
        ([1], b"[1]", "application/json"),
        (b"\x00", b"\x00", "application/octet-stream"),
    ],
)
def test_terminate_writes_its_output(output: Any, body: bytes, content_type: str) -> None:
    handle = Handle()
    handle.terminate(403, output)
    assert handle.verdict is not None
    assert (handle.verdict.body, handle.verdict.content_type) == (body, content_type)


@pytest.mark.parametrize(
    ("codes", "final"), [([401, 200], 401), ([401, 403], 401), ([200, 403], 403), ([200, 204], 204)]
)
def test_the_first_refusal_is_final(codes: list[int], final: int) -> None:
    handle = Handle()
    for code in codes:
        handle.terminate(code)
    assert handle.verdict is not None
    assert handle.verdict.code == final


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("401", None),
        (99, None),
        (600, None),
        (True, None),
        (401, 5),
        (401, {"a": object()}),
        (401, "\ud800"),
    ],
)
def test_terminate_without_meaning_is_noted_even_if_the_script_swallows_the_error(
    code: Any, output: Any
) -> None:
    handle = Handle()
    with pytest.raises(InvalidResult):
        handle.terminate(code, output)
    handle.terminate(200)
    assert handle.invalid is not None


@pytest.mark.parametrize(
    "change",
    [
        {"path": 1},
        {"path": None},
        {"max_bytes": -1},
        {"max_bytes": "5"},
        {"max_bytes": True},
        {"on_conflict": "ask"},
        {"on_conflict": ["replace"]},
        {"on_conflict": None},
    ],
)
def test_changes_without_meaning_are_junk(change: dict[str, Any]) -> None:
    event = Event(uploading_event(upload()))
    event.update(change)
    with pytest.raises(InvalidResult):
        read_changes(event)


def test_a_deleted_path_is_junk_and_a_header_does_not_stand_in_for_it() -> None:
    event = Event(uploading_event(upload()))
    del event["path"]
    with pytest.raises(InvalidResult):
        read_changes(event)


def test_only_what_was_set_counts_as_asked() -> None:
    event = Event(uploading_event(upload()))
    assert read_changes(event).keys == frozenset()
    event.update(max_bytes=0, path="x/y")
    changes = read_changes(event)
    assert (changes.keys, changes.max_bytes, changes.path) == (frozenset({"max_bytes"}), 0, "/x/y")


@pytest.mark.parametrize(
    ("text", "line"), [("a = 1\nb = = 2\n", 12), ("\n\nreturn 5\n", 13), ("x = '\0'", 11)]
)
def test_a_syntax_error_tells_the_line_of_the_file(text: str, line: int) -> None:
    with pytest.raises(ConfigError) as caught:
        compile_source(ScriptSource(text, "p.yaml", 11, 2))
    assert (caught.value.file, caught.value.line) == ("p.yaml", line)


def test_strings_over_several_lines_keep_their_text() -> None:
    names: dict[str, Any] = {}
    exec(compile_source(ScriptSource('s = """a\n b"""\nf = f"{s}\\n{1:>{2}}"\n', "p.yaml", 3, 4)), names)
    assert (names["s"], names["f"]) == ("a\n b", "a\n b\n 1")
