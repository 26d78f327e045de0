"""The published spelling of route keys: read as the documented one, never beside it."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from gateway.errors import ConfigError
from gateway.plugins.legacy_keys import ROUTE_KEYS, translate
from gateway.plugins.schema import schema_text
from gateway.plugins.yaml_documents import Document, read_file
from tests.support import PROJECT
from tests.support.routing.scripted import load

LEGACY = """\
authorities: [{authority}]
proxy: {{path: /a, authorization: {{auth_mode: {auth_mode}}}}}
request_forbidden_process: |
  return 1
response_forbidden_process: return 2
"""
DOCUMENTED = """\
upstreams: [{upstream}]
proxy: {{path: /a, authorization: {{auth: {auth}}}}}
request_script: |
  return 1
response_script: return 2
"""
SCHEMA = jsonschema.Draft202012Validator(json.loads(schema_text()))


def read(folder: Path, text: str) -> Document:
    (folder / "x.yaml").write_text(text)
    return read_file(folder / "x.yaml")[0]


@pytest.mark.parametrize(
    ("legacy", "documented"),
    [
        (("0.0.0.0", "axis"), ("", "default")),
        (("up:80, other", "token"), ("up:80, other", "token")),
        (("'[::1]:80'", "jwt"), ("'[::1]:80'", "jwt")),
        (("0.0.0.0", "none"), ("", "none")),
    ],
)
def test_legacy_words_are_read_as_the_documented_ones(
    tmp_path: Path, legacy: tuple[str, str], documented: tuple[str, str]
) -> None:
    old = read(tmp_path, LEGACY.format(authority=legacy[0], auth_mode=legacy[1]))
    new = read(tmp_path, DOCUMENTED.format(upstream=documented[0], auth=documented[1]))
    made = translate(old, ROUTE_KEYS)
    assert made.data == new.data
    for where in (("upstreams",), ("proxy", "authorization", "auth"), ("request_script",)):
        assert made.line(*where) == new.line(*where)
    assert made.source("request_script") == new.source("request_script")
    assert SCHEMA.is_valid(old.data)
    assert SCHEMA.is_valid(new.data)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "authorities: [up]\nproxy: {path: /a}\nupstreams: []\n",
            "x.yaml:1: `authorities` and `upstreams` are two spellings of one key (lines 1 and 3):"
            " keep `upstreams`",
        ),
        (
            "upstreams: []\nproxy:\n  path: /a\n  authorization:\n    auth: none\n    auth_mode: none\n",
            "x.yaml:6: `auth_mode` and `auth` are two spellings of one key (lines 5 and 6): keep `auth`",
        ),
        (
            "upstreams: []\nproxy: {path: /a}\nrequest_script: x\nrequest_forbidden_process: x\n",
            "x.yaml:4: `request_forbidden_process` and `request_script` are two spellings of one key"
            " (lines 3 and 4): keep `request_script`",
        ),
    ],
)
def test_both_spellings_of_a_key_are_refused_with_their_lines(
    tmp_path: Path, text: str, fault: str
) -> None:
    document = read(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        translate(document, ROUTE_KEYS)
    assert str(caught.value) == f"{tmp_path}/{fault}"
    assert not SCHEMA.is_valid(document.data)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("authorities: []\nproxy: {path: /a}\n", "1: `authorities` is empty: write `upstreams: []`"),
        ("authorities: [0.0.0.0, b]\nproxy: {path: /a}\n", "1: 0.0.0.0 in `authorities` means no"),
        ("authorities: [5]\nproxy: {path: /a}\n", "1: `authorities.0` should be host or host:port"),
        ("authorities: up\nproxy: {path: /a}\n", "1: `authorities` should be a valid list"),
        (
            "authorities: [up]\nproxy:\n  path: /a\n  authorization: {auth_mode: open}\n",
            "4: `proxy.authorization.auth_mode` should be 'default'",
        ),
        (
            "upstreams: []\nproxy: {path: /a}\nresponse_forbidden_process: |\n  a = 1\n  return )\n",
            "5: syntax error in the script",
        ),
        ("authorities: ['http://up']\nproxy: {path: /a}\n", "1: an upstream is host or host:port"),
    ],
)
def test_faults_name_a_legacy_key_as_it_is_written(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/0.yaml:{fault}")


def test_an_anchor_is_translated_only_where_it_is_a_route(tmp_path: Path) -> None:
    text = "authorities: [0.0.0.0]\nproxy: &p {path: /a, authorization: {auth_mode: axis}}\nspare: *p\n"
    document = read(tmp_path, text)
    made = translate(document, ROUTE_KEYS)
    assert made.data["proxy"]["authorization"] == {"auth": "default"}
    assert made.data["spare"]["authorization"] == {"auth_mode": "axis"}
    assert document.data["authorities"] == ["0.0.0.0"]


def test_the_page_of_legacy_words_names_all_of_them() -> None:
    page = (PROJECT / "docs/reference/legacy-plugin-words.md").read_text()
    for key in ROUTE_KEYS:
        assert f"| `{key.old}: " in page
        assert f" | `{key.new}: " in page


def test_shipped_plugins_use_the_documented_words() -> None:
    for file in sorted((PROJECT / "plugins").rglob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            for plugin in document if isinstance(document, list) else [document]:
                assert not {key.old for key in ROUTE_KEYS} & set(plugin), file
                assert "auth_mode" not in str(plugin), file
