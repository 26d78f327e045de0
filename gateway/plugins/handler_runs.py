"""One run of a handler, and what the log and the journal say about it. Secrets are masked first."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from gateway.errors import GatewayError, Refusal
from gateway.plugins import Handler
from gateway.plugins.scripting.callout import HTTPError
from gateway.plugins.scripting.decision import Handle
from gateway.plugins.scripting.executor import ExecutorLost
from gateway.plugins.scripting.executor_thread import TimedOut
from gateway.plugins.scripting.trace import place_of_error, plugin_traceback
from gateway.telemetry.logs import event

MAX_EXCERPT: Final = 1000
"""Characters of an error response that the journal and the log show."""

log = logging.getLogger("gateway.hooks")


@dataclass(slots=True)
class HandlerRun:
    """One run of a handler: its decision, and the exception it ended with, if any."""

    handler: Handler
    handle: Handle
    error: Exception | None
    milliseconds: float

    @property
    def refused(self) -> bool:
        """Whether the handler refused."""
        verdict = self.handle.verdict
        return verdict is not None and verdict.refuses


class Reporter:
    """Describes runs; `mask` hides the secrets of the plugins."""

    def __init__(self, mask: Callable[[str], str]) -> None:
        self._mask = mask

    def failure_message(self, run: HandlerRun) -> str | None:
        """Return in a line why a run failed, None if it succeeded."""
        if run.handle.invalid is not None:
            return str(run.handle.invalid)
        if run.refused and run.handle.verdict is not None:
            return f"terminated with {run.handle.verdict.code}"
        if run.error is None:
            return None
        if isinstance(run.error, GatewayError | TimedOut):
            return str(run.error)
        return self._mask(f"{type(run.error).__name__}: {run.error}")

    def traceback(self, run: HandlerRun) -> str:
        """Return the plugin's frames and a callout's error response, or nothing."""
        if run.error is None or isinstance(run.error, ExecutorLost | TimedOut | Refusal):
            return ""
        traceback = plugin_traceback(run.error, self._mask)
        if isinstance(run.error, HTTPError):
            traceback += f"the response: {_excerpt(run.error.body, self._mask)}\n"
        return traceback

    def log_run(self, run: HandlerRun, outcome: str) -> None:
        """Write the log line of a run."""
        failed = (
            run.error is not None
            or run.handle.invalid is not None
            or outcome.startswith("invalid result")
        )
        is_error = failed and not run.refused
        if not log.isEnabledFor(logging.ERROR if is_error else logging.INFO):
            return
        fields: dict[str, object] = {
            "plugin": run.handler.name,
            "event_name": run.handler.event,
            "ms": round(run.milliseconds, 1),
            "outcome": outcome,
        }
        if failed:
            fields["place"] = _place(run)
        traceback = self.traceback(run)
        text = f"{run.handler.name} failed\n{traceback.rstrip()}" if traceback else run.handler.name
        if is_error:
            log.error("handler %s", text, extra=event("handler.failed", **fields))
        else:
            log.info("handler %s", text, extra=event("handler.finished", **fields))


def _excerpt(body: Any, mask: Callable[[str], str]) -> str:
    """Return the beginning of the response of a callout, as text, masked before it is cut."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
    return mask(text)[:MAX_EXCERPT]


def _place(run: HandlerRun) -> str:
    if isinstance(run.error, TimedOut) and run.error.place:
        return run.error.place
    place = place_of_error(run.error) if run.error else None
    return f"{place[0]}:{place[1]}" if place else run.handler.place
