"""Doctor: one line of the report.

The rule: what was found, and what to do about it, each in a few words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """How bad it is, what was found, what to do about it."""

    level: Literal["ok", "warn", "FAIL"]
    what: str
    advice: str = ""

    def __str__(self) -> str:
        advice = f"  ({self.advice})" if self.advice else ""
        return f"{self.level:<4}  {self.what}{advice}"
