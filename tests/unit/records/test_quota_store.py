"""The file of counters: processes that share it, and what is done with a torn or a foreign one."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from gateway.domain.quotas import QuotaLeft
from gateway.errors import ConfigError, RecordsUnavailable
from gateway.limits.quota_operations import Exceeded, free, reserve
from gateway.limits.quota_statements import Statement, Steps, read_usage
from gateway.records import quota_store
from gateway.records.quota_store import SqliteQuotaStore
from tests.support.quotas import PLACE, bound, expected_usage, open_counters, reservation, usage_of

QUOTA = bound(bytes=1000)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[SqliteQuotaStore]:
    store = SqliteQuotaStore(path)
    try:
        yield store
    finally:
        store.close()


def reserving(upload_id: str, size: int) -> partial[Steps[list[QuotaLeft] | Exceeded]]:
    return partial(reserve, PLACE, reservation(upload_id, f"/{upload_id}", size, QUOTA), [QUOTA])


def _upload(path: Path, process: int) -> None:
    async def upload(store: SqliteQuotaStore, number: int) -> None:
        upload_id = f"{process}-{number}"
        outcome = await store.run(reserving(upload_id, 100))
        if not isinstance(outcome, Exceeded) and number % 3:
            await store.run(partial(free, PLACE, upload_id))

    async def main(store: SqliteQuotaStore) -> None:
        await asyncio.gather(*(upload(store, number) for number in range(100)))

    with opened(path) as store:
        asyncio.run(main(store))


def test_processes_that_count_together_never_exceed_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "quotas.db"
    SqliteQuotaStore(path).prepare()
    spawning = multiprocessing.get_context("fork")
    processes = [spawning.Process(target=_upload, args=(path, number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    db = open_counters(path)
    assert usage_of(db) == expected_usage(db)
    assert 0 < usage_of(db)[QUOTA.key][0] <= 1000


async def test_an_operation_that_fails_is_told_and_spoils_no_other(tmp_path: Path) -> None:
    def broken() -> Steps[None]:
        yield Statement("INSERT INTO quota_facts VALUES ('half', 'done')")
        yield Statement("SELECT nonsense")

    with opened(tmp_path / "quotas.db") as store:
        outcomes = await asyncio.gather(
            store.run(broken), store.run(reserving("A", 5)), return_exceptions=True
        )
        assert isinstance(outcomes[0], RecordsUnavailable)
        assert await store.run(lambda: read_usage(QUOTA.key)) == (5, 1)
        assert (
            open_counters(tmp_path / "quotas.db").execute("SELECT * FROM quota_facts").fetchall() == []
        )


def test_a_torn_file_is_set_aside_and_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "quotas.db"
    SqliteQuotaStore(path).prepare()
    path.write_bytes(path.read_bytes()[:4096] + b"\x17" * 8192)
    SqliteQuotaStore(path).prepare()
    assert path.with_name("quotas.db.torn").exists()
    assert usage_of(open_counters(path)) == {}


def test_a_whole_file_of_an_earlier_boot_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "quotas.db"
    with monkeypatch.context() as patched:
        patched.setattr(quota_store, "_boot_id", lambda: "earlier")
        SqliteQuotaStore(path).prepare()
    with opened(path) as store:
        asyncio.run(store.run(reserving("A", 5)))
    SqliteQuotaStore(path).prepare()
    assert usage_of(open_counters(path)) == {QUOTA.key: (5, 1)}


@pytest.mark.parametrize("statement", ["CREATE TABLE mine (x)", "PRAGMA user_version = 99"])
def test_a_file_of_another_program_or_a_newer_gateway_is_left_alone(
    tmp_path: Path, statement: str
) -> None:
    path = tmp_path / "quotas.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(statement)
        db.commit()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="move it away"):
        SqliteQuotaStore(path).prepare()
    assert path.read_bytes() == before
