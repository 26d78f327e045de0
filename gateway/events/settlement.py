"""What becomes of a run that has ended: done, due again later, or dead."""

from __future__ import annotations

import logging
import random
from typing import Final, Literal, NamedTuple

from gateway.domain.model import Delivery, RetryPolicy
from gateway.events.dispatch import RunResult
from gateway.events.protocols import RunOutput
from gateway.telemetry.logs import event

MAX_ERROR_LENGTH: Final = 8000
"""Characters of an error, traceback included, that the engine keeps."""

POSTPONE_POLICY: Final = RetryPolicy(backoff=1.0, max_backoff=30.0)
"""The delays of a postponed delivery. It has no last attempt."""

USED_UP: Final = RunResult("failed", "every attempt was used up; the last one ended with the process")


log = logging.getLogger("gateway.runner")


class Settlement(NamedTuple):
    """What is written of a run: `delay` seconds until a retry is due, `result` is for the client."""

    outcome: Literal["done", "retry", "dead"]
    error: str = ""
    delay: float = 0.0
    result: RunOutput | None = None


def settlement_of(
    delivery: Delivery, policy: RetryPolicy, result: RunResult, *, abandoned: bool
) -> Settlement:
    """Return what is written of a run; `abandoned`: its handler gets no further run."""
    if result.status == "succeeded":
        return Settlement("done", result=result.result)
    error = _storable(result.error)
    last = result.final or delivery.attempt >= policy.attempts
    if result.status == "gone" or last or abandoned:
        return Settlement("dead", error, result=result.result)
    requested = min(result.retry_after, policy.max_backoff)
    delay = max(retry_delay(policy, delivery.attempt), requested)
    return Settlement("retry", error, delay, result.result)


def retry_delay(policy: RetryPolicy, attempt: int) -> float:
    """Return the seconds to wait after the failed `attempt`: doubling, bounded, half of it random."""
    longest = min(policy.backoff * 2.0 ** min(attempt - 1, 60), policy.max_backoff)
    return longest * (0.5 + random.random() / 2)  # noqa: S311 (spreads load, guards nothing)


def broken_run(handler: str, error: Exception) -> RunResult:
    """Report a defect of the gateway; unsettled, the delivery would count as running until a restart."""
    failed = "the gateway failed to run %s"
    log.error(failed, handler, exc_info=error, extra=event("delivery.broken", handler=handler))
    return RunResult("failed", f"the gateway failed: {type(error).__name__}")


def _storable(text: str) -> str:
    """Return what the engine keeps of an error: bounded, and text that a database accepts."""
    return text[:MAX_ERROR_LENGTH].encode("utf-8", "replace").decode()
