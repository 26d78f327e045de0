"""A clamd for each test, and the shipped set with a config for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import PROJECT
from tests.support.clamd import Clamd
from tests.support.harness import write_plugin

ClamavSet = Callable[..., Path]


@pytest.fixture
def clamd() -> Iterator[Clamd]:
    with Clamd() as running:
        yield running


@pytest.fixture
def clamav_set(tmp_path: Path, clamd: Clamd) -> ClamavSet:
    """Copy the set with another config: `clamav_set(unscannable="mark")`."""

    def copy(**config: object) -> Path:
        folder = tmp_path / "clamav"
        shutil.copytree(PROJECT / "plugins/clamav", folder, dirs_exist_ok=True)
        values = json.dumps({"socket": str(clamd.socket), **config})
        return write_plugin(folder, f"name: clamav\nconfig: {values}\n", "clamav.yaml")

    return copy
