"""Where the gateway of a test keeps uploads."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "upload"
    folder.mkdir(parents=True)
    return folder
