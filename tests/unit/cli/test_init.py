"""`gateway init`: what it writes passes its check, and nothing is overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from gateway.cli import main
from gateway.cli.init import settings_text
from gateway.settings import load
from gateway.settings.values import builtin_names
from tests.support.harness import files_below


def test_what_is_written_passes_the_check_that_it_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "my notes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "wrote    my notes/config/gateway.yaml" in lines
    assert "wrote    my notes/plugins/starter/countLines.yaml" in lines
    assert lines[-4:] == [
        "next:",
        "  gateway check --directory 'my notes'",
        "  gateway serve --directory 'my notes' --watch",
        "  curl -T 'my notes/plugins/starter/README.md' http://127.0.0.1:8080/upload/README.md",
    ]
    assert main(["check", "--directory", "my notes"]) == 0
    printed = capsys.readouterr()
    assert printed.out.endswith("3 files, 4 tests, 0 failed\n")
    assert printed.err == ""


def test_in_its_own_folder_no_flag_is_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    assert "  gateway check\n  gateway serve --watch\n" in capsys.readouterr().out
    assert main(["check"]) == 0
    settings = load({}, {})
    assert settings.directory_explicit
    assert settings.plugins == (tmp_path / "plugins",)


def test_the_settings_file_has_every_key_of_the_example_once() -> None:
    text = settings_text()
    assert yaml.safe_load(text) == {"plugins": ["plugins"]}
    example = Path(__file__).parents[3].joinpath("config/gateway.yaml").read_text()
    commented = [line for line in example.splitlines() if line.startswith("#") and line[1:2].isalpha()]
    assert [line for line in commented if line not in text.splitlines()] == ["#plugins: []"]


@pytest.mark.parametrize("name", builtin_names())
def test_every_set_is_copied_as_it_is_and_never_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/gateway.yaml").write_text("plugins: [plugins]\n")
    assert main(["init", str(tmp_path), "--set", name]) == 0
    assert f"kept     {tmp_path}/config/gateway.yaml: " in capsys.readouterr().out
    before = files_below(tmp_path)
    assert before["config/gateway.yaml"] == b"plugins: [plugins]\n"
    assert f"plugins/{name}/README.md" in before
    assert not [path for path in before if "__pycache__" in path]
    assert main(["init", str(tmp_path), "--set", name]) == 2
    assert f"{tmp_path}/plugins/{name}: this folder exists" in capsys.readouterr().err
    assert files_below(tmp_path) == before


def test_what_cannot_be_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["init", str(tmp_path / "file")]) == 2
    assert "cannot be written: Not a directory" in capsys.readouterr().err
    assert main(["init", str(tmp_path), "--set", "fotos"]) == 2
    assert "there is no set 'fotos'; the sets are " in capsys.readouterr().err
