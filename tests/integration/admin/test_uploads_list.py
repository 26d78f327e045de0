"""`GET /-/uploads`: every upload once, the newest first, whatever process has it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.model import created_at
from gateway.server.app import Gateway
from tests.conftest import StartGateway, StartProcess
from tests.support.harness import GatewayProcess, get, put, raw_connection, request_head, wait_until


async def delete(gateway: Gateway | GatewayProcess, target: str) -> int:
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("DELETE", target))
        return (await connection.answer()).status


async def listed(gateway: Gateway | GatewayProcess, query: str = "") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = (await get(gateway, f"/-/uploads?{query}{f'&cursor={cursor}' if cursor else ''}")).json
        rows += page["uploads"]
        cursor = page["next"]
        if cursor is None:
            return rows


@pytest.mark.parametrize("limit", [1, 2, 3, 1000])
async def test_pages_have_every_upload_once_newest_first(
    start_gateway: StartGateway, limit: int
) -> None:
    gateway = await start_gateway()
    ids = [(await put(gateway, f"/upload/{n}", b"x")).json["upload_id"] for n in range(7)]
    rows = await listed(gateway, f"limit={limit}")
    assert [row["upload_id"] for row in rows] == sorted(ids, reverse=True)
    assert {row["state"] for row in rows} == {"stored"}
    page = (await get(gateway, f"/-/uploads/{ids[0]}")).json
    del page["handlers"]
    assert page == rows[-1]


async def test_uploads_are_asked_for_by_their_ids_with_their_handlers(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(deletes=True)
    ids = [(await put(gateway, f"/upload/{n}", b"x")).json["upload_id"] for n in range(3)]
    assert await delete(gateway, "/upload/2") == 204
    unknown = "0" * 26 + "-0"
    query = "&".join(f"id={upload_id}" for upload_id in (ids[0], unknown, ids[2], ids[0]))
    rows = await listed(gateway, query)
    assert rows == [(await get(gateway, f"/-/uploads/{ids[n]}")).json for n in (0, 2)]
    assert [row["state"] for row in rows] == ["stored", "removed"]
    assert [row["handlers"] for row in rows] == [[], []]
    assert (await get(gateway, "/-/uploads?" + "&".join(["id=x"] * 51))).status == 400


async def test_what_is_in_flight_failed_and_removed_is_told(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(deletes=True)
    await put(gateway, "/upload/stored", b"x")
    await put(gateway, "/upload/removed", b"x")
    assert await delete(gateway, "/upload/removed") == 204
    refused = await put(gateway, "/upload/refused", b"x", f"Content-MD5: {'A' * 22}==")
    assert refused.status == 400
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", "/upload/running", "Content-Length: 100000") + b"x")
        await wait_until(lambda: len(gateway.endpoints.inflight))
        rows = {row["path"]: row["state"] for row in await listed(gateway)}
        assert rows.pop("/upload/running") in {"admitting", "receiving"}
        assert rows == {
            "/upload/stored": "stored",
            "/upload/removed": "removed",
            "/upload/refused": "failed",
        }
        for state in ("stored", "removed", "failed"):
            assert [row["path"] for row in await listed(gateway, f"state={state}")] == [
                {"failed": "/upload/refused"}.get(state, f"/upload/{state}")
            ]


async def test_a_file_that_was_replaced_is_not_called_removed(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(deletes=True)
    first = (await put(gateway, "/upload/x", b"one")).json["upload_id"]
    second = (await put(gateway, "/upload/x", b"two")).json["upload_id"]
    assert await delete(gateway, "/upload/x") == 204
    third = (await put(gateway, "/upload/x", b"three")).json["upload_id"]
    states = {row["upload_id"]: row["state"] for row in await listed(gateway)}
    assert states == {first: "stored", second: "removed", third: "stored"}
    for key, state in states.items():
        assert (await get(gateway, f"/-/uploads/{key}")).json["state"] == state


async def test_the_time_of_an_upload_is_exactly_that_of_its_id(gateway_process: StartProcess) -> None:
    gateway = gateway_process()
    ids = [(await put(gateway, f"/upload/{n}", b"x")).json["upload_id"] for n in range(3)]
    assert gateway.terminate() == 0  # while it runs, only it can read its journal
    with contextlib.closing(sqlite3.connect(gateway.directory / ".gateway/journal-0.db")) as journal:
        rows = dict(journal.execute("SELECT id, created FROM uploads"))
    assert rows == {upload_id: created_at(upload_id) for upload_id in ids}


async def test_uploads_are_selected_by_principal_and_time(start_gateway: StartGateway) -> None:
    digests = [f"{name}:{hashlib.sha256(name.encode()).hexdigest()}" for name in ("ann", "bob")]
    gateway = await start_gateway(auth="token", tokens=digests)
    for name in ("ann", "bob", "ann"):
        await put(gateway, f"/upload/{name}", b"x", f"X-Auth-Token: {name}")
    assert (await get(gateway, "/-/uploads")).status == 401

    async def ask(query: str) -> Any:
        return (await get(gateway, f"/-/uploads?{query}", "X-Auth-Token: ann")).json

    rows = (await ask("principal=ann"))["uploads"]
    assert [row["principal"]["name"] for row in rows] == ["ann", "ann"]
    assert (await ask("principal=nobody"))["uploads"] == []
    for row in rows:  # the times that are shown can be asked for
        since = (await ask(f"since={row['created']}"))["uploads"]
        assert row["upload_id"] in [each["upload_id"] for each in since]
    assert (await ask("since=2999-01-01T00:00:00Z"))["uploads"] == []
    for query in ("state=gone", "since=yesterday", "limit=0", "limit=1001"):
        assert (await ask(query))["error"] == "bad_request", query


@pytest.mark.slow
async def test_three_processes_tell_the_same(gateway_process: StartProcess, tmp_path: Path) -> None:
    gateway = gateway_process("--deletes", "--processes", "3")
    ids = [(await put(gateway, f"/upload/{n}", b"x")).json["upload_id"] for n in range(20)]
    assert len({key.rpartition("-")[2] for key in ids}) > 1
    for number in range(0, 20, 2):
        assert await delete(gateway, f"/upload/{number}") == 204
    for _ in range(4):
        rows = await listed(gateway, "limit=7")
        assert [row["upload_id"] for row in rows] == sorted(ids, reverse=True)
        assert sum(row["state"] == "removed" for row in rows) == 10
    answers = await asyncio.gather(*(get(gateway, f"/-/uploads/{ids[0]}") for _ in range(6)))
    assert {answer.json["state"] for answer in answers} == {"removed"}


@pytest.mark.slow
async def test_of_a_bucket_the_very_upload_is_told(start_gateway: StartGateway, s3_storage: str) -> None:
    """The same bytes have the same entity tag there."""
    gateway = await start_gateway(deletes=True, storage=s3_storage)
    first = (await put(gateway, "/upload/x", b"same")).json["upload_id"]
    assert await delete(gateway, "/upload/x") == 204
    second = (await put(gateway, "/upload/x", b"same")).json["upload_id"]
    states = {row["upload_id"]: row["state"] for row in await listed(gateway)}
    assert states == {first: "removed", second: "stored"}


async def test_operators_see_what_is_stored_and_nobody_else(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    await put(gateway, "/upload/a/b.txt", b"x")
    assert (await get(gateway, "/-/files")).status == 403  # --auth none is everybody
    digest = hashlib.sha256(b"T").hexdigest()
    other = await start_gateway(
        auth="token", tokens=[f"me:{digest}"], directory=gateway.resources.settings.directory / "other"
    )
    await put(other, "/upload/a/b.txt", b"x", "X-Auth-Token: T")
    assert (await get(other, "/-/files")).status == 401
    page = (await get(other, "/-/files?path=/upload/a/", "X-Auth-Token: T")).json
    assert [entry["name"] for entry in page["entries"]] == ["b.txt"]
    for path in ("/.gateway/", "/../", "/upload/../../"):
        assert (await get(other, f"/-/files?path={path}", "X-Auth-Token: T")).status == 400, path
