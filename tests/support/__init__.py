"""What tests share: real servers, gateways as processes, recorders, fixtures."""

from __future__ import annotations

from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parent.parent
PROJECT: Final = TESTS.parent
