"""The named points of an upload's life at which tests make the world end.

`reach(name)` does nothing in a server; a test puts a function of its own into `on_reach` of a
process that it is going to kill. Lets the crash suite and the code share one list of names. May
import nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

POINTS: Final = (
    "after admit",
    "mid body",
    "after file sync",
    "after url used up",
    "before journal commit",
    "after journal commit",
    "after link",
    "after rename",
    "before directory sync",
    "after directory sync",
    "before complete",
    "after complete",
    "before answer",
    "after answer",
    "mid handler",
)

on_reach: list[Callable[[str], None]] = []


def reach(name: str) -> None:
    """Tell whoever listens that `name` is reached."""
    for listener in on_reach:
        listener(name)
