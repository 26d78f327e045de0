"""The file of the sessions: bounded, fair, and read by what has changed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from gateway.auth.sessions import store as module
from gateway.auth.sessions.session import Session, SessionHolder
from gateway.auth.sessions.store import NO_SESSIONS, SESSIONS_FILE, SessionStore
from gateway.errors import ConfigError


def session(
    digest: str, name: str = "alice", *, created: float = 10.0, expires: float = 100.0
) -> Session:
    return Session(digest, SessionHolder("token", name, '{"a": 1}', "source"), created, expires)


@pytest.fixture
def store(tmp_path: Path) -> SessionStore:
    return SessionStore(tmp_path)


def digests(store: SessionStore) -> set[str]:
    return set(store.read().sessions)


def test_what_was_added_is_read_again_by_another_process(tmp_path: Path, store: SessionStore) -> None:
    assert store.read() is NO_SESSIONS
    store.remove("x")
    assert not (tmp_path / SESSIONS_FILE).exists()
    store.add(session("a"), None)
    assert SessionStore(tmp_path).read().sessions == {"a": session("a")}
    assert stat.S_IMODE((tmp_path / SESSIONS_FILE).stat().st_mode) == 0o600


def test_a_table_follows_what_is_added_removed_and_replaced(store: SessionStore) -> None:
    store.add(session("a"), None)
    table = store.read()
    store.add(session("b", "bob"), None)
    table = store.read(table)
    assert set(table.sessions) == {"a", "b"}
    store.remove("a")
    table = store.read(table)
    assert set(table.sessions) == {"b"}
    store.add(session("c"), "b")
    table = store.read(table)
    assert set(table.sessions) == {"c"} == digests(store)
    store.remove("c")
    assert store.read(table).sessions == {}


def test_a_file_that_is_removed_or_replaced_ends_all_its_sessions(
    tmp_path: Path, store: SessionStore
) -> None:
    store.add(session("a"), None)
    table = store.read()
    os.unlink(tmp_path / SESSIONS_FILE)
    assert store.read(table).sessions == {}
    store.add(session("b"), None)
    assert set(store.read(table).sessions) == {"b"}


def test_the_oldest_session_of_a_principal_with_too_many_ends(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_OF_PRINCIPAL", 3)
    store.add(session("bob", "bob"), None)
    for number in range(5):
        store.add(session(str(number)), None)
    assert digests(store) == {"bob", "2", "3", "4"}


def test_one_client_cannot_end_the_sessions_of_others(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_SESSIONS", 4)
    monkeypatch.setattr(module, "MAX_OF_PRINCIPAL", 3)
    store.add(session("bob", "bob"), None)
    store.add(session("carol", "carol"), None)
    for number in range(9):
        store.add(session(str(number)), None)
    assert digests(store) == {"bob", "carol", "7", "8"}
    store.add(session("dave", "dave"), None)
    assert digests(store) == {"bob", "carol", "dave", "8"}


def test_sessions_that_have_ended_make_room(store: SessionStore) -> None:
    store.add(session("old", expires=20), None)
    store.add(session("new", created=20), None)
    assert digests(store) == {"new"}


def test_a_sign_in_is_spent_once_as_long_as_it_counts(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.spend("state", until=20, now=10)
    assert not store.spend("state", until=20, now=11)
    assert store.spend("state", until=40, now=30)
    monkeypatch.setattr(module, "MAX_SPENT", 1)
    assert not store.spend("other", until=40, now=30)


def test_a_damaged_file_is_told_with_its_name(tmp_path: Path, store: SessionStore) -> None:
    (tmp_path / SESSIONS_FILE).write_bytes(b"no database" * 100)
    with pytest.raises(ConfigError, match=r"sessions\.db"):
        store.read()
