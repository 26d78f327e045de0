"""`gateway routes from-openapi` prints plugins that make the routes of a plugin with `openapi`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.cli import main
from gateway.endpoints.routing.model import Operation, Route
from tests.support.cli import Check
from tests.support.routing.openapi import PETS, plugin_text, write_document
from tests.support.routing.scripted import load

Output = pytest.CaptureFixture[str]


def printed(capsys: Output, *words: str) -> str:
    assert main(["routes", "from-openapi", *words]) == 0
    return capsys.readouterr().out


def plain(value: Any) -> Any:
    """Return a route without its place and its compiled checks."""
    if isinstance(value, Route | Operation):
        fields = {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
        return {name: each for name, each in fields.items() if name not in ("place", "auth")}
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return "a check" if callable(value) else value


@pytest.mark.parametrize("path", [None, "/shop"])
def test_the_output_makes_the_same_routes_as_the_plugin(
    tmp_path: Path, capsys: Output, path: str | None
) -> None:
    file = write_document(tmp_path / "plugin", PETS)
    keys = f", path: {path}" if path else ""
    table = load(tmp_path / "plugin", plugin_text("pets.yaml", upstream="up:1", keys=keys))
    flags = ["--path", path] if path else []
    text = printed(capsys, str(file), "--upstream", "up:1", *flags)
    others = load(tmp_path / "printed", text)
    assert len(table.routes) == 4
    made = {each.name: plain(each) for each in table.routes}
    assert {each.name: plain(each) for each in others.routes} == made


def test_the_upstream_is_the_first_server_if_none_is_named(tmp_path: Path, capsys: Output) -> None:
    plugins = list(yaml.safe_load_all(printed(capsys, str(write_document(tmp_path, PETS)))))
    assert {each["upstreams"][0] for each in plugins} == {"pets.example"}
    assert {each["target"]["scheme"] for each in plugins} == {"https:"}


def test_the_output_passes_the_check(tmp_path: Path, capsys: Output, check_text: Check) -> None:
    text = printed(capsys, str(write_document(tmp_path / "x", PETS)), "--name", "mine")
    code, out, _ = check_text(text)
    assert (code, out.count("authorization default")) == (0, 4)
    assert "name: mine GET /pets\n" in text


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--path", "shop"], "--path: must begin with a slash"),
        (["--skip", "GET /cats"], "has no GET /cats"),
    ],
)
def test_bad_flags_are_errors(tmp_path: Path, capsys: Output, words: list[str], error: str) -> None:
    file = write_document(tmp_path, PETS)
    assert main(["routes", "from-openapi", str(file), *words]) == 2
    assert error in capsys.readouterr().err


def test_faults_of_the_document_have_its_line(tmp_path: Path, capsys: Output) -> None:
    file = write_document(tmp_path, PETS.replace("type: number", "type: numbr"))
    line = PETS[: PETS.index("type: number")].count("\n") + 1
    assert main(["routes", "from-openapi", str(file)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"gateway: {file}:{line}: components.schemas.Pet.properties.age.type")
    no_host = write_document(tmp_path, PETS.replace("https://pets.example/v1/", "/v1"))
    assert main(["routes", "from-openapi", str(no_host)]) == 2
    assert "the first server has no host: name an --upstream" in capsys.readouterr().err
