"""A finding of doctor: one line of its report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """The level of a result, its text, and what to do."""

    level: Literal["ok", "warn", "FAIL"]
    text: str
    advice: str = ""

    def __str__(self) -> str:
        advice = f"  ({self.advice})" if self.advice else ""
        return f"{self.level:<4}  {self.text}{advice}"
