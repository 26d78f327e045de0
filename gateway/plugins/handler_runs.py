"""One run of a handler, and what the log and the journal say about it. Secrets are masked first."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from gateway.errors import GatewayError, Refusal
from gateway.plugins import Handler
from gateway.plugins.scripting.callout import HTTPError
from gateway.plugins.scripting.calls import TimedOut
from gateway.plugins.scripting.decision import Handle
from gateway.plugins.scripting.executor import ExecutorLost
from gateway.plugins.scripting.trace import place_of_error, plugin_traceback
from gateway.plugins.webhooks.sending import WebhookFailed
from gateway.telemetry.logs import event

MAX_EXCERPT: Final = 1000
"""Characters of an error response that the journal and the log show."""

log = logging.getLogger("gateway.hooks")


@dataclass(slots=True)
class HandlerRun:
    """One run of a handler: its decision, and the exception it ended with, if any.

    `mask` hides the secrets of the plugins.
    """

    handler: Handler
    handle: Handle
    error: Exception | None
    milliseconds: float
    mask: Callable[[str], str]

    def failure_message(self) -> str | None:
        """Return in a line why it failed, None if it succeeded."""
        if self.handle.invalid is not None:
            return str(self.handle.invalid)
        if self.handle.refusal is not None:
            return f"terminated with {self.handle.refusal.code}"
        if self.error is None:
            return None
        if isinstance(self.error, GatewayError | TimedOut):
            return self.mask(str(self.error))
        return self.mask(f"{type(self.error).__name__}: {self.error}")

    def traceback(self) -> str:
        """Return the plugin's frames and a callout's error response, or nothing."""
        if self.error is None or isinstance(self.error, ExecutorLost | TimedOut | Refusal):
            return ""
        if isinstance(self.error, WebhookFailed):
            body = self.error.body
            return f"the response: {_excerpt(body, self.mask)}\n" if body else ""
        traceback = plugin_traceback(self.error, self.mask)
        if isinstance(self.error, HTTPError):
            traceback += f"the response: {_excerpt(self.error.body, self.mask)}\n"
        return traceback

    def log_outcome(self, outcome: str) -> None:
        """Write the log line of a run."""
        failed = self.handle.invalid is not None or self.error is not None
        is_error = failed and self.handle.refusal is None
        if not log.isEnabledFor(logging.ERROR if is_error else logging.INFO):
            return
        fields: dict[str, object] = {
            "handler": self.handler.name,
            "event_type": self.handler.event,
            "ms": round(self.milliseconds, 1),
            "outcome": outcome,
        }
        if failed:
            fields["place"] = self.place
        traceback = self.traceback()
        text = f"{self.handler.name} failed\n{traceback.rstrip()}" if traceback else self.handler.name
        if is_error:
            log.error("handler %s", text, extra=event("handler.failed", **fields))
        else:
            log.info("handler %s", text, extra=event("handler.finished", **fields))

    @property
    def place(self) -> str:
        """The `file:line` where it failed, as far as that is known; else where it begins."""
        if isinstance(self.error, TimedOut) and self.error.place:
            return self.error.place
        place = place_of_error(self.error) if self.error else None
        return f"{place[0]}:{place[1]}" if place else self.handler.place


def _excerpt(body: Any, mask: Callable[[str], str]) -> str:
    """Return the beginning of the response of a callout, as text, masked before it is cut."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
    return mask(text)[:MAX_EXCERPT]
