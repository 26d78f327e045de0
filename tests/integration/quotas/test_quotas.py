"""Quotas: never a byte over, whoever uploads how; what is removed or fails is given back."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from tests.conftest import StartGateway, StartProcess
from tests.support.harness import curl, files_below, put, raw_connection
from tests.support.quotas import expected_usage, open_counters, usage_of

KEY = "per principal 127.0.0.1 (address)"


def counters(directory: Path) -> sqlite3.Connection:
    return open_counters(directory / ".gateway" / "quotas.db")


@pytest.mark.both_paths
async def test_a_quota_counts_files_as_they_come_are_replaced_and_go(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    quotas = ["per=principal bytes=10K files=3", "prefix=/upload/few/ files=1"]
    gateway = await start_gateway(quotas=quotas, deletes="true")
    answer = await put(gateway, "/upload/a", b"x" * 4096)
    assert answer.status == 201
    left = {"limit": 10240, "left": 6144}
    assert answer.json["quotas"] == [{"quota": KEY, "bytes": left, "files": {"limit": 3, "left": 2}}]
    assert (await put(gateway, "/upload/a", b"x" * 2048)).status == 200
    assert (await put(gateway, "/upload/few/b", b"x" * 4096)).status == 201
    refused = await put(gateway, "/upload/few/c", b"x")
    assert (refused.status, refused.json["error"]) == (507, "quota_exceeded")
    assert refused.json["message"] == "prefix /upload/few/: 1 of 1 files used"
    refused = await put(gateway, "/upload/c", b"x" * 4097)
    assert refused.status == 507
    assert refused.json["message"] == f"{KEY}: 6 KiB of 10 KiB used, this upload has 4 KiB"
    assert (await curl("-X", "DELETE", f"{gateway.url}/upload/few/b")).status == 204
    assert (await put(gateway, "/upload/c", b"x" * 4097)).status == 201
    assert usage_of(counters(tmp_path / "data")) == {KEY: (6145, 2)}
    assert sorted(files_below(tmp_path / "data/upload")) == ["a", "c"]


async def test_what_does_not_fit_is_refused_before_the_body_and_chunked_as_it_comes(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(quotas=["per=address bytes=100K"])
    async with raw_connection(gateway) as connection:
        head = "PUT /upload/a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
        await connection.send(f"{head}Content-Length: 102401\r\n\r\n".encode())
        refused = await connection.head()
        assert refused.status == 507
    async with raw_connection(gateway) as connection:
        await connection.send(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        assert (await connection.head()).status == 100
        for _ in range(2):
            await connection.send(b"c800\r\n" + b"x" * 0xC800 + b"\r\n")
        await connection.send(b"1\r\nx\r\n0\r\n\r\n")
        answer = await connection.answer()
        assert (answer.status, answer.json["error"]) == (507, "quota_exceeded")
    assert usage_of(counters(tmp_path / "data")) == {}
    assert files_below(tmp_path / "data/upload") == {}


async def test_64_uploads_at_once_in_three_processes_never_store_a_byte_too_much(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    quotas = "per=principal bytes=100K, prefix=/upload/few/ files=5, per=address bytes_per_day=200K"
    gateway = gateway_process("--processes", "3", "--quotas", quotas)

    async def upload(number: int) -> int:
        folder = "few/" if number % 2 else ""
        answer = await put(gateway, f"/upload/{folder}{number % 40}", b"x" * (3000 + 100 * number))
        return answer.status

    for _ in range(3):
        statuses = await asyncio.gather(*(upload(number) for number in range(64)))
        assert {*statuses} <= {200, 201, 429, 507}
        stored = files_below(tmp_path / "data/upload")
        assert sum(map(len, stored.values())) <= 100 << 10
        assert len([name for name in stored if name.startswith("few/")]) <= 5
    db = counters(tmp_path / "data")
    assert usage_of(db)[KEY] == (sum(map(len, stored.values())), len(stored))
    assert usage_of(db) == expected_usage(db)
    assert db.execute("SELECT count(*) FROM quota_reservations").fetchone() == (0,)
