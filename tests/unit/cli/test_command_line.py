"""The command line: verbs, flags in either spelling, one line and exit code 2 for a fault."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import gateway
from gateway.cli import VERBS, main
from gateway.errors import ConfigError
from gateway.settings import Settings
from gateway.settings.table import settings_table


class Seen(ModuleType):
    """A verb that remembers what it was run with."""

    HELP = "remember"

    def __init__(self) -> None:
        super().__init__("gateway.cli.serve")
        self.settings: list[Settings] = []

    def run(self, settings: Settings, args: argparse.Namespace) -> int:
        self.settings.append(settings)
        return 7


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Seen:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".gateway").mkdir()
    seen = Seen()
    monkeypatch.setitem(sys.modules, "gateway.cli.serve", seen)
    return seen


def test_serve_is_the_verb_that_may_be_left_out(serve: Seen) -> None:
    assert main(["--port", "0"]) == 7
    assert main(["serve", "--port", "0"]) == 7
    assert main([]) == 7
    assert serve.settings[0] == serve.settings[1]
    assert [settings.port for settings in serve.settings] == [0, 0, 8080]


@pytest.mark.parametrize(
    "spelling", ["--file_upload_api_path", "--file-upload-api-path", "--file_upload-api_path"]
)
@pytest.mark.parametrize("joint", [" ", "="])
def test_flags_are_taken_with_underscores_and_with_hyphens(
    serve: Seen, spelling: str, joint: str
) -> None:
    assert main(f"{spelling}{joint}/files/{{my_var}}/{{filepath}}".split(" ")) == 7
    assert serve.settings[0].file_upload_api_path == "/files/{my_var}/{filepath}"


def test_repeatable_flags_add_up(serve: Seen, tmp_path: Path) -> None:
    main(["--plugins", "a_b", "--plugins=c"])
    assert serve.settings[0].plugins == (tmp_path / "a_b", tmp_path / "c")


def test_every_setting_has_a_flag_that_help_shows(
    serve: Seen, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    told = capsys.readouterr().out
    assert [row.flag for row in settings_table() if row.flag not in told] == []
    assert [verb for verb in VERBS if f"  {verb}" not in told] == []
    assert "curl -T" in told


@pytest.mark.parametrize("verb", sorted(VERBS.keys() - {"serve"}))
def test_the_help_of_a_verb_shows_its_own_flags_and_where_the_settings_are(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])
    assert caught.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "settings flags: gateway serve --help"
    assert not any(line.lstrip().startswith("--max-bytes") for line in lines)
    assert len(lines) < 60


def test_a_fault_is_one_line_on_stderr_and_exit_code_2(
    serve: Seen, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--port", "x"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("gateway: --port: must be")
    assert printed.err.count("\n") == 1
    assert serve.settings == []


def test_several_faults_are_a_line_each(serve: Seen, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", "x", "--grace", "y", "--auth", "z"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("gateway: --") for line in lines)


def test_faults_that_a_verb_finds_are_told_alike(
    serve: Seen, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(settings: Settings) -> int:
        raise ExceptionGroup("plugins", [ConfigError("no name", "a.yaml", 3), ConfigError("one\ntwo")])

    monkeypatch.setattr(serve, "run", run)
    assert main([]) == 2
    assert capsys.readouterr().err == "gateway: a.yaml:3: no name\ngateway: one\ngateway: two\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["srve"], "unknown verb 'srve'; did you mean serve?"),
        (["frobnicate"], "verbs are serve, init, check,"),
        (["help"], "unknown verb 'help'; use `gateway --help`"),
        (["version"], "unknown verb 'version'; use `gateway --version`"),
        (["folder"], "unknown verb 'folder'; to serve a folder: gateway --directory folder"),
        (["serve", "folder"], "a folder is named by its flag, such as --directory folder"),
        (["--downloads", "maybe"], "its value goes behind `=`: --downloads=false"),
        (["--directory", ""], "--directory: is empty: name a path"),
        (["--plugins="], "--plugins: is empty: name a path"),
        (["--port", "80x"], "--port: must be a whole number (got '80x')"),
        (["--directory", "file"], "file is a file, not a folder"),
        (["--prot", "1"], "unknown flag --prot; did you mean --port?"),
        (["--toekns=alice:hunter2"], "unknown flag --toekns; did you mean --tokens?"),
        (
            ["--directory", "x", "token"],
            "unexpected argument; the verb comes first: gateway token [flags]",
        ),
        (["--port"], "argument --port: expected one argument"),
        (["--po", "1"], "unknown flag --po"),
        (["check", "plugins/mine"], "check takes folders as --plugins plugins/mine"),
        (["token", "alice"], "unexpected argument; see `gateway token --help`"),
        (["--host", "0.0.0.0"], "--host: 0.0.0.0 can be reached by others"),
    ],
)
def test_a_slip_is_told_with_a_way_on(
    serve: Seen, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    Path("folder").mkdir()
    Path("file").touch()
    assert main(words) == 2
    err = capsys.readouterr().err
    assert told in err
    assert "hunter2" not in err
    assert err.count("\n") == 1


def test_flags_may_stand_between_the_words_of_a_verb(
    serve: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[argparse.Namespace] = []

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("action", choices=["list", "retry"])
        parser.add_argument("ids", nargs="*")
        parser.add_argument("--json", action="store_true")

    def run(settings: Settings, args: argparse.Namespace) -> int:
        seen.append(args)
        return 0

    monkeypatch.setattr(serve, "add_arguments", add_arguments, raising=False)
    monkeypatch.setattr(serve, "run", run)
    for words in (
        "retry --directory d a b",
        "retry a b --directory d",
        "--directory d retry a --json b",
    ):
        assert main(["serve", *words.split()]) == 0
    assert [(args.action, args.ids, args.directory) for args in seen] == [("retry", ["a", "b"], "d")] * 3
    assert main(["serve", "list", "--jsno"]) == 2


def test_the_environment_is_read(
    serve: Seen, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UPLOAD_GATEWAY_PORT", "4")
    assert main([]) == 7
    assert serve.settings[0].port == 4
    monkeypatch.setenv("UPLOAD_GATEWAY_FOO", "4")
    assert main([]) == 2
    assert "UPLOAD_GATEWAY_FOO" in capsys.readouterr().err


def test_the_module_runs_as_a_program_and_tells_its_version(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "gateway", "token", "--version"]
    path = {"PYTHONPATH": str(Path(gateway.__file__).parent.parent)}
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=path, check=True)
    assert done.stdout == f"gateway {gateway.__version__}\n"


def test_help_does_not_import_the_server() -> None:
    program = (
        "import sys, gateway.cli as c\n"
        "try: c.main(['token', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'aiohttp', 'sqlite3', 'aiobotocore'} & set(sys.modules)))"
    )
    path = {"PYTHONPATH": str(Path(gateway.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=path, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("words", [[], ["serve"], ["--port", "0"], ["serve", "--port", "0"]])
def test_without_a_directory_a_folder_that_is_none_is_not_served(
    serve: Seen, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    (tmp_path / ".gateway").rmdir()
    assert main(words) == 2
    told = capsys.readouterr()
    assert "gateway --directory DIR" in told.err
    assert ("verbs:" in told.out, "--downloads" in told.out) == (words == [], "--port" not in words)
    assert (serve.settings, list(tmp_path.iterdir())) == ([], [])
    assert main(["--directory", ".", "--port", "0"]) == 7
