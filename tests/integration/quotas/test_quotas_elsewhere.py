"""Quotas of several gateways in PostgreSQL, and of files in a bucket."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from gateway.limits.quota_statements import SCHEMA, Statement, Steps
from gateway.records.quota_postgres import PostgresQuotaStore
from tests.conftest import StartProcess
from tests.support.harness import (
    GatewayProcess,
    curl,
    files_below,
    get,
    put,
    raw_connection,
    request_head,
)
from tests.support.postgres import Server, server
from tests.support.quotas import QUOTA_TABLES, expected_usage, open_counters, usage_of
from tests.support.s3.servers import SeaweedFS

pytestmark = pytest.mark.slow

KEY = "per principal 127.0.0.1 (address)"


@pytest.fixture(scope="module")
def database() -> Iterator[Server]:
    with server() as running:
        yield running


async def test_two_gateways_count_together_in_postgresql_and_after_a_kill(
    gateway_process: StartProcess, database: Server, tmp_path: Path
) -> None:
    quotas = "per=principal bytes=100K files=20, per=address requests=150/h"
    flags = ("--records", database.url, "--quotas", quotas, "--processes", "2")
    folders = [tmp_path / name for name in ("one", "two")]
    gateways = [gateway_process(*flags, directory=folder) for folder in folders]
    await begin_tus(gateways[0], 10)

    async def upload(number: int) -> int:
        body = b"x" * (2000 + 50 * number)
        return (await put(gateways[number % 2], f"/upload/{number % 30}", body)).status

    statuses = Counter(await asyncio.gather(*(upload(number) for number in range(64))))
    assert {*statuses} <= {200, 201, 507}
    stored = [files_below(folder / "upload") for folder in folders]
    assert sum(len(body) for files in stored for body in files.values()) <= 100 << 10
    assert sum(map(len, stored)) <= 19

    gateways[0].kill()
    gateways[0] = gateway_process(*flags, directory=folders[0], die_at="before quota settled")
    for name in files_below(folders[0] / "upload"):
        (folders[0] / "upload" / name).unlink()  # by hand: the scan of the start finds it
    await upload_until_it_dies(gateways[0])
    gateways[0].kill()
    gateways[0] = gateway_process(*flags, directory=folders[0])
    counters = PostgresQuotaStore(database.url, tmp_path / "mark")
    try:
        await wait_for_usage(counters, folders, reserved=10)
    finally:
        await asyncio.to_thread(counters.close)
    statuses = Counter(await asyncio.gather(*(upload(number) for number in range(100))))
    assert statuses[429] >= 100 + 64 + 2 - 150


async def begin_tus(gateway: GatewayProcess, size: int) -> None:
    async with raw_connection(gateway) as connection:
        lines = ("Tus-Resumable: 1.0.0", f"Upload-Length: {size}", "Content-Length: 0")
        await connection.send(request_head("POST", "/upload/waiting", *lines))
        assert (await connection.answer()).status == 201


async def upload_until_it_dies(gateway: GatewayProcess) -> None:
    """Upload until the quota has space again, and the process is killed before it settles."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        async with asyncio.timeout(30):
            while True:
                await put(gateway, "/upload/killed", b"x" * 10)
                await asyncio.sleep(0.1)


async def wait_for_usage(counters: PostgresQuotaStore, folders: list[Path], reserved: int) -> None:
    """Wait until the counters say what is stored in all folders, and what is reserved."""

    def rows(table: str) -> Steps[list[tuple[object, ...]]]:
        return (yield Statement(f"SELECT * FROM {table}"))

    async with asyncio.timeout(30):
        while True:
            copy = sqlite3.connect(":memory:")
            for statement in SCHEMA:
                copy.execute(statement)
            for table in QUOTA_TABLES:
                for row in await counters.run(partial(rows, table)):
                    copy.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
            stored = [body for folder in folders for body in files_below(folder / "upload").values()]
            counted = sum(map(len, stored)) + reserved, len(stored) + 1
            # The tables are read one after the other, while a scan may still go on.
            if usage_of(copy)[KEY] == counted and usage_of(copy) == expected_usage(copy):
                return
            await asyncio.sleep(0.2)


async def test_files_in_a_bucket_count_by_their_uploads(
    gateway_process: StartProcess, s3: SeaweedFS, s3_storage: str, bucket: str, tmp_path: Path
) -> None:
    flags = (
        "--storage",
        s3_storage,
        "--deletes",
        "--auth",
        "none",
        "--quotas",
        "per=principal bytes=100K",
    )
    gateway = gateway_process(*flags)
    sizes = [3000 + 500 * number for number in range(24)]
    statuses = await asyncio.gather(
        *(put(gateway, f"/upload/{number % 8}", b"x" * size) for number, size in enumerate(sizes))
    )
    assert {answer.status for answer in statuses} <= {200, 201, 507}
    async with s3.client() as client:
        page = await client.list_objects_v2(Bucket=bucket)
        listed = {item["Key"]: item["Size"] for item in page["Contents"]}
        stored = {key: size for key, size in listed.items() if "/upload/" in key}
        db = open_counters(tmp_path / "data/.gateway/quotas.db")
        assert usage_of(db) == expected_usage(db) == {KEY: (sum(stored.values()), len(stored))}
        assert sum(stored.values()) <= 100 << 10
        gone, left = sorted(stored)[:2]
        name = gone.rpartition("/")[2]
        assert (await curl("-X", "DELETE", f"{gateway.url}/upload/{name}")).status == 204
        gateway.kill()
        await client.delete_object(Bucket=bucket, Key=left)
    gateway = gateway_process(*flags)
    rest = {key: size for key, size in stored.items() if key not in {gone, left}}
    async with asyncio.timeout(30):
        while usage_of(db) != {KEY: (sum(rest.values()), len(rest))}:
            await asyncio.sleep(0.1)
    told = (await get(gateway, "/-/quotas")).json
    assert told["quotas"][0]["bytes"] == {"used": sum(rest.values()), "limit": 102400}
