"""The tracer of `--otlp`: OpenTelemetry's SDK, which sends spans from a thread of its own.

Only a process with `--otlp` imports this. Headers, certificates, sampler and sizes of the queue are
those of the usual OTEL_* variables (opentelemetry.io/docs/specs/otel/configuration). A collector that is
away or slow costs spans, never a request: the queue is bounded, and a stop waits `FLUSH_TIMEOUT`.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from opentelemetry.trace import Span as SdkSpan

from gateway.telemetry.logs import event, hidden_secrets
from gateway.telemetry.tracing import NO_ATTRIBUTES, Attributes, Kind, Span, TraceContext

log = logging.getLogger("gateway.traces")

FLUSH_TIMEOUT: Final = 2.0
"""Seconds that a stop waits for the last spans to be sent."""

TRACES_PATH: Final = "/v1/traces"
"""Where a collector takes spans, below its base URL (OTLP specification, OTLP/HTTP request)."""

REDACTED: Final = "[redacted]"

_KINDS: Final = {
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "internal": SpanKind.INTERNAL,
    "consumer": SpanKind.CONSUMER,
}

Mask = Callable[[str], str]


class RecordedSpan(Span):
    """A span that is sent to the collector when it ends."""

    __slots__ = ("_mask", "_span")
    recorded = True

    def __init__(self, span: SdkSpan, context: TraceContext, mask: Mask) -> None:
        super().__init__(context)
        self._span = span
        self._mask = mask

    @property
    def log_fields(self) -> dict[str, str]:
        """See `Span.log_fields`."""
        return {} if self.context is None else {"trace_id": f"{self.context.trace_id:032x}"}

    def set(self, attributes: Attributes) -> None:
        """See `Span.set`."""
        self._span.set_attributes(masked(attributes, self._mask))

    def note(self, what: str, attributes: Attributes = NO_ATTRIBUTES) -> None:
        """See `Span.note`."""
        self._span.add_event(what, masked(attributes, self._mask))

    def fail(self, error_type: str, *, is_error: bool = True) -> None:
        """See `Span.fail`."""
        self._span.set_attribute("error.type", error_type)
        if is_error:
            self._span.set_status(Status(StatusCode.ERROR))

    def end(self) -> None:
        """See `Span.end`."""
        self._span.end()


def masked(attributes: Attributes, mask: Mask) -> Attributes:
    """Return attributes without the secrets of this context, of the plugins and of the settings."""
    secrets = hidden_secrets()
    texts = {}
    for name, value in attributes.items():
        if isinstance(value, str):
            for secret in secrets:
                value = value.replace(secret, REDACTED)  # noqa: PLW2901
            value = mask(value)  # noqa: PLW2901
        texts[name] = value
    return texts


class OtlpTracer:
    """Makes spans and sends them to the collector at `url`: a `Tracer`.

    `resource` describes this process; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override it.
    """

    def __init__(self, url: str, resource: Attributes, mask: Mask) -> None:
        # Its own lines would be one for each batch, in words of its own.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._mask = mask
        self._ids = _Ids()
        endpoint = url if url.endswith(TRACES_PATH) else f"{url}{TRACES_PATH}"
        exporter = _LoggedExporter(OTLPSpanExporter(endpoint=endpoint), url)
        self._provider = TracerProvider(
            resource=Resource(dict(resource)).merge(OTELResourceDetector().detect()),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("gateway")

    def begin(
        self,
        name: str,
        kind: Kind,
        parent: TraceContext | None,
        attributes: Attributes,
        *,
        age: float = 0.0,
        run: tuple[str, int] | None = None,
    ) -> Span:
        """See `Tracer.begin`."""
        links = self._name_run(run, parent) if run is not None else ()
        span = self._tracer.start_span(
            name,
            _context_of(parent),
            _KINDS[kind],
            masked(attributes, self._mask),
            links,
            time.time_ns() - int(age * 1e9) if age else None,
        )
        begun = span.get_span_context()
        state = begun.trace_state.to_header() if begun.trace_state else ""
        context = TraceContext(begun.trace_id, begun.span_id, begun.trace_flags, state, remote=False)
        return RecordedSpan(span, context, self._mask) if span.is_recording() else Span(context)

    def close(self) -> None:
        """Send what waits, for at most `FLUSH_TIMEOUT`; then no more is sent. Blocking."""
        # The SDK's own shutdown would wait for half a minute.
        closing = threading.Thread(target=self._provider.shutdown, name="traces-close", daemon=True)
        closing.start()
        closing.join(FLUSH_TIMEOUT)

    def _name_run(self, run: tuple[str, int], parent: TraceContext | None) -> Sequence[Link]:
        """Give the next span the id of its run, and return the links to the runs before it.

        So a span is linked to one that another process began, or that a crash has lost.
        """
        what, attempt = run
        self._ids.choose(_span_id(what, attempt))
        if attempt < 2 or parent is None:
            return ()
        earlier = parent._replace(span_id=_span_id(what, attempt - 1))
        return (Link(_sdk_context(earlier), {"gateway.attempt": attempt - 1}),)


def _span_id(run: str, attempt: int) -> int:
    digest = hashlib.blake2b(f"{run}\n{attempt}".encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest) or 1


class _Ids(RandomIdGenerator):
    """Random ids, but for a span whose id was chosen by the same thread just before."""

    def __init__(self) -> None:
        self._chosen = threading.local()

    def choose(self, span_id: int) -> None:
        """Let the next span of this thread have this id."""
        self._chosen.span_id = span_id

    def generate_span_id(self) -> int:
        """Return the id of the next span."""
        chosen: int | None = getattr(self._chosen, "span_id", None)
        if chosen is None:
            return super().generate_span_id()
        self._chosen.span_id = None
        return chosen


def _context_of(parent: TraceContext | None) -> Context:
    if parent is None:
        return Context()
    return set_span_in_context(NonRecordingSpan(_sdk_context(parent)), Context())


def _sdk_context(context: TraceContext) -> SpanContext:
    state = TraceState.from_header([context.state]) if context.state else None
    flags = TraceFlags(context.flags)
    return SpanContext(context.trace_id, context.span_id, context.remote, flags, state)


class _LoggedExporter(SpanExporter):
    """Logs when a collector stops taking spans, and when it takes them again: once each."""

    def __init__(self, exporter: SpanExporter, url: str) -> None:
        self._exporter = exporter
        self._url = url
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans. Called by the thread of the SDK, one batch after the other."""
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # a mistake there must not end the thread
            result = SpanExportResult.FAILURE
            log.debug("spans cannot be sent: %s", type(error).__name__, extra=event("traces.failed"))
        lost = self._lost
        if result is SpanExportResult.SUCCESS:
            self._lost = 0
            if lost:
                message = "the collector takes spans again, %d were lost"
                log.info(message, lost, extra=event("traces.resumed", url=self._url, lost=lost))
            return result
        self._lost += len(spans)
        if not lost:
            message = "the collector does not take spans: they are dropped until it does"
            log.warning(message, extra=event("traces.lost", url=self._url))
        return result

    def shutdown(self) -> None:
        """Send no more, and end a wait between two tries."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Do nothing: spans wait in the SDK's queue only."""
        return True
