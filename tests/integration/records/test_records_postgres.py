"""Records in PostgreSQL: the suite of all stores, several gateways, a server that goes and comes."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from gateway.cli.doctor import deployment
from gateway.errors import RecordsUnavailable
from gateway.records import postgres_queries as statements
from gateway.records import postgres_store as postgres
from gateway.records.collection import Collection, Records
from gateway.records.postgres_store import PostgresStore, shown
from gateway.records.query import make_query
from gateway.settings import Settings
from tests.conftest import StartGateway
from tests.support.harness import get, raw_connection, request_head, write_plugin
from tests.support.postgres import PASSWORD, Server, server
from tests.unit.records import test_records as suite
from tests.unit.records.test_settings import KEEPER

pytestmark = pytest.mark.slow

_numbers = itertools.count()


@pytest.fixture(scope="module")
def database() -> Iterator[Server]:
    with server() as running:
        yield running


@pytest.fixture(scope="module")
def store(database: Server) -> Iterator[PostgresStore]:
    """A store for all tests of this module: each uses a collection of its own."""
    made = PostgresStore(database.url)
    yield made
    made.close()


class _Fresh(Records):
    """Collections whose names no other test has."""

    def __init__(self, store: PostgresStore) -> None:
        super().__init__(store)
        self._number = next(_numbers)

    def __call__(self, name: str) -> Collection:
        return super().__call__(f"t{self._number}.{name}" if name.isalnum() else name)


@pytest.fixture
def records(store: PostgresStore) -> Records:
    return _Fresh(store)


@pytest.fixture
def photos(records: Records) -> Collection:
    return records("photos")


# -- the suite of all stores, once more

SUITE = [
    test
    for name, test in vars(suite).items()
    if name.startswith("test_") and {"photos", "records"} & set(test.__annotations__)
]
for _test in SUITE:
    globals()[_test.__name__] = _test


def test_the_suite_is_not_empty() -> None:
    assert len(SUITE) >= 12


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(suite.STEPS, st.lists(suite.QUESTIONS, max_size=6))
def test_postgresql_answers_as_the_model_does(
    store: PostgresStore, steps: list[tuple[str, str, dict[str, Any]]], questions: list[dict[str, Any]]
) -> None:
    async def run() -> None:
        collection = Records(store)("model")
        while (page := await collection.query()).items:
            for item in page.items:
                await collection.delete(item["key"])
        await suite.compare(collection, steps, questions)

    asyncio.run(run())


# -- the table


@pytest.fixture
async def beside(database: Server) -> AsyncIterator[Any]:
    """A connection of the test's own."""
    connection = await asyncpg.connect(database.url)
    yield connection
    await connection.close()


@pytest.mark.parametrize("asked", [{"since": 3, "until": 9}, {"equals": "x"}, {}])
async def test_a_question_about_an_index_is_answered_from_it(
    store: PostgresStore, photos: Collection, beside: Any, asked: dict[str, Any]
) -> None:
    await photos.put("a", {"n": 5})
    await photos.query(index="n")
    query = make_query(
        "", "n", asked.get("equals"), asked.get("since"), asked.get("until"), "asc", 9, None
    )
    name = repr(photos).split("'")[1]
    await beside.execute("SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off")
    for kind in statements._kinds(query):
        statement, arguments = statements.page(name, query, kind, 10, 1000)
        [plan] = await beside.fetchrow(f"EXPLAIN (FORMAT JSON) {statement}", *arguments)
        used = [name for name in statements.names(name, "n") if name in plan]
        assert len(used) == 1, plan
        assert "Seq Scan" not in plan


async def test_several_gateways_make_one_table_and_one_index_at_once(
    database: Server, beside: Any
) -> None:
    await beside.execute("CREATE DATABASE several")
    stores = [PostgresStore(database.url_of("several")) for _ in range(6)]
    await asyncio.gather(*(Records(one)("a").put(str(at), {"n": at}) for at, one in enumerate(stores)))
    pages = await asyncio.gather(*(Records(one)("a").query(index="n") for one in stores))
    assert {len(page.items) for page in pages} == {6}
    for one in stores:
        await asyncio.to_thread(one.close)


async def test_whoever_may_make_no_tables_uses_those_there_are(
    database: Server, store: PostgresStore, beside: Any
) -> None:
    await Records(store)("grant").put("a", {"n": 1})
    await beside.execute("CREATE ROLE plain LOGIN PASSWORD 'plain'")
    await beside.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    await beside.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON gateway_records TO plain")
    own = PostgresStore(f"postgresql://plain:plain@127.0.0.1:{database.port}/postgres")
    assert await Records(own)("grant").get("a") == {"n": 1, "key": "a"}
    await asyncio.to_thread(own.close)


async def test_a_database_that_may_lose_commits_is_told_not_to(database: Server, beside: Any) -> None:
    await beside.execute("CREATE DATABASE hasty")
    await beside.execute("ALTER DATABASE hasty SET synchronous_commit = off")
    hasty = PostgresStore(database.url_of("hasty"))
    assert await hasty._query(lambda db: db.fetchval("SHOW synchronous_commit")) == "on"
    assert await hasty._query(lambda db: db.fetchval("SHOW synchronous_commit")) == "on"
    await asyncio.to_thread(hasty.close)


async def test_a_database_of_another_encoding_is_refused(database: Server, beside: Any) -> None:
    await beside.execute(
        "CREATE DATABASE latin ENCODING LATIN1 LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE template0"
    )
    latin = PostgresStore(database.url_of("latin"))
    with pytest.raises(RecordsUnavailable, match="encoding UTF8"):
        await Records(latin)("a").get("a")
    await asyncio.to_thread(latin.close)


async def test_too_many_indexes_are_refused(photos: Collection) -> None:
    for number in range(16):
        await photos.query(index=f"f{number}")
    with pytest.raises(ValueError, match="16 fields are indexed already"):
        await photos.query(index="f16")


# -- loops, crowds, servers that go and come


async def test_many_loops_share_a_few_connections(
    database: Server, store: PostgresStore, photos: Collection, beside: Any
) -> None:
    def work(name: str) -> None:
        async def puts() -> None:
            await asyncio.gather(*(photos.put(f"{name}{n}", {}) for n in range(100)))

        asyncio.run(puts())

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert len(await suite.keys(photos, limit=1000)) == 400
    ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'upload-gateway'"
    assert await beside.fetchval(ours) <= postgres.MAX_CONNECTIONS


async def test_a_caller_that_is_cancelled_harms_no_other(photos: Collection) -> None:
    tasks = [asyncio.create_task(photos.put(f"{n:03}", {})) for n in range(60)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert set(await suite.keys(photos)) >= {f"{n:03}" for n in range(1, 60, 2)}


async def test_a_server_that_was_away_is_used_again(photos: Collection, database: Server) -> None:
    await photos.put("a", {"n": 1})
    await asyncio.to_thread(database.stop)
    try:
        for _ in range(3):
            with pytest.raises(RecordsUnavailable) as away:
                await photos.get("a")
            assert f"127.0.0.1:{database.port}/postgres" in str(away.value)
    finally:
        await asyncio.to_thread(database.start)
    assert await photos.get("a") == {"n": 1, "key": "a"}


async def test_a_server_that_hangs_is_not_waited_for_without_end(
    database: Server, photos: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await photos.put("a", {"n": 1})
    monkeypatch.setattr(postgres, "CALL_TIMEOUT", 0.5)
    database.freeze(on=True)
    try:
        asked = (photos.get("a") for _ in range(20))
        answers = await asyncio.gather(*asked, return_exceptions=True)
    finally:
        database.freeze(on=False)
    assert {type(answer) for answer in answers} == {RecordsUnavailable}
    monkeypatch.undo()
    assert await photos.get("a") == {"n": 1, "key": "a"}


async def test_no_text_shows_the_password(database: Server, caplog: pytest.LogCaptureFixture) -> None:
    said = []
    secret = urlsplit(database.url).password or ""
    for url in (
        database.url.replace(secret, "another-secret"),
        database.url.replace(str(database.port), "1"),
        database.url + "?sslmode=no-such-mode",
        database.url_of("no_such_database"),
    ):
        wrong = PostgresStore(url)
        with pytest.raises(RecordsUnavailable) as away:
            await Records(wrong)("a").get("a")
        said.append(f"{away.value!r} {away.value.__cause__!r} {wrong.shown}")
        await asyncio.to_thread(wrong.close)
    text = json.dumps(said) + caplog.text
    assert not [one for one in (PASSWORD, secret, "another-secret") if one in text]
    assert "InvalidPasswordError" in said[0]
    assert "no_such_database" in said[3]


def test_what_is_shown_of_a_url() -> None:
    assert shown("postgresql://u:p%40@[::1]:5432/db?sslmode=require") == "[::1]:5432/db"


# -- gateways


async def test_gateways_with_directories_of_their_own_share_the_records(
    database: Server,
    start_gateway: StartGateway,
    tmp_path: Path,
    beside: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await beside.execute("CREATE DATABASE shared")
    given = {"auth": "none", "plugins": [str(write_plugin(tmp_path / "p", KEEPER))]}
    one, other = [
        await start_gateway(**given, records=database.url_of("shared"), directory=str(tmp_path / name))
        for name in ("one", "other")
    ]
    async with raw_connection(one) as connection:
        await connection.send(request_head("PUT", "/kept/a", "Content-Length: 1") + b"7")
        assert (await connection.answer()).json == {"done": True}
    assert (await get(other, "/kept/a")).json == {"n": 7, "key": "a"}
    await asyncio.to_thread(database.stop)
    away = await get(other, "/kept/a")
    await asyncio.to_thread(database.start)
    assert (away.status, away.json["error"]) == (503, "records_unavailable")
    assert (await get(other, "/kept/a")).json == {"n": 7, "key": "a"}
    assert PASSWORD not in str([vars(record) for record in caplog.records])
    assert not list(tmp_path.rglob("records.db"))


def test_doctor_reaches_the_database(database: Server) -> None:
    [found] = deployment.records(Settings(records=SecretStr(database.url)))
    assert found.level == "ok"
    assert f"at 127.0.0.1:{database.port}/postgres" in str(found)
