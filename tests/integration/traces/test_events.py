"""The context of a request in the events that follow from it: held, resumed, deleted, on a worker."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.domain.model import DELETED, RECEIVED, UPLOADED
from tests.integration.traces.conftest import StartTraced
from tests.support.harness import put, raw_connection, request_head
from tests.support.nats.fixtures import server
from tests.support.nats.processes import WorkerProcess
from tests.support.nats.servers import Server
from tests.support.resumable import append, request
from tests.support.traces import Collector

__all__ = ["server"]

TRACE, OTHER = "4bf92f3577b34da6a3ce929d0e0e4736", "5bf92f3577b34da6a3ce929d0e0e4736"
CONTEXT = f"traceparent: 00-{TRACE}-00f067aa0ba902b7-01"


def handler(name: str, event: str, more: str = "") -> str:
    return (
        f"name: {name}\nevent: {event}\n{more}script: |\n"
        f"  async def {name}(event, handle):\n      logger.info('ran')\n"
    )


async def test_a_held_upload_is_judged_and_published_in_its_trace(
    traced: StartTraced, collector: Collector
) -> None:
    gateway = traced(handler("judge", RECEIVED, "hold: true\n"), handler("after", UPLOADED))
    assert (await put(gateway, "/upload/a.txt", b"hello", CONTEXT)).status == 202
    (after,) = await collector.wait_for("gateway.handler after")
    (judge,) = await collector.wait_for("gateway.handler judge")
    (commit,) = await collector.wait_for("gateway.commit")
    (served,) = await collector.wait_for("gateway.request")
    assert {span.trace for span in (after, judge, commit, served)} == {TRACE}
    assert {span.parent for span in (after, judge, commit)} == {served.id}
    assert judge.attributes["gateway.outcome"] == "done"


async def test_a_resumed_upload_belongs_to_the_request_that_completes_it(
    traced: StartTraced, collector: Collector
) -> None:
    gateway = traced(handler("after", UPLOADED))
    created = await request(gateway, "PUT", "/upload/a.txt", "Upload-Complete: ?0", CONTEXT, body=b"he")
    assert created.status == 201
    last = CONTEXT.replace(TRACE, OTHER)
    assert (await append(gateway, created.resource, 2, b"llo", last, end=True)).status < 300
    (after,) = await collector.wait_for("gateway.handler after")
    (commit,) = await collector.wait_for("gateway.commit")
    await collector.wait_for("gateway.request", 2)
    requests = {span.trace: span for span in collector.named("gateway.request")}
    assert set(requests) == {TRACE, OTHER}
    assert {(span.trace, span.parent) for span in (after, commit)} == {(OTHER, requests[OTHER].id)}
    assert not any(b"upload=" in body for body in collector.bodies)


async def test_the_removal_of_a_file_is_told_in_the_trace_of_its_request(
    traced: StartTraced, collector: Collector
) -> None:
    gateway = traced(handler("gone", DELETED), flags=("--deletes",))
    assert (await put(gateway, "/upload/a.txt", b"hello")).status == 201
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("DELETE", "/upload/a.txt", CONTEXT))
        assert (await connection.answer()).status == 204
    (gone,) = await collector.wait_for("gateway.handler gone")
    assert gone.trace == TRACE
    assert gone.attributes["gateway.event"] == DELETED


async def test_a_worker_runs_a_delivery_in_the_trace_of_the_request(
    traced: StartTraced, collector: Collector, server: Server, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("k" * 64)
    key.chmod(0o600)
    shared = ("--events", server.url, "--installation-key-file", str(key))
    gateway = traced(handler("after", UPLOADED), flags=(*shared, "--deliver", "workers"))
    flags = *shared, "--plugins", str(tmp_path / "plugins"), "--otlp", collector.url
    worker = await asyncio.to_thread(WorkerProcess, tmp_path / "worker", flags)
    try:
        assert (await put(gateway, "/upload/a.txt", b"hello", CONTEXT)).status == 201
        (after,) = await collector.wait_for("gateway.handler after")
        (served,) = await collector.wait_for("gateway.request")
        assert (after.trace, after.parent) == (TRACE, served.id)
        assert after.resource["process.pid"] == worker.process.pid
        assert after.resource["process.pid"] != served.resource["process.pid"]
        assert await asyncio.to_thread(worker.terminate) == 0
    finally:
        worker.kill()


async def test_the_commit_of_an_object_is_in_the_trace_of_its_request(
    traced: StartTraced, collector: Collector, s3_storage: str
) -> None:
    gateway = traced(handler("after", UPLOADED), flags=("--storage", s3_storage))
    assert (await put(gateway, "/upload/a.txt", b"hello", CONTEXT)).status == 201
    (after,) = await collector.wait_for("gateway.handler after")
    (commit,) = await collector.wait_for("gateway.commit")
    (served,) = await collector.wait_for("gateway.request")
    assert {(span.trace, span.parent) for span in (after, commit)} == {(TRACE, served.id)}
