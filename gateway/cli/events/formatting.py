"""Output of `gateway events` for people: lines that fit a terminal; complete lines for a pipe.

Control characters of names, paths and errors are replaced, so that they cannot control a terminal.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from gateway.events.error_groups import ErrorGroups
from gateway.events.protocols import DeliveryRow, EventHistory

_MIN_WIDTH: Final = 8
"""Characters of a name or a path that are shown in any terminal."""

_INDENT: Final = "    "
MAX_WRAPPED: Final = 20
"""Lines of a path or an error on a terminal; `gateway events show` has the rest."""

_FIXED: Final = len(" delayed TRIES  29m ago  ")
_UNITS: Final = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


class DeliveryTable:
    """A table of deliveries that is printed page by page.

    On a terminal ids, paths and errors stay whole: what does not fit goes on in lines below.
    """

    def __init__(self) -> None:
        self._wide = not sys.stdout.isatty()
        self._width = shutil.get_terminal_size().columns
        self._columns: tuple[int, int] | None = None

    def lines(self, row: DeliveryRow, page: Sequence[DeliveryRow]) -> Iterator[str]:
        """Yield the lines of one delivery; first of all the header."""
        if self._columns is None:
            self._columns = self._measured(page)
            yield self._line("EVENT", "HANDLER", "STATE", "TRIES", "DUE") + "PATH"
        due = when(row.due) if self._wide else _from_now(row.due)
        line = self._line(row.event_id, row.handler, row.state, str(row.attempt), due)
        path = printable(row.path or "")
        if self._wide or len(line) + len(path) <= self._width:
            yield (line + path).rstrip()
        else:
            yield line.rstrip()
            yield from self._wrapped(path)
        if row.error and row.state != "done":
            yield from self._wrapped(printable(row.error.splitlines()[0]))

    def _wrapped(self, text: str) -> Iterator[str]:
        """Yield an indented text in full: in lines of a terminal, else in one."""
        width = len(text) if self._wide else max(self._width - len(_INDENT), _MIN_WIDTH)
        for start in range(0, min(len(text), width * MAX_WRAPPED), max(width, 1)):
            yield _INDENT + text[start : start + width]

    def _measured(self, page: Sequence[DeliveryRow]) -> tuple[int, int]:
        """Return the widths of event and handler. Ids are not cut, so that they can be copied."""
        event = max(5, *(len(row.event_id) for row in page))
        handler = max(7, *(len(row.handler) for row in page))
        if not self._wide:
            handler = min(handler, max((self._width - event - _FIXED) // 2, _MIN_WIDTH))
        return event, handler

    def _line(self, event: str, handler: str, state: str, tries: str, due: str) -> str:
        widths = self._columns or (0, 0)
        begin = f"{printable(event):<{widths[0]}} {cut(printable(handler), widths[1]):<{widths[1]}}"
        return f"{begin} {state:<7} {tries:>5}  {due:<{19 if self._wide else 7}}  "


def event_lines(history: EventHistory) -> Iterator[str]:
    """Yield the lines of one event: its deliveries, their runs with their errors, its body."""
    yield f"event    {history.id}  {history.type}  {when(history.created)}"
    if history.upload_id is not None:
        yield f"upload   {history.upload_id}  {printable(history.path or '')}".rstrip()
    for delivery in history.deliveries:
        row = delivery.row
        later = f", due {when(row.due)}" if row.state == "delayed" else ""
        yield f"handler  {printable(row.handler)}: {row.state}, tries {row.attempt}{later}"
        for run in delivery.runs:
            node = f"  on {printable(run.node)}" if run.node else ""
            yield f"  try {run.attempt}  {when(run.ended)}  {run.duration:.3f} s  {run.outcome}{node}"
            yield from (f"      {printable(line)}" for line in (run.error or "").splitlines())
        if delivery.result is not None:
            yield f"  result {printable(json.dumps(delivery.result, ensure_ascii=False))}"
    body = json.dumps(history.body, indent=2, ensure_ascii=False)
    yield from map(printable, f"body     {body}".splitlines())


def error_lines(groups: ErrorGroups) -> Iterator[str]:
    """Yield the lines of groups of failed deliveries: each with one of its events, then its error."""
    if not groups.groups:
        yield "no deliveries"
        return
    width = max(7, *(len(printable(group.handler)) for group in groups.groups))
    yield f"{'COUNT':>7}  {'HANDLER':<{width}}  {'OLDEST':<19}  {'NEWEST':<19}  EVENT"
    for group in groups.groups:
        times = f"{when(group.oldest)}  {when(group.newest)}"
        handler = printable(group.handler)
        yield f"{group.count:>7}  {handler:<{width}}  {times}  {printable(group.event_id)}"
        yield f"         {printable(group.error) or '(no error is noted)'}"
    if groups.other:
        yield f"{groups.other:>7}  in groups that are not listed"


@contextmanager
def progress(done: str) -> Iterator[Callable[[int], None] | None]:
    """Return a function that shows progress on a terminal; None without a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    try:
        yield lambda count: print(f"\r{done} {count} so far", end="", file=sys.stderr, flush=True)
    finally:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Return `text` without control characters: an error may contain any text of an upstream."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def cut(text: str, width: int) -> str:
    """Return `text` in `width` characters; a longer one is cut at its end."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def when(moment: float) -> str:
    """Return a Unix time as local time, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def _from_now(moment: float) -> str:
    """Return a Unix time relative to now: `5m ago`, `in 20s`."""
    distance = moment - time.time()
    for unit, seconds in _UNITS:
        if abs(distance) >= seconds:
            number = f"{abs(distance) // seconds:.0f}{unit}"
            return f"in {number}" if distance > 0 else f"{number} ago"
    return "now"
