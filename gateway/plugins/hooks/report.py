"""One run of a handler, and what the log and the journal are told of it.

One rule: nothing is written down before the secrets in it are masked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from gateway.errors import GatewayError, Refusal
from gateway.plugins import Handler
from gateway.plugins.scripting import ExecutorLost, Handle, HTTPError, TimedOut
from gateway.plugins.scripting.trace import place_of_error, plugin_traceback

LONGEST_EXCERPT: Final = 1000
"""Characters of an error answer that the journal and the log show."""

log = logging.getLogger("gateway.hooks")


@dataclass(slots=True)
class HandlerRun:
    """One run of a handler: what it decided, and the exception it ended with, if any."""

    handler: Handler
    handle: Handle
    error: Exception | None
    milliseconds: float

    @property
    def refused(self) -> bool:
        """Whether the handler turned it away."""
        verdict = self.handle.verdict
        return verdict is not None and verdict.refuses


class Reporter:
    """Says what came of runs; `mask` hides the secrets of the plugins."""

    def __init__(self, mask: Callable[[str], str]) -> None:
        self._mask = mask

    def message(self, run: HandlerRun) -> str | None:
        """Say in a line why a run came to nothing, or None: it did its work."""
        if run.handle.junk is not None:
            return str(run.handle.junk)
        if run.refused and run.handle.verdict is not None:
            return f"terminated with {run.handle.verdict.code}"
        if run.error is None:
            return None
        if isinstance(run.error, GatewayError | TimedOut):
            return str(run.error)
        return self._mask(f"{type(run.error).__name__}: {run.error}")

    def traceback(self, run: HandlerRun) -> str:
        """Return the plugin's frames, and what a callout was answered; empty where they tell nothing."""
        if run.error is None or isinstance(run.error, ExecutorLost | TimedOut | Refusal):
            return ""
        traceback = plugin_traceback(run.error, self._mask)
        if isinstance(run.error, HTTPError):
            traceback += f"the answer: {_excerpt(run.error.body, self._mask)}\n"
        return traceback

    def report(self, run: HandlerRun, outcome: str) -> None:
        """Write the log line of a run."""
        failed = run.error is not None or run.handle.junk is not None or outcome.startswith("left junk")
        level = logging.ERROR if failed and not run.refused else logging.INFO
        if not log.isEnabledFor(level):
            return
        facts = {
            "plugin": run.handler.name,
            "event": run.handler.event,
            "ms": round(run.milliseconds, 1),
            "outcome": outcome,
        }
        if failed:
            facts["place"] = _place(run)
        traceback = self.traceback(run)
        log.log(
            level,
            "handler %s%s",
            run.handler.name,
            f" failed\n{traceback.rstrip()}" if traceback else "",
            extra={"facts": facts},
        )


def _excerpt(body: Any, mask: Callable[[str], str]) -> str:
    """Return the beginning of what a callout was answered, as text, masked before it is cut."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
    return mask(text)[:LONGEST_EXCERPT]


def _place(run: HandlerRun) -> str:
    if isinstance(run.error, TimedOut) and run.error.place:
        return run.error.place
    place = place_of_error(run.error) if run.error else None
    return f"{place[0]}:{place[1]}" if place else run.handler.place
