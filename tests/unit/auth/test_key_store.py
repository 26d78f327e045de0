"""The file of the API keys: what is kept, what others see of it, and how it fails."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sqlite3
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.auth import key_store, key_watcher, table_watcher
from gateway.auth.api_keys import ApiKey, ApiKeys, KeyScope, new_api_key
from gateway.auth.key_store import KeyStore, KeyTable
from gateway.auth.key_watcher import KeyWatcher
from gateway.auth.tokens import token_digest
from gateway.domain.units import RequestRate
from gateway.errors import ConfigError
from gateway.limits import FixedWindowCounters
from tests.support.harness import wait_until


def key(name: str = "ci", expires: float | None = None) -> ApiKey:
    scope = KeyScope("/upload/acme/", ("PUT", "GET"))
    return ApiKey(name, scope, RequestRate(10, 60.0), 50, time.time(), expires)


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path)


def test_a_key_is_read_as_it_was_created_and_its_text_is_nowhere(store: KeyStore) -> None:
    assert store.read().keys == {}
    secret, created = new_api_key(), key(expires=time.time() + 60)
    store.create(created, token_digest(secret))
    table = store.read()
    assert table.keys == {"ci": created}
    assert [(s.digest, s.until) for s in table.secrets] == [(token_digest(secret), None)]
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert secret.encode() not in store.path.read_bytes()
    assert secret[4:].encode() not in store.path.read_bytes()


def test_an_unchanged_file_is_not_read_again_and_uses_change_nothing(store: KeyStore) -> None:
    store.create(key(), "a" * 64)
    table = store.read()
    assert store.read(table) is table
    store.note_uses({"ci": 7.0, "unknown": 8.0})
    assert store.read(table) is table
    assert store.read().keys["ci"].last_used == 7.0
    store.note_uses({"ci": 5.0})
    assert store.read().keys["ci"].last_used == 7.0
    store.revoke("ci")
    assert store.read(table) is not table


def test_while_a_key_is_rotated_both_secrets_count(store: KeyStore) -> None:
    store.create(key(), "a" * 64)
    before = time.time()
    store.rotate("ci", "b" * 64, 3600.0, None)
    store.rotate("ci", "c" * 64, 60.0, None)
    ends = {secret.digest[0]: secret.until for secret in store.read().secrets}
    assert ends["c"] is None
    for name in "ab":  # a later rotation ends the older ones no later than it says
        end = ends[name]
        assert end is not None
        assert before + 60 <= end <= time.time() + 60
    store.rotate("ci", "e" * 64, 3600.0, None)  # and never gives them more time
    assert {s.digest[0]: s.until for s in store.read().secrets}["a"] == ends["a"]
    store.rotate("ci", "d" * 64, 0.0, None)
    assert [secret.digest[0] for secret in store.read().secrets] == ["d"]


def test_secrets_that_count_are_bounded(store: KeyStore) -> None:
    store.create(key(), "a" * 64)
    for number in range(key_store.MAX_SECRETS - 1):
        store.rotate("ci", f"{number}" * 64, 60.0, None)
    with pytest.raises(ConfigError, match="--overlap 0"):
        store.rotate("ci", "b" * 64, 60.0, None)
    store.rotate("ci", "b" * 64, 0.0, None)


def test_an_expired_key_is_rotated_with_a_new_end_and_a_revoked_one_never(store: KeyStore) -> None:
    store.create(key(expires=time.time() - 1), "a" * 64)
    with pytest.raises(ConfigError, match="add --expires"):
        store.rotate("ci", "b" * 64, 0.0, None)
    later = time.time() + 60
    assert store.rotate("ci", "b" * 64, 0.0, later).expires == later
    assert store.revoke("ci")
    assert not store.revoke("ci")
    assert store.read().secrets == ()
    with pytest.raises(ConfigError, match="revoked: create another"):
        store.rotate("ci", "c" * 64, 0.0, later)
    with pytest.raises(ConfigError, match="choose another name"):
        store.create(key(), "d" * 64)


def test_a_name_that_is_unknown_is_told(store: KeyStore) -> None:
    with pytest.raises(ConfigError, match="no key ci"):
        store.revoke("ci")
    store.create(key("other"), "a" * 64)
    with pytest.raises(ConfigError, match="no key ci"):
        store.rotate("ci", "b" * 64, 0.0, None)


def test_a_full_file_forgets_the_key_that_ended_first(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_store, "MAX_KEYS", 3)
    for number in range(3):
        store.create(key(f"k{number}"), f"{number}" * 64)
    with pytest.raises(ConfigError, match="revoke some"):
        store.create(key("new"), "a" * 64)
    store.revoke("k1")
    store.revoke("k0")
    store.create(key("new"), "a" * 64)
    assert {*store.read().keys} == {"k0", "k2", "new"}


def test_nobody_but_the_user_of_the_server_makes_the_file(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = store.path.parent.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(ConfigError, match=f"belongs to user {owner}"):
        store.create(key(), "a" * 64)
    assert not store.path.exists()


def _create_many(state: Path, first: int) -> None:
    for number in range(first, first + 20):
        KeyStore(state).create(key(f"k{number}"), f"{number:064}")


def test_processes_that_write_at_once_lose_nothing(store: KeyStore, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_create_many, args=(tmp_path, first)) for first in (0, 100)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
        assert writer.exitcode == 0
    assert len(store.read().keys) == 40


def test_a_reader_makes_no_tables(store: KeyStore) -> None:
    store.path.touch()
    assert store.read().keys == {}
    assert store.path.read_bytes() == b""
    store.create(key(), "a" * 64)
    assert store.read().keys


def test_a_file_that_is_no_database_or_of_a_newer_version_is_named(store: KeyStore) -> None:
    store.path.write_bytes(b"no database, but long enough to be read as one" * 100)
    with pytest.raises(ConfigError, match=r"cannot be used.*") as refused:
        store.read()
    assert "keys.db" in str(refused.value)
    store.path.unlink()
    store.create(key(), "a" * 64)
    db = sqlite3.connect(store.path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ConfigError, match="newer version"):
        store.read()


async def test_a_running_process_sees_each_change_and_one_logs_it(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(key_watcher, "POLL_INTERVAL", 0.02)
    monkeypatch.setattr(table_watcher, "USES_INTERVAL", 0.02)
    caplog.set_level(logging.INFO, "gateway.keys")
    keys, secret, newer = ApiKeys(FixedWindowCounters()), new_api_key(), new_api_key()
    watcher = KeyWatcher(store, keys, reports=True)
    watcher.refresh()
    watcher.start()
    try:
        assert keys.find([secret]) is None
        store.create(key(), token_digest(secret))
        await wait_until(lambda: keys.find([secret]))
        await wait_until(lambda: store.read().keys["ci"].last_used)
        store.rotate("ci", token_digest(newer), 60.0, None)
        await wait_until(lambda: keys.find([newer]))
        assert keys.find(["ugk_other", secret]) is not None
        damaged = store.path.with_name("damaged")
        damaged.write_bytes(b"damaged" * 1000)
        damaged.replace(store.path)
        await wait_until(lambda: "cannot be used" in caplog.text)
        assert keys.find([newer]) is not None
        store.path.unlink()
        await wait_until(lambda: keys.find([newer]) is None)
        store.create(replace(key(), name="next"), token_digest(secret))
        await wait_until(lambda: keys.find([secret]))
        store.revoke("next")
        await wait_until(lambda: keys.find([secret]) is None)
    finally:
        watcher.close()
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert told == [
        "key ci: created", "key ci: rotated", "key ci: removed",
        "key next: created", "key next: revoked",
    ]  # fmt: skip
    assert secret not in caplog.text


async def test_a_defect_in_reading_ends_no_watch_a_key_can_be_revoked_still(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(key_watcher, "POLL_INTERVAL", 0.02)
    keys, secret = ApiKeys(FixedWindowCounters()), new_api_key()
    store.create(key(), token_digest(secret))
    watcher = KeyWatcher(store, keys, reports=False)
    watcher.refresh()
    read = KeyStore.read

    def broken(self: KeyStore, latest: KeyTable | None = None) -> KeyTable:
        monkeypatch.setattr(KeyStore, "read", read)
        raise RuntimeError("a defect")

    monkeypatch.setattr(KeyStore, "read", broken)
    watcher.start()
    try:
        await wait_until(lambda: "a defect" in caplog.text)
        store.revoke("ci")
        await wait_until(lambda: keys.find([secret]) is None)
    finally:
        watcher.close()
