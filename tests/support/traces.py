"""A collector of OpenTelemetry traces that keeps every byte, and answers as a test says."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.harness import wait_until


class SeenSpan(NamedTuple):
    """A span as a collector has received it; ids are hexadecimal, `parent` is empty for a root.

    `started` and `ended` are Unix times in nanoseconds.
    """

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, Any]
    error: bool
    links: tuple[str, ...]
    resource: dict[str, Any]
    started: int
    ended: int

    @property
    def error_type(self) -> object:
        return self.attributes.get("error.type")


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def seen(span: Any, resource: dict[str, Any] | None = None) -> SeenSpan:
    """Return what a test reads of a span of the protocol."""
    return SeenSpan(
        span.name,
        Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        _attributes(span.attributes),
        span.status.code == 2,
        tuple(link.span_id.hex() for link in span.links),
        resource or {},
        span.start_time_unix_nano,
        span.end_time_unix_nano,
    )


class Collector:
    """Takes spans on `/v1/traces`. `status` is what it answers; while `held` it answers nothing."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.free = threading.Event()
        self.free.set()
        collector = self

        class TracesHandler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.headers.append({k.lower(): v for k, v in self.headers.items()})
                collector.bodies.append(body)
                collector.free.wait()
                with contextlib.suppress(OSError):  # the gateway has not waited
                    self.send_response(collector.status)
                    answer = ExportTraceServiceResponse().SerializeToString()
                    self.send_header("Content-Type", "application/x-protobuf")
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), TracesHandler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def has_more_than(self, count: int) -> bool:
        """Tell whether more requests than `count` have come."""
        return len(self.bodies) > count

    def spans(self) -> list[SeenSpan]:
        """Return every span that has come."""
        found = []
        for body in list(self.bodies):
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                resource = _attributes(group.resource.attributes)
                found += [seen(span, resource) for scope in group.scope_spans for span in scope.spans]
        return found

    def named(self, name: str) -> list[SeenSpan]:
        return [span for span in self.spans() if span.name == name]

    async def wait_for(self, name: str, count: int = 1) -> list[SeenSpan]:
        """Wait until so many spans of a name have come; return them."""
        await wait_until(lambda: len(self.named(name)) >= count)
        return self.named(name)

    def close(self) -> None:
        self.free.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextlib.contextmanager
def running_collector() -> Iterator[Collector]:
    collector = Collector()
    try:
        yield collector
    finally:
        collector.close()
