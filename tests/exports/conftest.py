"""The plugin's modules, as scripts import them: from the folder of its YAML."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parents[2] / "plugins" / "exports"

sys.path.append(str(PLUGIN))


@pytest.fixture(scope="session", autouse=True)
def the_path_is_left_as_it_was() -> Iterator[None]:
    yield
    sys.path.remove(str(PLUGIN))
