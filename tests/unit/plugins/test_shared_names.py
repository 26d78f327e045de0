"""Whether the operator is warned where two tenants would share the paths of their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli import main
from gateway.domain.model import UPLOADING
from gateway.domain.path_template import UploadPathTemplate
from gateway.plugins import Plugins
from gateway.plugins.scripting.namespace import Services
from gateway.plugins.shared_names import shared_names_warning
from tests.support.recorders import write_handler

TENANTS = UploadPathTemplate.parse("/files/{team}/{filepath}")
REWRITES = (
    "event['path'] = '/upload/' + event['resources']['team']",
    "event['path'] += '/x'",
    "async def later():\n    event['path'] = '/x'\nawait later()",
)
LEAVES = ("print(event['path'])", "event['max_bytes'] = 1")


def warning(folder: Path, script: str, template: UploadPathTemplate = TENANTS) -> str | None:
    write_handler(folder, script)
    plugins = Plugins([folder], Services())
    try:
        return shared_names_warning(template, plugins.load().handlers[UPLOADING])
    finally:
        plugins.close()


@pytest.mark.parametrize("script", REWRITES)
def test_a_handler_that_rewrites_paths_keeps_tenants_apart(tmp_path: Path, script: str) -> None:
    assert warning(tmp_path, script) is None


@pytest.mark.parametrize("script", LEAVES)
def test_a_handler_that_leaves_the_path_does_not(tmp_path: Path, script: str) -> None:
    told = warning(tmp_path, script)
    assert told is not None
    assert "{team}" in told
    assert "--stored-path '/upload/{team}/{filepath}'" in told


def test_the_advice_is_a_setting_that_ends_the_warning() -> None:
    told = shared_names_warning(TENANTS, ())
    assert told is not None
    advice = told.partition("--stored-path '")[2].partition("'")[0]
    assert shared_names_warning(UploadPathTemplate.parse(TENANTS.text, advice), ()) is None


@pytest.mark.parametrize("verb", ["check", "doctor"])
def test_the_commands_warn_before_the_first_upload(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    flags = ["--directory", str(tmp_path), "--port", "0", "--min-free-bytes", "1"]
    tenants = ["--file-upload-api-path", TENANTS.text]
    assert main([verb, *flags, *tenants]) == 0
    printed = "".join(capsys.readouterr())
    assert "uploads with different {team} share their stored paths" in printed
    assert main([verb, *flags, *tenants, "--stored-path", "/upload/{team}/{filepath}"]) == 0
    assert "share their stored paths" not in "".join(capsys.readouterr())


def test_a_stored_path_that_cannot_be_stops_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--directory", str(tmp_path), "--stored-path", "/{team}/{filepath}"]) == 2
    assert "--stored-path: stored path template" in capsys.readouterr().err
