"""The spans of handlers: `gateway.handler NAME`, of a decision within a request or of a delivery."""

from __future__ import annotations

from contextvars import Context

from gateway.domain.model import Delivery, Upload
from gateway.plugins.handler import Handler
from gateway.plugins.handler_runs import HandlerRun
from gateway.plugins.scripting.callout import HTTPError
from gateway.telemetry import tracing
from gateway.telemetry.tracing import NO_SPAN, Span

NAME = "gateway.handler"


def begin_decision(handler: Handler, context: Context) -> Span:
    """Begin the span of a handler that decides about the request of `context`."""
    if not tracing.is_on():
        return NO_SPAN
    attributes = {"gateway.handler": handler.name, "gateway.event": handler.event}
    return context.run(tracing.begin, f"{NAME} {handler.name}", "internal", attributes)


def begin_script(name: str, above: Span) -> Span:
    """Begin the span of a script of the route `name`, below that of its request."""
    if not tracing.is_on():
        return NO_SPAN
    return tracing.begin_below(above, f"{NAME} {name}", attributes={"gateway.handler": name})


def begin_failed_upload(handler: Handler, upload: Upload) -> Span:
    """Begin the span of a handler that is told of an upload that failed."""
    if not tracing.is_on():
        return NO_SPAN
    attributes = {"gateway.handler": handler.name, "gateway.event": handler.event}
    return tracing.begin_below(upload.traceparent, f"{NAME} {handler.name}", attributes=attributes)


def begin_delivery(handler: Handler, delivery: Delivery) -> Span:
    """Begin the span of one attempt of a delivery, in the trace of the request behind its event."""
    if not tracing.is_on():
        return NO_SPAN
    attributes: dict[str, str | int | float | bool] = {
        "gateway.handler": handler.name,
        "gateway.event": delivery.event,
        "gateway.event_id": delivery.event_id,
        "gateway.attempt": delivery.attempt,
    }
    if delivery.upload_id is not None:
        attributes["gateway.upload_id"] = delivery.upload_id
    run = f"{delivery.event_id}\n{handler.name}\n{delivery.round}"
    parent = delivery.body.get("traceparent")
    return tracing.begin_run(f"{NAME} {handler.name}", parent, attributes, (run, delivery.attempt))


def run_inside(span: Span, context: Context) -> Context:
    """Return a copy of `context` whose current span is `span`."""
    inside = context.copy()
    if span is not NO_SPAN:
        inside.run(tracing.set_current, span)
    return inside


def end_span(span: Span, run: HandlerRun, outcome: str) -> None:
    """End the span of a run: with what it ended, and where. No text of an exception is in it."""
    if not span.recorded:
        return
    span.set({"gateway.outcome": outcome})
    handle, error = run.handle, run.error
    if handle.refusal is not None:
        span.set({"gateway.refused_status": handle.refusal.code})
    elif handle.invalid is not None:
        span.fail("InvalidResult")
    elif error is not None:
        fail_at(span, error, run.place)
    span.end()


def fail_at(span: Span, error: BaseException, place: str) -> None:
    """Note what a script ended with, and at which `file:line`."""
    file, _, line = place.rpartition(":")
    span.set({"code.file.path": file, "code.line.number": int(line) if line.isdecimal() else 0})
    span.fail(str(error.code) if isinstance(error, HTTPError) else tracing.error_type(error))


def cancel_span(span: Span) -> None:
    """End the span of a run that was given up."""
    span.fail("cancelled")
    span.end()
