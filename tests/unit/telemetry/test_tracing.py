"""Contexts of traces as headers and events have them, and spans without a tracer."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.errors import Refusal
from gateway.telemetry import tracing
from gateway.telemetry.tracing import NO_SPAN, Span, TraceContext, read_headers, read_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{SPAN}-01"


def headers(*pairs: tuple[str, str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(pairs))


def test_a_traceparent_is_read_and_written_as_it_was() -> None:
    context = read_traceparent(VALID)
    assert context is not None
    assert context.sampled
    assert context.traceparent == VALID
    assert len(tracing.MAX_TRACEPARENT) == len(VALID)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01\n",
        7,
        None,
    ],
)
def test_what_is_no_traceparent_is_ignored(text: object) -> None:
    assert read_traceparent(text) is None


def test_a_traceparent_of_a_later_version_is_read_as_far_as_it_is_known() -> None:
    context = read_traceparent(f"cc-{TRACE}-{SPAN}-09-what-the-future-will-be-like")
    assert context is not None
    assert context.traceparent == VALID


def test_the_flag_of_a_random_trace_id_is_kept_and_others_are_not() -> None:
    context = read_traceparent(f"00-{TRACE}-{SPAN}-fe")
    assert context is not None
    assert not context.sampled
    assert context.traceparent.endswith("-02")


def test_the_headers_of_a_request_name_its_trace() -> None:
    found = read_headers(headers(("Traceparent", VALID), ("tracestate", "a=1"), ("Tracestate", "b=2")))
    assert found == TraceContext(int(TRACE, 16), int(SPAN, 16), 1, "a=1,b=2")


def test_two_lines_of_traceparent_name_none() -> None:
    assert read_headers(headers(("traceparent", VALID), ("traceparent", VALID))) is None


@pytest.mark.parametrize("state", ["a=" + "x" * 600, "a=\u00e9"])
def test_a_state_that_is_long_or_no_text_is_left_out(state: str) -> None:
    found = read_headers(headers(("traceparent", VALID), ("tracestate", state)))
    assert found is not None
    assert found.state == ""


def test_a_state_without_a_valid_parent_counts_for_nothing() -> None:
    assert read_headers(headers(("tracestate", "a=1"))) is None


# -- without a tracer


def test_without_a_tracer_no_span_is_begun() -> None:
    assert not tracing.is_on()
    assert tracing.begin_request(headers(("traceparent", VALID)), {}) is NO_SPAN
    assert tracing.begin("gateway.callout") is NO_SPAN
    assert tracing.begin_below(VALID, "gateway.commit") is NO_SPAN
    assert tracing.begin_run("gateway.handler x", VALID, {}, ("x", 1)) is NO_SPAN
    assert NO_SPAN.traceparent is None
    assert dict(NO_SPAN.headers) == {}


def test_without_a_tracer_the_context_that_somebody_has_set_goes_on() -> None:
    assert tracing.outgoing({"Traceparent": VALID, "x": "y"}, NO_SPAN) == {
        "Traceparent": VALID,
        "x": "y",
    }


def test_the_context_of_a_span_replaces_one_that_was_set() -> None:
    span = Span(TraceContext(1, 2, 0, "a=1"))
    given = {"Traceparent": VALID, "TraceState": "b=2", "x": "y"}
    assert tracing.outgoing(given, span) == {
        "x": "y",
        "traceparent": f"00-{1:032x}-{2:016x}-00",
        "tracestate": "a=1",
    }


def test_the_current_span_is_that_of_the_innermost_block() -> None:
    outer, inner = Span(TraceContext(1, 2)), Span(TraceContext(1, 3))
    with tracing.use(outer):
        with tracing.use(inner):
            assert tracing.current() is inner
        assert tracing.current() is outer
    assert tracing.current() is NO_SPAN


def test_an_error_is_named_by_its_code_or_its_class_never_by_its_text() -> None:
    assert tracing.error_type(Refusal("no_space", "a secret")) == "no_space"
    assert tracing.error_type(ValueError("a secret")) == "ValueError"
    assert len(tracing.error_type(type("E" * 300, (Exception,), {})())) == 100
