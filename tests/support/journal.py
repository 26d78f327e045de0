"""A real journal in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.contract.event_engines")

from gateway.events.journal import Journal  # noqa: E402 (what is to be rewritten must be named first)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "journal.db", full=False)
    opened.open()
    yield opened
    opened.close()
