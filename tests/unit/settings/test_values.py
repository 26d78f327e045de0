"""Shipped plugin sets: `builtin:NAME` is their folder, in a checkout and in an installed package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.settings import load
from gateway.settings.values import builtin_names, builtin_root
from tests.support import PROJECT

SETS = sorted(
    folder.name for folder in (PROJECT / "plugins").iterdir() if (folder / "README.md").exists()
)


def test_the_sets_are_the_folders_of_the_project() -> None:
    assert builtin_names() == SETS
    assert builtin_root() == PROJECT / "plugins"


@pytest.mark.parametrize("source", ["flag", "environment", "file"])
def test_a_set_is_named_wherever_a_folder_is(tmp_path: Path, source: str) -> None:
    flags: dict[str, object] = {"directory": str(tmp_path)}
    environ: dict[str, str] = {}
    if source == "flag":
        flags["plugins"] = ["builtin:photos", "/other", "builtin:sweep"]
    elif source == "environment":
        environ["UPLOAD_GATEWAY_PLUGINS"] = "builtin:photos:/other:builtin:sweep"
    else:
        (tmp_path / "config").mkdir()
        (tmp_path / "config/gateway.yaml").write_text(
            "plugins: ['builtin:photos', /other, builtin:sweep]"
        )
    found = load(flags, environ).plugins
    assert found == (PROJECT / "plugins/photos", Path("/other"), PROJECT / "plugins/sweep")


@pytest.mark.parametrize("name", ["nope", "", "..", "photos/page", "/etc"])
def test_an_unknown_set_is_answered_with_those_there_are(name: str) -> None:
    with pytest.raises(ConfigError) as fault:
        load({"plugins": [f"builtin:{name}"]}, {})
    assert f"there is no such plugin set; the sets are {', '.join(SETS)}" in str(fault.value)


def test_a_built_package_brings_the_sets(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    source = tmp_path / "source"  # a build leaves files beside the sources
    for folder in ("gateway", "plugins"):
        shutil.copytree(PROJECT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "MANIFEST.in"):
        shutil.copy(PROJECT / name, source)
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build", "--build-base", tmp_path / "build"],
        cwd=source, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    package = tmp_path / "build/lib"
    checked = subprocess.run(
        [sys.executable, "-P", "-m", "gateway", "check", "--plugins", "builtin:quickstart"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(package)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr
    assert f"({package}/gateway/builtin_plugins/quickstart/accountFolder.yaml:" in checked.stdout
