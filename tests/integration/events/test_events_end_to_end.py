"""What handlers are told, to the last key, and how a running gateway takes new ones."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.model import UPLOADED, UPLOADING
from gateway.server.app import Gateway
from tests.conftest import StartGateway, StartProcess
from tests.support import TESTS
from tests.support.harness import (
    TIMEOUT,
    GatewayProcess,
    curl,
    files_below,
    get,
    put,
    self_signed_certificate,
    write_plugin,
)
from tests.support.recorders import EventRecorder, captured_log, write_handler

GOLDEN = TESTS / "golden/plugins"

UPLOADING_KEYS = {
    "id", "event_version", "upload_id", "method", "remote", "principal", "path", "resources",
    "params", "headers", "content_length", "content_type", "resumable", "concat",
}  # fmt: skip
UPLOADED_KEYS = {
    "id", "event_version", "upload_id", "attempt", "address", "port", "filepath", "path", "mime",
    "bytes", "resources", "params", "headers", "method", "remote", "principal", "content_type",
    "metadata", "digests",
}  # fmt: skip


async def test_the_published_uploaded_handler_calls_this_gateway(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    folder = write_plugin(
        tmp_path / "plugins",
        "name: handson\nconfig:\n  aws_access_key_id: k\n  aws_secret_access_key: s\n  region: r\n",
    )
    shutil.copy(GOLDEN / "fileUploadedEventHandler.yaml", folder)
    with captured_log() as lines:
        gateway = await start_gateway(plugins=[str(folder)], auth="none")
        answer = await put(gateway, "/upload/x", b"1")
        assert answer.status == 201
        run = await first_run(gateway, answer.json["upload_id"])
    called = [line for line in lines if line.get("path") == "/v1/uploadToS3"]
    assert [(line["method"], line["status"]) for line in called[:1]] == [("PUT", 404)]
    assert (run["outcome"], run["error"]) == ("retry", "HTTPError: HTTP 404")


async def first_run(gateway: Gateway, upload_id: str) -> Any:
    """Wait for the end of the first run of the only handler."""
    deadline = time.monotonic() + TIMEOUT
    while not (runs := (await get(gateway, f"/-/uploads/{upload_id}")).json["handlers"][0]["runs"]):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)  # the page is the only public sign of a run that failed
    return runs[0]


# -- what handlers see


async def test_both_events_have_the_keys_that_are_promised(
    start_gateway: StartGateway, tmp_path: Path, recorder: EventRecorder
) -> None:
    recorder.write_handler(tmp_path / "plugins", UPLOADING, "before")
    folder = recorder.write_handler(tmp_path / "plugins", UPLOADED, "after")
    gateway = await start_gateway(plugins=folder, file_upload_api_path="/files/{tenant}/{filepath}")
    target = "/files/acme/a/b.txt?tag=1&tag=2"
    answer = await put(gateway, target, b"12345", "X-Odd: yes")
    host, port = gateway.address

    name, before = await recorder.next_event()
    assert (name, set(before)) == ("before", UPLOADING_KEYS)
    name, after = await recorder.next_event()
    assert (name, set(after)) == ("after", UPLOADED_KEYS)
    for event in (before, after):
        assert event["upload_id"] == answer.json["upload_id"]
        assert event["event_version"] == 1
        assert event["path"] == "/upload/a/b.txt"
        assert event["resources"] == {"tenant": "acme", "filepath": "a/b.txt"}
        assert event["params"] == {"tag": ["1", "2"]}
        assert event["headers"]["X-Odd"] == "yes"
    assert (before["content_length"], before["content_type"], before["method"]) == (5, None, "PUT")
    assert (after["address"], after["port"], after["attempt"]) == (host, port, 1)
    assert (after["bytes"], after["mime"]) == (5, "text/plain")
    assert after["filepath"] == str(tmp_path / "data/upload/a/b.txt")
    assert after["id"] != before["id"]


async def test_the_uploaded_event_tells_the_path_that_was_rewritten_and_renamed(
    start_gateway: StartGateway, tmp_path: Path, recorder: EventRecorder
) -> None:
    write_handler(tmp_path / "plugins", "event['path'] = '/other/x'")
    folder = recorder.write_handler(tmp_path / "plugins", UPLOADED, "after")
    gateway = await start_gateway(plugins=folder, on_conflict="rename")
    for body, path in ((b"1", "/other/x"), (b"2", "/other/x-1")):
        assert (await put(gateway, "/upload/x", body)).json["path"] == path
        _, event = await recorder.next_event()
        assert event["path"] == path
        assert Path(event["filepath"]).read_bytes() == body


async def test_secrets_are_shown_to_admission_and_to_nobody_later(
    start_gateway: StartGateway, tmp_path: Path, recorder: EventRecorder
) -> None:
    recorder.write_handler(tmp_path / "plugins", UPLOADING, "before")
    folder = recorder.write_handler(tmp_path / "plugins", UPLOADED, "after")
    gateway = await start_gateway(plugins=folder, redact=["X-Mine"])
    names = ("Authorization", "X-Auth-Token", "Cookie", "X-Api-Key", "x-mine")
    with captured_log() as lines:
        secrets = [f"{name}: s3cret" for name in names]
        await put(gateway, "/upload/x?X-Amz-Signature=s3cret&a=b", b"1", *secrets)
        before, after = (await recorder.next_event())[1], (await recorder.next_event())[1]
    assert [before["headers"][name] for name in names] == ["s3cret"] * len(names)
    assert before["params"] == {"X-Amz-Signature": ["s3cret"], "a": ["b"]}
    assert [after["headers"][name] for name in names] == ["[redacted]"] * len(names)
    assert after["params"] == {"X-Amz-Signature": ["[redacted]"], "a": ["b"]}
    assert "s3cret" not in json.dumps(lines)
    state = files_below(tmp_path / "data/.gateway")
    assert [name for name, content in state.items() if b"s3cret" in content] == []


# -- reloading


@pytest.mark.slow
async def test_a_hangup_takes_new_plugins_and_a_faulty_file_keeps_the_old_ones(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    folder = tmp_path / "plugins"
    write_handler(folder, "await handle.terminate(401)")
    gateway = gateway_process("--plugins", str(folder), "--log-format", "text")
    assert (await put(gateway, "/upload/x", b"1")).status == 401

    write_handler(folder, "event['path'] = '/new'")
    await hang_up(gateway, "reloaded: plugin set 2")
    assert (await put(gateway, "/upload/x", b"1")).json["path"] == "/new"

    write_handler(folder, "this is no Python")
    await hang_up(gateway, "the reload failed")
    assert f"{folder}/hook.yaml:5" in gateway.log()
    assert (await put(gateway, "/upload/x", b"1")).json["path"] == "/new"

    write_handler(folder, "event['path'] = '/mended'")
    await hang_up(gateway, "reloaded: plugin set 3")
    assert (await put(gateway, "/upload/x", b"1")).json["path"] == "/mended"


async def test_a_reload_whose_certificate_is_bad_takes_no_plugin_either(
    start_gateway: StartGateway, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = self_signed_certificate(tmp_path)
    folder = tmp_path / "plugins"
    folder.mkdir()
    gateway = await start_gateway(tls_cert=cert, tls_key=key, plugins=[str(folder)])
    before = gateway.resources.plugins.current
    write_handler(folder, "pass", event="APIGW.OnFileUploaded")
    whole = Path(cert).read_bytes()
    Path(cert).write_bytes(b"half a certificate")
    await gateway.reload()
    assert gateway.resources.plugins.current is before
    assert "the reload failed, nothing has changed" in caplog.text
    Path(cert).write_bytes(whole)
    await gateway.reload()
    assert gateway.resources.plugins.current.number == before.number + 1


async def test_a_certificate_whose_key_is_not_there_yet_does_not_end_https(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    cert, key = self_signed_certificate(tmp_path)
    gateway = await start_gateway(tls_cert=cert, tls_key=key)
    (tmp_path / "renewed").mkdir()
    renewed, _ = self_signed_certificate(tmp_path / "renewed")
    Path(cert).write_bytes(Path(renewed).read_bytes())
    await gateway.reload()
    assert (await curl("-k", f"{gateway.url}/-/health")).status == 200


async def hang_up(gateway: GatewayProcess, sign: str) -> None:
    """Send SIGHUP and wait for the line in the log that tells what came of it."""
    gateway.signal(signal.SIGHUP)
    deadline = time.monotonic() + TIMEOUT
    while sign not in gateway.log():
        assert time.monotonic() < deadline, gateway.log()
        await asyncio.sleep(0.02)  # another process's log file: there is no event to wait for
