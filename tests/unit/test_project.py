"""The image and the scripts are what the documents say."""

from __future__ import annotations

import ast
import configparser
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import PROJECT

SCRIPTS = sorted(path for path in (PROJECT / "scripts").iterdir() if path.is_file() and not path.suffix)


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, arguments), continuation lines joined, comments dropped."""
    text = re.sub(r"^\s*#.*\n", "", (PROJECT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines) if word]


def arguments(instruction: str) -> list[str]:
    return [rest for word, rest in instructions() if word == instruction]


def copied() -> list[str]:
    """What COPY takes from the project (not from another stage)."""
    sources = []
    for rest in arguments("COPY"):
        if not rest.startswith("--from="):
            sources += rest.split()[:-1]
    return sources


def test_everything_the_image_copies_exists_and_is_not_ignored() -> None:
    assert copied()
    assert [source for source in copied() if not (PROJECT / source).exists()] == []
    allowed = (PROJECT / ".dockerignore").read_text().splitlines()
    assert "*" in allowed
    assert [source for source in copied() if f"!{source.removeprefix('./')}" not in allowed] == []


def test_the_image_has_every_extra_that_a_gateway_may_need() -> None:
    setup = configparser.ConfigParser()
    setup.read(PROJECT / "setup.cfg")
    extras = set(setup["options.extras_require"]) - {"test", "bench", "dev"}
    [installed] = re.findall(r"\"\.\[([\w,]+)\]\"", " ".join(arguments("RUN")))
    assert set(installed.split(",")) == extras


def test_the_base_of_the_image_can_be_another_one() -> None:
    assert arguments("ARG") == ["BASE=docker.io/library/python:3.11-slim"]
    assert [rest.partition(" ")[0] for rest in arguments("FROM")] == ["${BASE}", "${BASE}"]


def test_the_image_runs_as_a_fixed_user_that_is_not_root() -> None:
    last_stage = instructions()[max(i for i, (word, _) in enumerate(instructions()) if word == "FROM") :]
    [user] = [rest for word, rest in last_stage if word == "USER"]
    uid, _, gid = user.partition(":")
    assert int(uid) > 0
    assert int(gid) > 0
    created = " ".join(arguments("RUN"))
    assert f"useradd --uid {uid} --gid {gid}" in created
    assert f"install -d -o {uid} -g {gid} -m 0750 /data" in created


def test_the_image_starts_a_gateway_that_needs_a_token_and_keeps_its_data_in_the_volume() -> None:
    assert json.loads(arguments("ENTRYPOINT")[0]) == ["gateway"]
    words = json.loads(arguments("CMD")[0])
    assert words[0] == "serve"
    flags = dict(zip(words[1::2], words[2::2], strict=True))
    assert flags == {"--directory": "/data", "--host": "0.0.0.0", "--port": "8080", "--auth": "token"}
    assert arguments("VOLUME") == ["/data"]
    assert arguments("EXPOSE") == [flags["--port"]]
    assert arguments("STOPSIGNAL") == ["SIGTERM"]


def test_the_image_asks_for_its_health_with_a_program_that_compiles() -> None:
    [check] = arguments("HEALTHCHECK")
    python, flag, program = json.loads(check.partition("CMD ")[2])
    assert (python, flag) == ("python", "-c")
    assert "http://127.0.0.1:8080/-/health" in program
    ast.parse(program)


@pytest.mark.parametrize("script", [*SCRIPTS, PROJECT / ".ci/run"], ids=lambda path: path.name)
def test_scripts_are_executable_sound_and_say_what_they_do(script: Path) -> None:
    lines = script.read_text().splitlines()
    assert os.access(script, os.X_OK)
    assert lines[0] == "#!/usr/bin/env bash"
    assert lines[1].startswith("# ")
    assert "set -euo pipefail" in lines or any(line.startswith("exec ") for line in lines)
    subprocess.run(["bash", "-n", script], check=True)


def test_the_gate_is_one_short_script() -> None:
    assert len((PROJECT / "scripts/check").read_text().splitlines()) <= 15


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the scripts and plugins beside stand-ins for the environment and the server."""
    root = tmp_path / "a project"
    shutil.copytree(PROJECT / "scripts", root / "scripts")
    shutil.copytree(PROJECT / "plugins", root / "plugins")
    shutil.copy(PROJECT / "setup.cfg", root)
    (root / ".venv/bin").mkdir(parents=True)
    for stand_in, text in (
        ("scripts/venv", 'echo "extras: $*" >&2'),
        (".venv/bin/gateway", 'printf "%s\\n" "$@" "pid $$"'),
    ):
        (root / stand_in).write_text(f"#!/bin/sh\n{text}\n")
        (root / stand_in).chmod(0o755)
    return root


@pytest.mark.parametrize(
    ("words", "environ", "port"),
    [
        ([], {}, "8080"),
        (["--port", "9001"], {}, "9001"),
        (["--port=9002"], {}, "9002"),
        (["--log-level", "debug", "--port", "1", "--port", "9003"], {}, "9003"),
        (["--port", "0"], {}, "PORT"),
        ([], {"UPLOAD_GATEWAY_PORT": "9004"}, "9004"),
    ],
)
def test_serve_tells_what_to_try_and_becomes_the_server_from_any_folder(
    copy: Path, tmp_path: Path, words: list[str], environ: dict[str, str], port: str
) -> None:
    words_of_server, err, same = serve(copy, tmp_path, words, environ)
    quickstart = ["--plugins", f"{copy}/plugins/quickstart", "--listing", "--downloads"]
    assert words_of_server == [*quickstart, *words]
    assert same
    assert f"open  http://127.0.0.1:{port}/ in a browser" in err
    assert f"curl -T {copy}/README.md http://127.0.0.1:{port}/upload/README.md" in err
    assert "extras: \n" in err
    assert (copy / "data").is_dir()


def serve(
    copy: Path, cwd: Path, words: list[str], environ: dict[str, str]
) -> tuple[list[str], str, bool]:
    """Run scripts/serve: the flags behind the directory, what it says, whether it became the server."""
    process = subprocess.Popen(
        [copy / "scripts/serve", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={"PATH": os.environ["PATH"], **environ},
    )
    out, err = process.communicate(timeout=30)
    verb, flag, directory, *flags, pid = out.splitlines()
    assert (verb, flag, directory) == ("serve", "--directory", f"{copy}/data")
    return flags, err, pid == f"pid {process.pid}"


@pytest.mark.parametrize("form", [["--plugins", "{}"], ["--plugins={}"]])
@pytest.mark.parametrize(
    "said", ["plugins/photos", "{root}/plugins/photos", "../a project/plugins/photos"]
)
def test_serve_with_plugins_serves_these_alone_and_brings_what_they_need(
    copy: Path, tmp_path: Path, form: list[str], said: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    words = [word.format(said.format(root=copy)) for word in form]
    flags, err, _ = serve(copy, elsewhere, [*words, "--port", "9005"], {})
    assert flags == [word.format(f"{copy}/plugins/photos") for word in form] + ["--port", "9005"]
    assert "extras: photos\n" in err
    assert "http://127.0.0.1:9005/photos/" in err


def test_serve_takes_a_folder_from_where_the_user_stands_before_its_own(
    copy: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "elsewhere/plugins/photos"
    mine.mkdir(parents=True)
    words = ["--plugins", "plugins/photos", "--plugins", "missing"]
    flags, err, _ = serve(copy, tmp_path / "elsewhere", words, {})
    assert flags == ["--plugins", str(mine), "--plugins", "missing"]
    assert "extras: \n" in err


PIP = """\
echo "$*" > "$(dirname "$0")/../arguments"
echo Collecting aiohttp
echo "  Downloading aiohttp-3.13.0-cp311-manylinux.whl (1.7 MB)"
echo "Installing collected packages: aiohttp, upload-gateway"
exit ${PIP_EXIT:-0}
"""


def test_the_environment_keeps_what_was_installed_and_adds_what_is_asked_for(copy: Path) -> None:
    shutil.copy(PROJECT / "scripts/venv", copy / "scripts/venv")
    shutil.copy(PROJECT / "pyproject.toml", copy)
    for name, text in (("python", "exit 0"), ("pip", PIP)):
        (copy / ".venv/bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (copy / ".venv/bin" / name).chmod(0o755)

    def installed(*extras: str) -> str:
        words = [str(copy / "scripts/venv"), *extras]
        (copy / ".venv/arguments").write_text("")
        subprocess.run(words, capture_output=True, text=True, check=True)
        found = re.search(r"--editable (\S+)", (copy / ".venv/arguments").read_text())
        return found[1] if found else ""

    asked = [[], [], ["photos"], [], ["photos"], ["dev", "photos"], ["dev"]]
    assert [installed(*extras) for extras in asked] == [
        ".", "", ".[photos]", "", "", ".[photos,dev]", "",
    ]  # fmt: skip
    with (copy / "setup.cfg").open("a") as setup:
        setup.write("# changed\n")
    assert [installed("dev"), installed("dev")] == [".[dev]", ""]


@pytest.mark.parametrize("code", [0, 1])
def test_an_installation_prints_a_line_for_each_package_and_all_where_it_fails(
    copy: Path, code: int
) -> None:
    shutil.copy(PROJECT / "scripts/venv", copy / "scripts/venv")
    shutil.copy(PROJECT / "pyproject.toml", copy)
    for name, text in (("python", "exit 0"), ("pip", PIP)):
        (copy / ".venv/bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (copy / ".venv/bin" / name).chmod(0o755)
    environ = {"PATH": os.environ["PATH"], "PIP_EXIT": str(code)}
    words = [str(copy / "scripts/venv")]
    done = subprocess.run(words, capture_output=True, text=True, env=environ, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    said = done.stderr.splitlines()
    assert said[1:3] == [
        "  Downloading aiohttp 3.13.0 (1.7 MB)",
        "  Installing the packages",
    ]
    assert ("Collecting aiohttp" in said, len(said) > 3) == (code == 1, code == 1)
    assert (copy / ".venv/installed").exists() == (code == 0)


def test_a_machine_without_a_fitting_python_is_told_what_to_install(copy: Path) -> None:
    shutil.copy(PROJECT / "scripts/venv", copy / "scripts/venv")
    words = [str(copy / "scripts/venv")]
    environ = {"PATH": os.environ["PATH"], "PYTHON": "false"}
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed" in done.stderr


def test_a_machine_without_what_the_tests_run_is_told_what_to_install(
    copy: Path, tmp_path: Path
) -> None:
    known = tmp_path / "known"
    known.mkdir()
    for name in ("bash", "dirname"):
        (known / name).symlink_to(str(shutil.which(name)))
    for name in ("curl", "wrk", "id"):  # as on a machine that has these two and whose user is not root
        stand_in = known / name
        stand_in.write_text("#!/bin/sh\necho 1000\n")
        stand_in.chmod(0o755)
    words = ["/usr/bin/env", "-i", f"PATH={known}", "bash", str(copy / "scripts/test")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    told, _, packages = done.stderr.strip().partition("apt-get install ")
    assert told == "scripts/test: missing; on Debian, Ubuntu: "
    assert (
        {"openssl", "chromium"}
        <= set(packages.split())
        <= {
            "openssl",
            "chromium",
            "clamav-daemon",
            "jq",
            "prometheus",
            "nginx-light",
            "nodejs",
            "npm",
            "postgresql",
            "systemd",
        }
    )
