"""Named failpoints in the life of an upload, where tests kill the process.

A server has no listeners, so `hit` does nothing there. A crash test adds one to `listeners`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

NAMES: Final = (
    "after admit",
    "mid body",
    "after form file",
    "after file sync",
    "after url used up",
    "before journal commit",
    "after journal commit",
    "after link",
    "after rename",
    "before directory sync",
    "after directory sync",
    "after multipart begun",
    "before partial settle",
    "after partial settle",
    "before staged",
    "after staged",
    "after hold claimed",
    "before complete",
    "after complete",
    "before answer",
    "after answer",
    "after deletion recorded",
    "after unlink",
    "after deletion sync",
    "before partial head",
    "after partial head",
    "mid append",
    "before partial cell",
    "after partial cell",
    "before partial move",
    "after partial move",
    "before partial end",
    "before held row",
    "after held row",
    "after held move",
    "before held decision",
    "within held decision",
    "after held decision",
    "after decision",
    "before held publish",
    "after held publish move",
    "after held publish",
    "before held removal",
    "after held removal",
    "before hand-over",
    "after hand-over",
    "after file moved",
    "after move link",
    "after object copied",
    "mid handler",
    "before settlement",
    "after settlement",
    "after quota reserved",
    "before quota settled",
)

listeners: list[Callable[[str], None]] = []


def hit(name: str) -> None:
    """Call the listeners with the name of a failpoint."""
    for listener in listeners:
        listener(name)
