"""Held uploads as an operator sees them and decides about them: over HTTP and on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.auth.tokens import token_digest
from gateway.domain.model import RECEIVED
from gateway.server.app import Gateway
from tests.conftest import StartGateway, StartProcess
from tests.support.cli import run_verb
from tests.support.harness import (
    GatewayProcess,
    RawResponse,
    get,
    put,
    raw_connection,
    request_head,
    wait_until,
)
from tests.support.recorders import captured_log, write_handler

TOKEN = "Authorization: Bearer secret"
JSON = "Content-Type: application/json"
DECIDED = ("upload.released", "upload.rejected")


def undecided_handler(folder: Path) -> list[str]:
    """Write a handler that leaves a result and decides nothing: its upload stays held."""
    body = """
        handle.result({"seen": True})
        raise RuntimeError("no opinion")
    """
    return write_handler(
        folder, body, name="review", event=RECEIVED, more="hold: true\nretry: {attempts: 1}\n"
    )


async def post(
    gateway: Gateway | GatewayProcess, target: str, body: str = "{}", *lines: str
) -> RawResponse:
    async with raw_connection(gateway) as connection:
        head = request_head("POST", target, f"Content-Length: {len(body)}", *lines)
        await connection.send(head + body.encode())
        return await connection.answer()


async def held_upload(gateway: Gateway | GatewayProcess, path: str, *lines: str) -> str:
    """Upload a file; return its id when its handler has given up."""
    answer = await put(gateway, path, b"12345", *lines)
    assert answer.status == 202
    upload_id: str = answer.json["upload_id"]

    async def is_dead() -> bool:
        story = (await get(gateway, f"/-/uploads/{upload_id}", *lines)).json
        return bool(story["handlers"][0]["state"] == "dead")

    await wait_until(is_dead)
    return upload_id


async def state_of(gateway: Gateway | GatewayProcess, upload_id: str, *lines: str) -> Any:
    return (await get(gateway, f"/-/uploads/{upload_id}", *lines)).json["state"]


async def test_an_operator_releases_and_rejects_held_uploads(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(
        auth="token", tokens=[f"me:{token_digest('secret')}"], plugins=undecided_handler(tmp_path / "p")
    )
    files = gateway.resources.settings.directory / "upload"
    first, second = [await held_upload(gateway, f"/upload/{n}", TOKEN) for n in ("a", "b")]
    story = (await get(gateway, f"/-/uploads/{first}", TOKEN)).json
    assert (story["state"], story["path"], story["bytes"]) == ("held", "/upload/a", 5)
    (entry,) = story["handlers"]
    assert (entry["event"], entry["error"]) == (RECEIVED, "RuntimeError: no opinion")
    assert (entry["result"], story["result"]) == ({"seen": True}, {"seen": True})
    listed = (await get(gateway, "/-/uploads?state=held", TOKEN)).json["uploads"]
    assert [row["upload_id"] for row in listed] == [second, first]
    metrics = (await get(gateway, "/-/metrics", TOKEN)).body.decode()
    assert "gateway_held_uploads 2.0" in metrics
    assert (await get(gateway, "/-/status", TOKEN)).json["uploads"]["held"] == 2

    release, reject = f"/-/uploads/{first}/release", f"/-/uploads/{second}/reject"
    refused = [
        (await post(gateway, release, "{}", JSON), 401, "unauthorized"),
        (await post(gateway, release, "{}", TOKEN), 415, "unsupported_media_type"),
        (await post(gateway, release, "[]", TOKEN, JSON), 400, "bad_request"),
        (await post(gateway, release, '{"by": "another"}', TOKEN, JSON), 400, "bad_request"),
        (await post(gateway, reject, '{"reason": 1}', TOKEN, JSON), 400, "bad_request"),
        (await post(gateway, "/-/uploads/none/release", "{}", TOKEN, JSON), 404, "not_found"),
    ]
    site = "Sec-Fetch-Site: cross-site"
    refused += [(await post(gateway, release, "{}", TOKEN, JSON, site), 403, "forbidden")]
    for answer, status, code in refused:
        assert (answer.status, answer.json["error"]) == (status, code)
    assert [await state_of(gateway, key, TOKEN) for key in (first, second)] == ["held", "held"]

    with captured_log() as log:
        answer = await post(gateway, release, "{}", TOKEN, JSON)
        assert (answer.status, answer.json["upload_id"]) == (200, first)
        reason = '{"reason": "not ours"}'
        assert (await post(gateway, reject, reason, TOKEN, JSON)).json["state"] == "rejected"
    lines = {line["event"]: line for line in log}
    about = [(lines[name]["principal"], lines[name]["upload_id"]) for name in DECIDED]
    assert about == [("me", first), ("me", second)]
    assert lines["upload.rejected"]["reason"] == "not ours"

    async def is_stored() -> bool:
        return bool(await state_of(gateway, first, TOKEN) == "stored")

    await wait_until(is_stored)
    assert (files / "a").read_bytes() == b"12345"
    story = (await get(gateway, f"/-/uploads/{second}", TOKEN)).json
    assert (story["state"], story["error"]) == ("rejected", "rejected")
    assert story["refusal"] == {"reason": "not ours", "by": "me"}
    assert not (files / "b").exists()
    rejected = (await get(gateway, "/-/uploads?state=rejected", TOKEN)).json["uploads"]
    assert [row["upload_id"] for row in rejected] == [second]
    for target in (release, reject):  # both are decided
        answer = await post(gateway, target, "{}", TOKEN, JSON)
        assert (answer.status, answer.json["error"]) == (409, "already_decided")
    assert "gateway_held_uploads 0.0" in (await get(gateway, "/-/metrics", TOKEN)).body.decode()


async def test_a_refusal_while_the_client_waits_is_shown_with_what_the_handlers_left(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    body = """
        handle.result({"virus": "EICAR"})
        await handle.terminate(code=422, output="infected")
    """
    gateway = await start_gateway(
        plugins=write_handler(tmp_path / "p", body, name="scan", event=RECEIVED)
    )
    answer = await put(gateway, "/upload/x", b"12345")
    assert (answer.status, answer.body) == (422, b"infected")
    (row,) = (await get(gateway, "/-/uploads?state=rejected")).json["uploads"]
    story = (await get(gateway, f"/-/uploads/{row['upload_id']}")).json
    assert (story["state"], story["error"], story["bytes"]) == ("rejected", "rejected", 5)
    (entry,), result = story.pop("handlers"), story.pop("result")
    assert story == row
    assert (story["refusal"]["handler"], story["refusal"]["status"]) == ("scan", 422)
    assert (story["refusal"]["output"], result) == ("infected", {"virus": "EICAR"})
    assert (entry["handler"], entry["event"], entry["result"]) == ("scan", RECEIVED, result)


@pytest.mark.slow
async def test_the_command_line_decides_whichever_process_has_the_upload(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    (plugins,) = undecided_handler(tmp_path / "p")
    gateway = gateway_process("--processes", "3", "--plugins", plugins)
    ids = [await held_upload(gateway, f"/upload/{number}") for number in range(8)]
    assert len({key.rpartition("-")[2] for key in ids}) > 1
    assert rows(gateway, "held") == ids[::-1]
    for key in ids[:4]:
        code, out, _ = uploads(gateway, "release", key)
        assert (code, out.split()[0]) == (0, key)
    for key in ids[4:]:
        assert uploads(gateway, "reject", key, "--reason", "no")[:2] == (0, f"{key}  rejected\n")
    assert uploads(gateway, "reject", ids[0])[0] == 1
    assert uploads(gateway, "release", "unknown")[0] == 1
    assert uploads(gateway, "list", "--reason", "no")[0] == 2
    for key in ids[:4]:

        async def is_stored(key: str = key) -> bool:
            return bool(await state_of(gateway, key) == "stored")

        await wait_until(is_stored)
    assert (rows(gateway, "held"), rows(gateway, "rejected")) == ([], ids[:3:-1])
    assert gateway.terminate() == 0  # what follows reads the journals
    assert (rows(gateway, "held"), rows(gateway, "rejected")) == ([], ids[:3:-1])
    shown = json.loads(uploads(gateway, "show", ids[7], "--json")[1])
    assert (shown["state"], shown["refusal"]) == ("rejected", {"reason": "no", "by": "owner"})
    assert shown["handlers"][0]["result"] == {"seen": True}
    code, _, error = uploads(gateway, "release", ids[0])
    assert (code, "needs the running server" in error) == (2, True)


def uploads(gateway: GatewayProcess, *words: str) -> tuple[int, str, str]:
    return run_verb(gateway.directory, "uploads", *words)


def rows(gateway: GatewayProcess, state: str) -> list[str]:
    """Return the ids of the list of uploads in a state."""
    return [
        row["upload_id"] for row in json.loads(uploads(gateway, "list", "--state", state, "--json")[1])
    ]
