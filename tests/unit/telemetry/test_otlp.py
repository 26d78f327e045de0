"""The tracer of `--otlp`, with a collector of the tests: what is sent, what is not, and how it ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from multidict import CIMultiDict

from gateway.telemetry import logs, tracing
from gateway.telemetry.otlp import OtlpTracer
from tests.support.traces import Collector, SeenSpan, running_collector

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UNSAMPLED = PARENT[:-1] + "0"

MakeTracer = Callable[..., OtlpTracer]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with running_collector() as collector:
        yield collector


@pytest.fixture
def make_tracer(collector: Collector) -> Iterator[MakeTracer]:
    """Make the tracer of this process; its spans are sent by `close`."""
    made: list[OtlpTracer] = []

    def make(url: str = collector.url, hidden: str = "hunter2") -> OtlpTracer:
        tracer = OtlpTracer(
            url, {"service.name": "upload-gateway"}, lambda text: text.replace(hidden, "[redacted]")
        )
        made.append(tracer)
        tracing.install(tracer)
        return tracer

    yield make
    tracing.install(None)
    collector.free.set()
    for tracer in made:
        tracer.close()


@pytest.fixture
def tracer(make_tracer: MakeTracer) -> OtlpTracer:
    return make_tracer()


def by_name(collector: Collector) -> dict[str, SeenSpan]:
    return {span.name: span for span in collector.spans()}


def test_spans_are_sent_with_their_parents(tracer: OtlpTracer, collector: Collector) -> None:
    request = tracing.begin_request(CIMultiDict({"traceparent": PARENT}), {"a": "b"})
    with tracing.use(request), tracing.begin("gateway.callout", "client") as callout:
        callout.set({"http.response.status_code": 200})
    request.end()
    tracer.close()
    spans = by_name(collector)
    assert spans["gateway.request"].trace == PARENT[3:35]
    assert spans["gateway.request"].parent == PARENT[36:52]
    assert spans["gateway.request"].kind == "server"
    assert spans["gateway.request"].attributes == {"a": "b"}
    assert spans["gateway.callout"].parent == spans["gateway.request"].id
    assert spans["gateway.callout"].kind == "client"
    assert spans["gateway.callout"].resource["service.name"] == "upload-gateway"
    assert request.traceparent == f"00-{PARENT[3:35]}-{spans['gateway.request'].id}-01"


def test_the_state_of_other_vendors_goes_on(tracer: OtlpTracer) -> None:
    sent = CIMultiDict({"traceparent": PARENT, "tracestate": "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"})
    span = tracing.begin_request(sent, {})
    with tracing.use(span), tracing.begin("gateway.callout") as callout:
        assert callout.headers["tracestate"] == "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"
    span.end()


def test_below_a_request_that_is_not_sampled_nothing_is_sent(
    tracer: OtlpTracer, collector: Collector
) -> None:
    request = tracing.begin_request(CIMultiDict({"traceparent": UNSAMPLED}), {})
    assert request.traceparent is not None
    assert request.traceparent.endswith("-00")
    assert tracing.begin_below(request, "gateway.commit") is request
    assert tracing.begin_below(UNSAMPLED, "gateway.commit").traceparent == UNSAMPLED
    assert tracing.begin_run("gateway.handler x", UNSAMPLED, {}, ("x", 1)).traceparent == UNSAMPLED
    request.end()
    tracer.close()
    assert collector.bodies == []


def test_secrets_are_masked_in_attributes(tracer: OtlpTracer, collector: Collector) -> None:
    with logs.hide(lambda: ["of the request"]):
        span = tracing.begin_request(CIMultiDict(), {"user_agent.original": "of the request, hunter2"})
        span.set({"x": "hunter2"})
    with pytest.raises(ValueError, match="in the text"), span:
        raise ValueError("in the text")
    tracer.close()
    (seen,) = collector.spans()
    assert seen.attributes["user_agent.original"] == "[redacted], [redacted]"
    assert seen.attributes["x"] == "[redacted]"
    assert seen.error
    assert seen.error_type == "ValueError"
    assert not any(text in body for body in collector.bodies for text in (b"hunter2", b"in the text"))


def test_each_attempt_is_linked_to_the_one_before_whichever_process_ran_it(
    tracer: OtlpTracer, collector: Collector, make_tracer: MakeTracer
) -> None:
    run = "event\nhandler\n0"
    tracing.begin_run("gateway.handler x", PARENT, {}, (run, 1)).end()
    tracer.close()
    other = make_tracer()
    tracing.begin_run("gateway.handler x", PARENT, {}, (run, 2)).end()
    tracing.begin_run("gateway.handler x", PARENT, {}, (run, 3)).end()
    other.close()
    first, second, third = collector.spans()
    assert {first.trace, second.trace, third.trace} == {PARENT[3:35]}
    assert first.parent == second.parent == third.parent == PARENT[36:52]
    assert first.links == ()
    assert second.links == (first.id,)
    assert third.links == (second.id,)


def test_a_delivery_without_a_request_begins_a_trace(tracer: OtlpTracer, collector: Collector) -> None:
    tracing.begin_run("gateway.handler x", None, {}, ("tick", 1)).end()
    tracing.begin_run("gateway.handler x", "no traceparent", {}, ("tick", 2)).end()
    tracer.close()
    assert [(span.kind, span.parent) for span in collector.spans()] == [("consumer", "")] * 2


def test_the_sampler_is_that_of_the_usual_variables(
    make_tracer: MakeTracer, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "files")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=abc")
    tracer = make_tracer()
    tracing.begin_request(CIMultiDict(), {}).end()
    tracing.begin_request(CIMultiDict({"traceparent": PARENT}), {}).end()
    tracer.close()
    (span,) = collector.spans()
    assert span.trace == PARENT[3:35]
    assert span.resource["service.name"] == "files"
    assert collector.headers[0]["x-key"] == "abc"


@pytest.mark.timeout(60)
def test_a_collector_that_answers_nothing_does_not_hold_a_stop_up(
    make_tracer: MakeTracer, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600")
    collector.free.clear()
    tracer = make_tracer()
    tracing.begin_request(CIMultiDict(), {}).end()
    tracer.close()
    assert not collector.free.is_set()


def test_a_collector_that_is_away_is_logged_once_and_so_is_its_return(
    make_tracer: MakeTracer,
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    caplog.set_level(logging.INFO)
    collector.status = 400  # not tried again
    tracer = make_tracer()
    for _ in range(3):
        refused = len(collector.bodies)
        tracing.begin_request(CIMultiDict(), {}).end()
        wait_for(partial(collector.has_more_than, refused))
    collector.status = 200
    tracing.begin_request(CIMultiDict(), {}).end()
    wait_for(lambda: "takes spans again" in caplog.text)
    tracer.close()
    words = [getattr(record, "event", record.getMessage()) for record in caplog.records]
    assert words == ["traces.lost", "traces.resumed"]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
