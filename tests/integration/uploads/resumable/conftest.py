"""What the tests of resumable uploads share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.recorders import EventRecorder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The directory of the gateway."""
    return tmp_path / "data"


@pytest.fixture
def events() -> Iterator[EventRecorder]:
    recorder = EventRecorder()
    yield recorder
    recorder.close()
