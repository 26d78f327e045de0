"""Handlers of uploads from the client's and the operator's side: answers, files, log lines."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from gateway.domain.model import UPLOADING
from tests.conftest import StartGateway
from tests.support import TESTS
from tests.support.harness import (
    files_below,
    get,
    leftovers,
    put,
    raw_connection,
    request_head,
    write_plugin,
)
from tests.support.recorders import EventRecorder, captured_log, write_handler

GOLDEN = TESTS / "golden/plugins"


# -- the published samples, unchanged


async def test_the_published_admission_handler_asks_for_a_token(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    shutil.copy(GOLDEN / "fileUploadingEventHandler.yaml", write_plugin(tmp_path / "plugins", ""))
    (tmp_path / "plugins/plugin.yaml").unlink()
    gateway = await start_gateway(plugins=[str(tmp_path / "plugins")])
    refused = await put(gateway, "/upload/x", b"1")
    assert (refused.status, refused.body) == (401, b"Unauthorized")
    assert refused.headers["Content-Type"].startswith("text/plain")
    assert files_below(tmp_path / "data/upload") == {}
    assert (await put(gateway, "/upload/x", b"2", "x-auth-token: t")).status == 201
    assert files_below(tmp_path / "data/upload") == {"x": b"2"}


# -- handlers that fail

HERE = "# here"
"""Marks the line that the log must name."""

FAILING = {
    "raises": f"raise ValueError('why')  {HERE}",
    "exits": f"raise SystemExit(3)  {HERE}",
    "is interrupted": f"raise KeyboardInterrupt  {HERE}",
    "cancels itself": "raise asyncio.CancelledError",
    "calls itself for ever": f"await hook(event, handle)  {HERE}",
    "hangs": f"await asyncio.sleep(3600)  {HERE}",
    "blocks for ever": f"time.sleep(20)  {HERE}",
    "terminates with junk": "await handle.terminate('401', 'no')",
    "terminates with no such status": "await handle.terminate(1000)",
    "answers what is no answer": "await handle.terminate(401, object())",
    "writes a path that is none": "event['path'] = 5",
    "deletes the path": "del event['path']",
    "empties the event": "event.clear()",
    "writes a limit that is none": "event['max_bytes'] = '1 MB'",
    "writes a policy that is none": "event['on_conflict'] = 'perhaps'",
}


@pytest.mark.parametrize("body", FAILING.values(), ids=FAILING.keys())
async def test_a_handler_that_fails_refuses_leaves_nothing_and_is_named_in_the_log(
    start_gateway: StartGateway, tmp_path: Path, body: str
) -> None:
    seconds = 0.3 if "wait()" in body or "sleep" in body else 30
    folder = write_handler(tmp_path / "plugins", body, more=f"timeout: {seconds}\n")
    gateway = await start_gateway(plugins=folder)
    with captured_log() as lines:
        answer = await put(gateway, "/upload/x", b"secret bytes")
    assert (answer.status, answer.json["error"]) == (503, "hook_failed")
    assert "Retry-After" in answer.headers
    assert "why" not in answer.json["message"]
    nothing_is_stored(tmp_path)
    assert (await get(gateway, "/-/events")).json["deliveries"] == []

    (line,) = [line for line in lines if line["logger"] == "gateway.hooks"]
    assert (line["handler"], line["level"]) == ("hook", "error")
    assert line["upload_id"] == answer.json["upload_id"]
    file = tmp_path / "plugins/hook.yaml"
    assert line["place"].startswith(f"{file}:")
    numbers = [n for n, text in enumerate(file.read_text().splitlines(), 1) if HERE in text]
    for number in numbers:
        assert f"{file}:{number}" in json.dumps(lines)


def nothing_is_stored(tmp_path: Path) -> None:
    assert files_below(tmp_path / "data/upload") == {}
    assert leftovers(tmp_path / "data") == []


@pytest.mark.parametrize(
    "path",
    ["../../etc/x", "/upload/../../x", "/.gateway/x", "/a//b", "", "/", "/a\0b", "/a\\b", "/\ud800"],
)
async def test_a_rewrite_to_a_bad_path_is_the_handlers_failure(
    start_gateway: StartGateway, tmp_path: Path, path: str
) -> None:
    script = f"event['path'] = json.loads({json.dumps(path)!r})"
    gateway = await start_gateway(plugins=write_handler(tmp_path / "plugins", script))
    with captured_log() as lines:
        answer = await put(gateway, "/upload/x", b"1")
    assert (answer.status, answer.json["error"]) == (503, "hook_failed")
    nothing_is_stored(tmp_path)
    assert any("rewrote the path" in line["message"] for line in lines)


async def test_after_a_handler_that_blocked_for_ever_others_are_served(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    script = "if 'X-Block' in event:\n    time.sleep(20)"
    gateway = await start_gateway(
        plugins=write_handler(tmp_path / "plugins", script, more="timeout: 3\n")
    )
    assert (await put(gateway, "/upload/x", b"1", "X-Block: 1")).status == 503
    assert (await put(gateway, "/upload/x", b"2")).status == 201
    assert (await get(gateway, "/-/ready")).status == 200


async def test_an_upload_goes_on_while_a_handler_of_another_blocks(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    script = f"""
    import os
    while 'X-Block' in event and not os.path.exists({str(go)!r}):
        time.sleep(0.01)
    """
    gateway = await start_gateway(
        plugins=write_handler(tmp_path / "plugins", script, more="timeout: 30\n")
    )
    async with raw_connection(gateway) as going, raw_connection(gateway) as probing:
        await going.send(
            request_head("PUT", "/upload/x", "Transfer-Encoding: chunked", "Expect: 100-continue")
        )
        assert await going.line() == b"HTTP/1.1 100 Continue\r\n"
        blocked = asyncio.create_task(put(gateway, "/upload/y", b"1", "X-Block: 1"))
        for _ in range(20):
            await going.send(b"5\r\nhello\r\n")
            await probing.send(request_head("GET", "/-/health"))
            assert (await probing.answer()).status == 200
        assert not blocked.done()
        go.touch()
        await going.send(b"0\r\n\r\n")
        assert (await going.answer()).status == 201
    assert (await blocked).status == 201
    assert files_below(tmp_path / "data/upload") == {"x": b"hello" * 20, "y": b"1"}


# -- handlers that decide


async def test_a_failure_that_is_allowed_lets_the_upload_in_unchanged(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    script = "event['path'] = '/elsewhere'\nraise ValueError"
    gateway = await start_gateway(
        plugins=write_handler(tmp_path / "plugins", script, more="on_error: allow\n")
    )
    assert (await put(gateway, "/upload/x", b"1")).json["path"] == "/upload/x"
    assert files_below(tmp_path / "data/upload") == {"x": b"1"}


async def test_a_refusal_stands_although_errors_are_allowed(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    script = "await handle.terminate(418, ['tea', 1])\nraise ValueError"
    gateway = await start_gateway(
        plugins=write_handler(tmp_path / "plugins", script, more="on_error: allow\n")
    )
    answer = await put(gateway, "/upload/x", b"1")
    assert (answer.status, answer.json) == (418, ["tea", 1])
    assert answer.headers["Content-Type"].startswith("application/json")
    nothing_is_stored(tmp_path)


async def test_what_a_handler_returns_means_nothing(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway(plugins=write_handler(tmp_path / "plugins", "return {'status': 500}"))
    assert (await put(gateway, "/upload/x", b"1")).status == 201


@pytest.mark.parametrize(
    ("first", "second", "status", "path"),
    [
        ("event['path'] += '-a'", "event['path'] += '-b'", 201, "/upload/x-a-b"),
        ("await handle.terminate(401)", "await handle.terminate(402)", 401, None),
        ("await handle.terminate(200)", "await handle.terminate(402)", 402, None),
        ("pass", "event['path'] = 'by/account' + event['path']", 201, "/by/account/upload/x"),
    ],
)
async def test_handlers_run_in_name_order_and_the_first_refusal_wins(
    start_gateway: StartGateway, tmp_path: Path, first: str, second: str, status: int, path: str | None
) -> None:
    write_handler(tmp_path / "plugins", second, name="b")
    gateway = await start_gateway(plugins=write_handler(tmp_path / "plugins", first, name="a"))
    answer = await put(gateway, "/upload/x", b"1")
    assert answer.status == status
    if path is None:
        nothing_is_stored(tmp_path)
    else:
        assert answer.json["path"] == path
        assert (tmp_path / "data" / path[1:]).read_bytes() == b"1"


async def test_a_handler_replaces_the_default_authorization(
    start_gateway: StartGateway, tmp_path: Path, recorder: EventRecorder
) -> None:
    gateway = await start_gateway(
        plugins=recorder.write_handler(tmp_path / "plugins", UPLOADING, "a"), auth="token"
    )
    assert (await put(gateway, "/upload/x", b"1")).status == 201
    assert (await recorder.next_event())[1]["principal"] is None
    await put(gateway, "/upload/x", b"1", f"X-Auth-Token: {gateway.resources.base.shared.token}")
    assert (await recorder.next_event())[1]["principal"] == {"name": "generated", "kind": "token"}


async def test_where_all_handlers_keep_it_the_default_authorization_decides(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        folder = write_handler(tmp_path / "plugins", "pass", name=name, more="authorization: keep\n")
    gateway = await start_gateway(plugins=folder, auth="token")
    assert (await put(gateway, "/upload/x", b"1")).status == 401
    token = f"X-Auth-Token: {gateway.resources.base.shared.token}"
    assert (await put(gateway, "/upload/x", b"1", token)).status == 201
