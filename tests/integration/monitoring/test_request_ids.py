"""One id for a request: in its answer, in the log, at its upstream, with the callouts of its scripts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.integration.monitoring.conftest import Line, StartLogging
from tests.support.harness import get, put, raw_connection, request_head, wait_until, write_plugin
from tests.support.routing.proxying import answer_all, lines_of, upstream
from tests.support.routing.scripted import ask, route, write

pytestmark = pytest.mark.both_paths

OWN = re.compile(r"[0-9a-f]{16}")
TRUSTING = ("--auth", "none", "--trusted-proxies", "127.0.0.0/8")


def leads_to(authority: str, more: str = "") -> str:
    return route("/r/{rest:path}", more=more).replace("upstreams: []", f"upstreams: ['{authority}']")


async def test_the_upstream_gets_the_id_of_the_answer_and_of_the_log(
    logging_gateway: StartLogging, tmp_path: Path
) -> None:
    async with upstream(answer_all) as up:
        folder = write(tmp_path / "p", leads_to(up.authority))
        gateway = logging_gateway("--auth", "none", "--plugins", str(folder))
        async with raw_connection(gateway.process) as connection:
            answered = []
            for given in ("", "X-Request-Id: theirs", "X-Request-Id: others"):
                await connection.send(request_head("GET", "/r/a", *filter(None, [given])))
                answered.append((await connection.answer()).headers["X-Request-Id"])
        sent = lines_of(b"\r\n" + up.only, "X-Request-Id")
    assert sent == answered
    assert len(set(answered)) == 3
    assert all(map(OWN.fullmatch, answered))
    assert [line["request_id"] for line in gateway.lines()] == answered


@pytest.mark.parametrize("body", [None, b"abc"])
async def test_the_id_of_a_trusted_proxy_goes_on_with_its_request(
    logging_gateway: StartLogging, tmp_path: Path, body: bytes | None
) -> None:
    async with upstream(answer_all) as up:
        folder = write(tmp_path / "p", leads_to(up.authority))
        gateway = logging_gateway(*TRUSTING, "--plugins", str(folder))
        method = "GET" if body is None else "POST"
        async with raw_connection(gateway.process) as connection:
            for given in ("edge-1", "edge-2"):
                length = () if body is None else (f"Content-Length: {len(body)}",)
                head = request_head(method, f"/r/{given}", f"X-Request-Id: {given}", *length)
                await connection.send(head + (body or b""))
                assert (await connection.answer()).headers["X-Request-Id"] == given
                assert (await gateway.line(f"/r/{given}"))["request_id"] == given
        assert lines_of(b"\r\n" + bytes(up.received[0]), "X-Request-Id") == ["edge-1", "edge-2"]


async def test_an_id_of_a_trusted_proxy_that_is_not_plain_is_replaced(
    logging_gateway: StartLogging,
) -> None:
    gateway = logging_gateway(*TRUSTING)
    for given in ("a b", "{evil}", "x" * 129):
        answer = await put(gateway.process, "/upload/a", b"1", f"X-Request-Id: {given}")
        assert OWN.fullmatch(answer.headers["X-Request-Id"])
    kept = await put(gateway.process, "/upload/a", b"1", "X-Request-Id: edge-1")
    assert kept.headers["X-Request-Id"] == "edge-1"
    refused = await get(gateway.process, "/nothing", "X-Request-Id: edge-2")
    assert (refused.status, refused.headers["X-Request-Id"]) == (404, "edge-2")


async def test_callouts_of_a_script_have_the_id_of_the_request_it_serves(
    logging_gateway: StartLogging, tmp_path: Path
) -> None:
    async with upstream(answer_all) as up:
        script = f"""
        await callout('{up.authority}')
        await callout('{up.authority}', headers={{'x-request-id': 'my own'}})
        return 'ok'
        """
        folder = write(tmp_path / "p", route("/r", script))
        gateway = logging_gateway("--auth", "none", "--plugins", str(folder))
        answer = await ask(gateway.process, "GET", "/r")
        received = b"".join(up.received)
    assert lines_of(b"\r\n" + received, "X-Request-Id") == [answer.headers["X-Request-Id"], "my own"]


ADMISSION = """
name: ask
event: APIGW.OnFileUploading
script: |
    async def ask(event, handle):
        await callout("AUTHORITY")
"""


async def test_callouts_that_admit_an_upload_have_its_id(
    logging_gateway: StartLogging, tmp_path: Path
) -> None:
    async with upstream(answer_all) as up:
        folder = write_plugin(tmp_path / "p", ADMISSION.replace("AUTHORITY", up.authority))
        gateway = logging_gateway("--auth", "none", "--plugins", str(folder))
        answer = await put(gateway.process, "/upload/a", b"1")
        assert answer.status == 201, answer.body
        received = b"".join(up.received)
    assert lines_of(b"\r\n" + received, "X-Request-Id") == [answer.headers["X-Request-Id"]]


EVENTS = """
- name: works
  event: APIGW.OnFileUploaded
  script: |
    async def works(event, handle): print("it works")
- name: fails
  event: APIGW.OnFileUploaded
  retry: {attempts: 1}
  script: |
    async def fails(event, handle): raise ValueError("it fails")
"""


async def test_every_line_of_a_run_names_its_event_its_upload_and_its_handler(
    logging_gateway: StartLogging, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "p", EVENTS)
    gateway = logging_gateway("--auth", "none", "--plugins", str(folder))
    stored = (await put(gateway.process, "/upload/a", b"1")).json

    def runs() -> list[Line]:
        loggers = {"gateway.hooks", "gateway.runner"}
        return [line for line in gateway.lines("") if line["logger"] in loggers]

    ends = {"handler.finished", "delivery.dead"}
    await wait_until(lambda: ends <= {line["event"] for line in runs()})
    for line in runs():
        assert (line["upload_id"], line["handler"] in {"works", "fails"}) == (stored["upload_id"], True)
        assert line["event_id"]
    [printed] = [line for line in gateway.lines("") if line["message"] == "it works"]
    assert (printed["upload_id"], bool(printed["event_id"])) == (stored["upload_id"], True)
