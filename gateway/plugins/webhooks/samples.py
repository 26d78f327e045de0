"""Shows what a webhook sends: a sample of each of its events, with its headers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gateway.plugins.default_events import default_event
from gateway.plugins.handler import Handler
from gateway.plugins.webhooks.kind import WebhookCall
from gateway.plugins.webhooks.sending import payload_of
from gateway.telemetry.redaction import REDACTED, Redaction

_TIME = 1767225600.0
"""The time of a sample: 2026-01-01."""


def samples(handlers: list[Handler], mask: Callable[[str], str]) -> Iterator[str]:
    """Yield the lines of the samples of all webhooks; what is secret in a header is not shown."""
    for handler in handlers:
        if isinstance(handler.function, WebhookCall):
            yield from _sample(handler, handler.function, mask)


def _sample(handler: Handler, call: WebhookCall, mask: Callable[[str], str]) -> Iterator[str]:
    event = default_event(handler)
    payload = payload_of(handler.event, event, _TIME)
    headers = call.target.request_headers(event["id"], _TIME, payload)
    if "webhook-signature" in headers:
        headers["webhook-signature"] = " ".join(f"v1,{REDACTED}" for _ in call.target.secrets)
    else:
        headers["webhook-signature"] = "none: there is no secret"
    yield f"sample of {handler.name}: POST {call.target.shown}"
    for name, value in Redaction().headers(headers).items():
        yield f"  {name}: {mask(value)}"
    yield f"  {payload.decode()}"
