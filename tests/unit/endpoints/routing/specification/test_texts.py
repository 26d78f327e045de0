"""JSON and YAML of OpenAPI documents: the types of JSON, and the line of every key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.endpoints.routing.specification.json_text import JsonText
from gateway.endpoints.routing.specification.source import read_source
from gateway.endpoints.routing.specification.yaml_text import YamlText
from gateway.errors import ConfigError

JSON = """{
  "a": {"b": [1,
    {"c": null}], "\\u0064": 2},

  "e": []
}"""
YAML = """\
a: &first
  b:
  - 1
  - c:
  d: 2

e: []
f: *first
g: {<<: *first, d: 3}
"""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("NO", "NO"), ("on", "on"), ("yes", "yes"), ("2020-01-01", "2020-01-01"), ("1:30", "1:30"),
        ("1_000", "1_000"), ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("12", 12), ("-7", -7), ("0o17", 15), ("0x1F", 31), ("010", 10), ("1.5", 1.5), ("1e3", 1000.0),
        (".5", 0.5), ("3.0.3", "3.0.3"), (".inf", ".inf"), (".nan", ".nan"), ("'12'", "12"),
        ('"true"', "true"), ("!!str 12", "12"), ("-", [None]), ("text", "text"),
    ],
)  # fmt: skip
def test_yaml_has_the_types_of_json(text: str, value: Any) -> None:
    assert YamlText("x", f"a: {text}\n" if value != [None] else "a:\n- \n").data == {"a": value}


LETTERS = st.characters(max_codepoint=0xD7FF)  # YAML escapes no half of a surrogate pair
TEXT = st.text(LETTERS)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(LETTERS, max_size=50), inner),
)


@given(value=ANY_JSON)
def test_json_is_yaml(value: Any) -> None:
    text = json.dumps({"value": value})
    assert YamlText("x", text).data == JsonText("x", text).data == {"value": value}


@pytest.mark.parametrize(
    ("where", "line"),
    [((), 1), (("a",), 2), (("a", "b", 0), 2), (("a", "b", 1), 3), (("a", "b", 1, "c"), 3),
     (("a", "d"), 3), (("e",), 5), (("e", 0), 5), (("a", "x", "y"), 2)],
)  # fmt: skip
def test_keys_of_json_have_lines(where: tuple[str | int, ...], line: int) -> None:
    assert JsonText("x", JSON).line(where) == line


@pytest.mark.parametrize(
    ("where", "line"),
    [((), 1), (("a",), 1), (("a", "b", 0), 3), (("a", "b", 1, "c"), 4), (("a", "d"), 5), (("e",), 7),
     (("f", "d"), 5), (("g", "d"), 9), (("g", "b"), 2), (("a", "x"), 1)],
)  # fmt: skip
def test_keys_of_yaml_have_lines(where: tuple[str | int, ...], line: int) -> None:
    assert YamlText("x", YAML).line(where) == line


def test_an_alias_is_its_anchor_and_a_merge_key_gives_what_is_missing() -> None:
    data = YamlText("x", YAML).data
    assert data == yaml.safe_load(YAML)
    assert data["f"] is data["a"]


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("x.json", '{"a": 1,\n "b": {"a": 1},\n "a": 2}', "3: the key `a` stands in one object twice"),
        ("x.json", '{"a": 1,\n', "2: this is not JSON: Expecting property name"),
        ("x.json", '{"a": NaN}', "this is not JSON: NaN"),
        ("x.json", "[" * 100_000, "values are nested too deep"),
        ("x.yaml", "a: 1\nb: 2\na: 3\n", "3: the key `a` stands here twice, first in line 1"),
        ("x.yaml", "a: [1\nb: 2\n", "2: this is not YAML: "),
        ("x.yaml", "a: b\n? [1]\n: 2\n", "2: a key must be a plain word"),
        ("x.yaml", "a: *b\n", "1: "),
        ("x.yaml", "a: " + "[" * 300, "1: values are nested more than 200 deep"),
        ("x.yaml", "a: 1\n---\nb: 2\n", "this file has several YAML documents"),
        ("x.yaml", "a: \x01", "this is not YAML: "),
        ("x.yaml", "swagger: '2.0'\n", "1: this is Swagger 2.0, which is not read"),
        ("x.yaml", "info: {}\nopenapi: 4.0.0\n", "2: OpenAPI 3.0 and 3.1 are read"),
        ("x.yaml", "- 1\n", "1: this is no OpenAPI document"),
        ("x.yaml", "", "1: this is no OpenAPI document"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(
    tmp_path: Path, name: str, text: str, fault: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_source(tmp_path / name)
    assert str(caught.value).removeprefix(f"{tmp_path}/{name}:").lstrip().startswith(fault)


def test_merges_that_copy_more_and_more_keys_are_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.endpoints.routing.specification.yaml_text.MAX_MERGED", 1000)
    rows = ["x0: &x0 {a: 1}", *(f"x{n}: &x{n} {{<<: *x{n - 1}, k{n}: 1}}" for n in range(1, 60))]
    with pytest.raises(ConfigError, match=r"x:46: merges \(`<<`\) copy more than 1000 keys"):
        YamlText("x", "\n".join(rows))
    assert len(YamlText("x", "\n".join(rows[:20])).data["x19"]) == 20


def test_the_second_of_very_many_names_is_found() -> None:
    names = [f'"k{number}": 1' for number in range(100_000)]
    with pytest.raises(ConfigError, match="the key `k99999` stands in one object twice"):
        JsonText("x", "{" + ",".join([*names, names[-1]]) + "}")


def test_a_file_that_is_too_large_or_missing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.endpoints.routing.specification.source.MAX_BYTES", 10)
    (tmp_path / "x.yaml").write_text("openapi: 3.1.0\n")
    with pytest.raises(ConfigError, match="the document has 15 bytes: at most 10 are read"):
        read_source(tmp_path / "x.yaml")
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_source(tmp_path / "y.yaml")
