"""Spans: the steps of a request, and of what follows from it, as a trace shows them.

Without `--otlp` there is no tracer, every span is `NO_SPAN`, and nothing of OpenTelemetry is imported;
`telemetry.otlp` has the tracer. Contexts travel as W3C Trace Context (www.w3.org/TR/trace-context):
requests bring and carry on `traceparent` and `tracestate`, events have `traceparent`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar, Token
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, Protocol, cast

from multidict import CIMultiDict, CIMultiDictProxy

from gateway.errors import Refusal

Kind = Literal["server", "client", "internal", "consumer"]
"""What a span does: it serves a request, sends one, runs inside, or runs for an event."""

Attributes = Mapping[str, str | int | float | bool]
NO_ATTRIBUTES: Attributes = MappingProxyType({})

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

_CONTEXT_HEADERS: Final = frozenset({TRACEPARENT, TRACESTATE})

MAX_TRACEPARENT: Final = f"00-{'f' * 32}-{'f' * 16}-01"
"""As long as each one that events have."""

MAX_TRACESTATE: Final = 512
"""Characters of a `tracestate`; a longer one is dropped (section 3.3.1.5 lets us)."""

MAX_ERROR_TYPE: Final = 100
"""Characters of an `error.type`."""

_SAMPLED: Final = 1
_FLAGS: Final = 3
"""Sampled, and whether the trace id is random: the flags that are known (section 3.2.2.5)."""

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class TraceContext(NamedTuple):
    """Where a span is: its trace, its own id, the flags and the state of other vendors.

    `remote` is False for a span of this process.
    """

    trace_id: int
    span_id: int
    flags: int = 0
    state: str = ""
    remote: bool = True

    @property
    def sampled(self) -> bool:
        """Whether the span is recorded."""
        return bool(self.flags & _SAMPLED)

    @property
    def traceparent(self) -> str:
        """The context as a header or a value of an event (section 3.2)."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.flags & _FLAGS:02x}"


def read_traceparent(text: object) -> TraceContext | None:
    """Return the context of a `traceparent`, None for what is none (section 3.2.2).

    A newer version may have more fields behind those of version 00.
    """
    match = _TRACEPARENT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return TraceContext(int(trace_id, 16), int(span_id, 16), int(flags, 16))


def read_headers(headers: Mapping[str, str]) -> TraceContext | None:
    """Return the context that a request brings, None without a valid one (section 3.4)."""
    if TRACEPARENT not in headers:
        return None
    lines = cast(CIMultiDictProxy[str], headers)
    parents = lines.getall(TRACEPARENT)
    context = read_traceparent(parents[0].strip()) if len(parents) == 1 else None
    if context is None or TRACESTATE not in headers:
        return context
    state = ",".join(lines.getall(TRACESTATE))
    valid = len(state) <= MAX_TRACESTATE and state.isascii() and state.isprintable()
    return context._replace(state=state) if valid else context


class Span:
    """A span that is not recorded: what a tracer returns for a trace that is not sampled, and `NO_SPAN`.

    `context` is what is told to other services, None without a tracer.
    """

    __slots__ = ("context",)
    recorded = False

    def __init__(self, context: TraceContext | None = None) -> None:
        self.context = context

    @property
    def traceparent(self) -> str | None:
        """The context for an event."""
        return None if self.context is None else self.context.traceparent

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that tell another service of this span."""
        context = self.context
        if context is None:
            return _NO_HEADERS
        headers = {TRACEPARENT: context.traceparent}
        if context.state:
            headers[TRACESTATE] = context.state
        return headers

    @property
    def log_fields(self) -> Mapping[str, str]:
        """The fields by which log lines of a recorded span are found."""
        return _NO_HEADERS

    def set(self, attributes: Attributes) -> None:
        """Add attributes. Secrets in texts are masked."""

    def note(self, what: str, attributes: Attributes = NO_ATTRIBUTES) -> None:
        """Note that something has just happened within it."""

    def fail(self, error_type: str, *, is_error: bool = True) -> None:
        """Note why it did not succeed: an error code or the name of a class, never a message.

        Without `is_error` its status stays as it is: the client made the mistake.
        """

    def end(self) -> None:
        """End it, once."""

    def __enter__(self) -> Span:
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if error is not None:
            self.fail(error_type(error))
        self.end()


_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
NO_SPAN: Final = Span()


class Tracer(Protocol):
    """Makes spans. Thread-safe."""

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
        """Begin a span below `parent`, None for a new trace. It began `age` seconds ago.

        `run` is what is run, and the number of the attempt, of a span that is linked to the attempts
        before it.
        """


class _Installed:
    tracer: Tracer | None = None


_current: ContextVar[Span] = ContextVar("gateway_span", default=NO_SPAN)


def install(tracer: Tracer | None) -> None:
    """Let `tracer` make the spans of this process; None makes none any more."""
    _Installed.tracer = tracer


def is_on() -> bool:
    """Tell whether there is a tracer."""
    return _Installed.tracer is not None


def current() -> Span:
    """Return the span of this context."""
    return _current.get()


class use:  # noqa: N801 (used like a function, as `logs.bind`)
    """Let a span be the current one inside."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> None:
        self._token: Token[Span] = _current.set(self._span)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


def set_current(span: Span) -> None:
    """Let a span be the current one of this context, to its end."""
    _current.set(span)


def outgoing(headers: Mapping[str, str], span: Span) -> dict[str, str]:
    """Return the headers of a request that `span` sends: those given, and its own context.

    Without a tracer a context that is among `headers` stays.
    """
    if span.context is None:
        return dict(headers)
    kept = {name: value for name, value in headers.items() if name.lower() not in _CONTEXT_HEADERS}
    return {**kept, **span.headers}


def set_context(headers: CIMultiDict[str], span: Span) -> None:
    """Let the headers of a request name the span that sends it; without a tracer they stay."""
    if span.context is not None:
        for name in _CONTEXT_HEADERS:
            headers.popall(name, None)
        headers.update(span.headers)


def begin_request(headers: Mapping[str, str], attributes: Attributes, age: float = 0.0) -> Span:
    """Begin the span of a request, in the trace that its headers name or in a new one."""
    tracer = _Installed.tracer
    if tracer is None:
        return NO_SPAN
    return tracer.begin("gateway.request", "server", read_headers(headers), attributes, age=age)


def begin(name: str, kind: Kind = "internal", attributes: Attributes = NO_ATTRIBUTES) -> Span:
    """Begin a span below the current one; `NO_SPAN` where there is none."""
    return begin_below(_current.get(), name, kind, attributes)


def begin_below(
    parent: Span | str | None,
    name: str,
    kind: Kind = "internal",
    attributes: Attributes = NO_ATTRIBUTES,
) -> Span:
    """Begin a span below another one, which may be given as its `traceparent`.

    Below a span that is not recorded nothing is: that span is returned, to be passed on.
    """
    tracer = _Installed.tracer
    if tracer is None or parent is None:
        return NO_SPAN
    above = parent if isinstance(parent, Span) else Span(read_traceparent(parent))
    if above.context is None or not above.context.sampled:
        return above
    return tracer.begin(name, kind, above.context, attributes)


def begin_run(name: str, traceparent: object, attributes: Attributes, run: tuple[str, int]) -> Span:
    """Begin the span of a delivery, in the trace of the request that its event names, if any.

    `run` is what is run, a text that no other delivery has, and the number of the attempt.
    """
    tracer = _Installed.tracer
    if tracer is None:
        return NO_SPAN
    parent = read_traceparent(traceparent)
    if parent is not None and not parent.sampled:
        return Span(parent)
    return tracer.begin(name, "consumer", parent, attributes, run=run)


def error_type(error: BaseException) -> str:
    """Return the code of a refusal, or the name of the class of any other exception."""
    name = error.code if isinstance(error, Refusal) else type(error).__name__
    return name[:MAX_ERROR_TYPE]
