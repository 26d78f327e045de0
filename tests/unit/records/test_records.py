"""Records: what every store promises, on the model in memory and on the embedded file.

PostgreSQL runs the same suite in `test_records_postgres.py`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import RecordsUnavailable
from gateway.records.collection import Collection, Records
from gateway.records.query import MAX_PAGE
from gateway.records.sqlite_store import SqliteStore
from gateway.records.store import MemoryStore

FACTORIES: dict[str, Callable[[Path], Records]] = {
    "memory": lambda _: Records(MemoryStore()),
    "embedded": lambda folder: Records(SqliteStore(folder / "records.db")),
}


@pytest.fixture(params=FACTORIES)
async def records(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Records]:
    made = FACTORIES[request.param](tmp_path)
    yield made
    await asyncio.to_thread(made.close)


@pytest.fixture
def photos(records: Records) -> Collection:
    return records("photos")


async def keys(collection: Collection, **asked: Any) -> list[str]:
    """The keys of all pages, in order."""
    found, cursor = [], None
    while True:
        page = await collection.query(cursor=cursor, **asked)
        found += [item["key"] for item in page.items]
        cursor = page.cursor
        if cursor is None:
            return found


# -- one item


async def test_an_item_comes_back_as_it_was_put_with_its_key(photos: Collection) -> None:
    item = {"title": "É ☃ 𝄞", "n": 1.0, "big": 2**63 - 1, "deep": {"a": [1, None, True, "x"]}, "e": ""}
    assert await photos.put("a/b", item)
    assert await photos.get("a/b") == {**item, "key": "a/b"}
    assert await photos.get("a") is None


async def test_a_put_replaces_and_a_delete_says_whether_there_was_one(photos: Collection) -> None:
    await photos.put("a", {"n": 1})
    await photos.put("a", {"m": 2})
    assert await photos.get("a") == {"m": 2, "key": "a"}
    assert await photos.delete("a")
    assert not await photos.delete("a")
    assert await photos.get("a") is None


async def test_collections_share_nothing(records: Records) -> None:
    await records("one").put("a", {"n": 1})
    assert await records("two").get("a") is None
    assert not await records("two").delete("a")
    assert await keys(records("two")) == []


async def test_only_one_of_many_puts_finds_the_key_new(photos: Collection) -> None:
    done = await asyncio.gather(*(photos.put("a", {"n": n}, only_new=True) for n in range(20)))
    assert done.count(True) == 1
    assert await photos.get("a") == {"n": done.index(True), "key": "a"}


async def test_of_many_that_replace_the_same_item_one_succeeds(photos: Collection) -> None:
    await photos.put("a", {"n": 0.1, "b": [1]})
    old = await photos.get("a")
    done = await asyncio.gather(*(photos.put("a", {"n": n}, replaces=old) for n in range(20)))
    assert done.count(True) == 1
    assert await photos.get("a") == {"n": done.index(True), "key": "a"}
    assert not await photos.put("b", {}, replaces={})


async def test_what_was_read_can_be_put_back(photos: Collection) -> None:
    await photos.put("a", {"n": 1})
    [item] = (await photos.query()).items
    await photos.put(item["key"], {**item, "n": 2})
    assert await photos.get("a") == {"n": 2, "key": "a"}


@pytest.mark.parametrize(
    ("key", "item", "words"),
    [
        ("", {}, "1 to 1024 bytes"),
        ("é" * 513, {}, "1 to 1024 bytes"),
        ("a\0", {}, "NUL"),
        ("\ud800", {}, "not valid Unicode"),
        (1, {}, "a key is a text"),
        ("a", [1], "an item is a mapping"),
        ("a", {"t": "x" * 262144}, "at most 262144 bytes"),
        ("a", {"t": "\0"}, "NUL"),
        ("a", {"t": ["\udfff"]}, "not valid Unicode"),
        ("a", {"\0": 1}, "NUL"),
        ("a", {1: 1}, "names in an item are texts"),
        ("a", {"n": float("nan")}, "JSON values only, not nan"),
        ("a", {"n": float("inf")}, "JSON values only, not inf"),
        ("a", {"n": 2**63}, "JSON values only"),
        ("a", {"n": b"x"}, "JSON values only, not bytes"),
        ("a", {"key": "b"}, "holds its key"),
    ],
)  # fmt: skip
async def test_what_cannot_be_kept_is_refused_in_words(
    photos: Collection, key: Any, item: Any, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        await photos.put(key, item)
    assert await keys(photos) == []


async def test_an_item_may_not_be_nested_without_end(photos: Collection) -> None:
    item: dict[str, Any] = {}
    for _ in range(64):
        item = {"a": item}
    await photos.put("a", item)
    with pytest.raises(ValueError, match="at most 64 levels"):
        await photos.put("a", {"a": item})


@pytest.mark.parametrize("name", ["", ".a", "a b", "a/b", "ä", "a" * 65, None, "a'--"])
def test_names_of_collections_are_plain(name: Any) -> None:
    with pytest.raises(ValueError, match="a collection is named by"):
        Records()(name)


async def test_the_gateways_own_collections_are_closed_to_scripts(records: Records) -> None:
    await records.own("uploads").put("a", {"n": 1})
    with pytest.raises(ValueError, match="the gateway's own"):
        records("gateway.uploads")
    assert await records.own("uploads").get("a") == {"n": 1, "key": "a"}


# -- pages


async def test_pages_follow_each_other_by_key(photos: Collection) -> None:
    names = ["a", "a/", "a/b", "a0", "b", "B", "é", "z", "\ue000", "\U00010000"]
    for name in names:
        await photos.put(name, {})
    ordered = sorted(names)
    assert await keys(photos, limit=3) == ordered
    assert await keys(photos, limit=3, order="desc") == ordered[::-1]
    assert await keys(photos, prefix="a/") == ["a/", "a/b"]


async def test_an_index_sorts_numbers_then_texts_and_leaves_out_the_rest(photos: Collection) -> None:
    values = [3, 2.5, -1, 10, 2**62, "10", "9", "", "Ä", "z", True, None, [1], {"a": 1}, "x" * 1001]
    for number, value in enumerate(values):
        await photos.put(f"k{number:02}", {"at": value})
    await photos.put("none", {})
    ordered = ["k02", "k01", "k00", "k03", "k04", "k07", "k05", "k06", "k09", "k08"]
    assert await keys(photos, index="at", limit=3) == ordered
    assert await keys(photos, index="at", limit=4, order="desc") == ordered[::-1]
    assert await keys(photos, index="at", since=2.5, until=10) == ["k01", "k00"]
    assert await keys(photos, index="at", since=3) == ["k00", "k03", "k04"]
    assert await keys(photos, index="at", until=3) == ["k02", "k01"]
    assert await keys(photos, index="at", since="") == ordered[5:]
    assert await keys(photos, index="at", until="9") == ["k07", "k05"]
    assert await keys(photos, index="at", equals="10") == ["k05"]
    assert await keys(photos, index="at", equals=10) == ["k03"]
    assert await keys(photos, index="at", equals=10, prefix="k1") == []


async def test_an_index_follows_what_is_put_and_deleted_later(photos: Collection) -> None:
    await photos.put("a", {"n": 1})
    assert await keys(photos, index="n") == ["a"]
    await photos.put("b", {"n": 0})
    await photos.put("a", {"n": -1})
    assert await keys(photos, index="n") == ["a", "b"]
    await photos.put("a", {"n": None})
    await photos.delete("b")
    assert await keys(photos, index="n") == []


async def test_paging_is_stable_while_items_come_and_go(photos: Collection) -> None:
    for number in range(0, 20, 2):
        await photos.put(f"{number:02}", {"n": number})
    page = await photos.query(index="n", limit=4)
    assert [item["n"] for item in page.items] == [0, 2, 4, 6]
    await photos.delete("06")
    await photos.delete("10")
    await photos.put("01", {"n": 1})
    await photos.put("09", {"n": 9})
    rest = await photos.query(index="n", cursor=page.cursor)
    assert [item["n"] for item in rest.items] == [8, 9, 12, 14, 16, 18]
    assert rest.cursor is None


async def test_a_page_is_full_when_its_items_are_large(photos: Collection) -> None:
    large = "x" * 260_000
    for number in range(40):
        await photos.put(f"{number:02}", {"t": large})
    page = await photos.query(limit=1000)
    assert MAX_PAGE <= sum(len(item["t"]) for item in page.items) + 20_000 < MAX_PAGE + 300_000
    assert len(await keys(photos, limit=1000)) == 40


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"limit": 0}, "limit=0"),
        ({"limit": 1001}, "from 1 to 1000"),
        ({"limit": True}, "limit=True"),
        ({"order": "up"}, "order='up'"),
        ({"index": "key"}, "sorted by key"),
        ({"index": "a'b"}, "top-level field"),
        ({"index": ""}, "top-level field"),
        ({"since": 1}, "name one"),
        ({"index": "n", "since": 1, "until": "2"}, "both numbers or both texts"),
        ({"index": "n", "equals": 1, "until": 2}, "equals stands alone"),
        ({"index": "n", "equals": [1]}, "equals="),
        ({"index": "n", "since": True}, "since="),
        ({"index": "n", "since": float("nan")}, "since="),
        ({"index": "n", "until": "x" * 1001}, "until="),
        ({"prefix": "\0"}, "prefix"),
        ({"prefix": "\ud800"}, "surrogates"),
        ({"cursor": ""}, "cursor"),
        ({"cursor": 5}, "cursor"),
        ({"cursor": "é"}, "cursor"),
        ({"cursor": "AAAA"}, "cursor"),
    ],
)  # fmt: skip
async def test_a_question_that_makes_no_sense_is_refused_in_words(
    photos: Collection, asked: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        await photos.query(**asked)


async def test_a_cursor_serves_its_own_question_only(photos: Collection) -> None:
    for number in range(4):
        await photos.put(f"a{number}", {"n": number})
    cursor = (await photos.query(prefix="a", limit=2)).cursor
    assert cursor
    assert len((await photos.query(prefix="a", limit=9, cursor=cursor)).items) == 2
    other: list[dict[str, Any]] = [{}, {"prefix": "a", "order": "desc"}, {"prefix": "a", "index": "n"}]
    for asked in other:
        with pytest.raises(ValueError, match="does not belong to this query"):
            await photos.query(cursor=cursor, **asked)
    for at, letter in enumerate(cursor):
        changed = cursor[:at] + ("B" if letter != "B" else "C") + cursor[at + 1 :]
        try:
            page = await photos.query(prefix="a", cursor=changed)
        except ValueError:
            continue
        # The last letter may hold bits that stand for nothing.
        assert at == len(cursor) - 1
        assert [item["key"] for item in page.items] == ["a2", "a3"]


# -- against the model

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4)
KEYS = st.text(st.sampled_from("ab/é\ud7ff\ue000\U0010ffff"), min_size=1, max_size=3)
NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-3, 3),
    st.floats(allow_nan=False, allow_infinity=False),
)
FIELDS = st.one_of(NUMBERS, TEXTS, st.sampled_from([None, True, [1], "x" * 1001, 0.1, -0.0]))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.fixed_dictionaries({}, optional={"n": FIELDS, "m": FIELDS})),
        st.tuples(st.just("delete"), KEYS, st.just({})),
    ),
    max_size=25,
)
BOUNDS = st.one_of(st.none(), NUMBERS, TEXTS)
QUESTIONS = st.fixed_dictionaries(
    {
        "prefix": st.one_of(st.just(""), KEYS),
        "index": st.sampled_from([None, "n", "m"]),
        "order": st.sampled_from(["asc", "desc"]),
        "limit": st.integers(1, 4),
        "equals": BOUNDS,
        "since": BOUNDS,
        "until": BOUNDS,
    }
)


def sensible(question: dict[str, Any]) -> dict[str, Any]:
    """A question of hypothesis without what excludes each other."""
    asked = dict(question)
    if asked["index"] is None:
        return {**asked, "equals": None, "since": None, "until": None}
    if asked["equals"] is not None:
        return {**asked, "since": None, "until": None}
    if isinstance(asked["since"], str) != isinstance(asked["until"], str):
        return {**asked, "until": None}
    return asked


async def compare(
    collection: Collection, steps: list[tuple[str, str, dict[str, Any]]], questions: list[dict[str, Any]]
) -> None:
    """Do the same to a collection and to the model, and ask both the same."""
    model = Records(MemoryStore())("model")
    for at, (verb, key, item) in enumerate(steps):
        if verb == "put":
            assert await collection.put(key, item) == await model.put(key, item)
        else:
            assert await collection.delete(key) == await model.delete(key)
        if at == len(steps) // 2:  # so that indexes are made before, between and behind
            await collection.query(index="n")
    for question in questions:
        asked, cursor = sensible(question), None
        while True:
            page = await collection.query(cursor=cursor, **asked)
            expected = await model.query(cursor=cursor, **asked)
            assert page.items == expected.items, asked
            assert (page.cursor is None) == (expected.cursor is None)
            cursor = page.cursor
            if cursor is None:
                break


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(STEPS, st.lists(QUESTIONS, max_size=6))
def test_the_embedded_file_answers_as_the_model_does(
    tmp_path: Path, steps: list[tuple[str, str, dict[str, Any]]], questions: list[dict[str, Any]]
) -> None:
    path = tmp_path / "records.db"
    store = SqliteStore(path)
    try:
        asyncio.run(compare(Records(store)("c"), steps, questions))
    finally:
        store.close()
        path.unlink(missing_ok=True)


# -- the embedded file


async def test_nothing_is_made_before_the_first_call(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "records.db")
    assert list(tmp_path.iterdir()) == []
    await Records(store)("a").put("a", {})
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    store.close()


async def test_several_loops_in_several_threads_share_a_store(tmp_path: Path) -> None:
    records = Records(SqliteStore(tmp_path / "records.db"))

    def work(name: str) -> None:
        async def puts() -> None:
            await asyncio.gather(*(records("a").put(f"{name}{n}", {"n": n}) for n in range(50)))

        asyncio.run(puts())

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert len(await keys(records("a"))) == 200
    await asyncio.to_thread(records.close)


async def test_a_caller_that_is_cancelled_harms_no_other(tmp_path: Path) -> None:
    records = Records(SqliteStore(tmp_path / "records.db"))
    tasks = [asyncio.create_task(records("a").put(f"{n:03}", {})) for n in range(100)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert set(await keys(records("a"))) >= {f"{n:03}" for n in range(1, 100, 2)}
    await asyncio.to_thread(records.close)


@pytest.mark.parametrize("content", [b"this is no database" * 100, None])
async def test_a_foreign_file_is_refused_and_stays_as_it_was(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "records.db"
    if content is None:
        with sqlite3.connect(path) as foreign:
            foreign.execute("CREATE TABLE theirs (a)")
        foreign.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    records = Records(SqliteStore(path))
    for _ in range(2):
        with pytest.raises(RecordsUnavailable, match=r"records\.db"):
            await records("a").put("a", {})
        with pytest.raises(RecordsUnavailable, match=r"records\.db"):
            await records("a").get("a")
    assert path.read_bytes() == before
    await asyncio.to_thread(records.close)


async def test_records_that_could_not_be_opened_are_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    records = Records(SqliteStore(folder / "records.db"))
    with pytest.raises(RecordsUnavailable):
        await records("a").put("a", {})
    folder.mkdir()
    assert await records("a").put("a", {})
    await asyncio.to_thread(records.close)


async def test_too_many_indexes_are_refused(tmp_path: Path) -> None:
    records = Records(SqliteStore(tmp_path / "records.db"))
    for number in range(16):
        await records("a").query(index=f"f{number}")
    with pytest.raises(ValueError, match="16 fields are indexed already"):
        await records("a").query(index="f16")
    await records("b").query(index="f16")
    await asyncio.to_thread(records.close)


async def test_it_never_keeps_a_wal(tmp_path: Path) -> None:
    records = Records(SqliteStore(tmp_path / "records.db"))
    await records("a").put("a", {})
    assert {path.name for path in tmp_path.iterdir()} <= {
        "records.db",
        "records.db-journal",
        "records.turns",
    }
    await asyncio.to_thread(records.close)
