"""`gateway keys`: what it prints, and what it refuses."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.auth.key_store import KeyStore
from gateway.auth.tokens import token_digest
from gateway.cli import main
from gateway.domain.units import parse_duration, unix_time


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return str(tmp_path / "data")


def keys(directory: str, *words: str) -> int:
    return main(["keys", *words, "--directory", directory])


def listed(directory: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert keys(directory, "list", "--json") == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_a_created_key_is_printed_once_and_listed_with_what_it_is_for(
    directory: str, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = ("--prefix=/upload/acme/", "--methods=put,GET", "--expires=30d", "--rate=10/m")
    assert keys(directory, "create", "ci", *limits, "--bytes-per-day", "50G") == 0
    printed = capsys.readouterr().out
    secret = re.search(r"ugk_[A-Za-z0-9_-]{43}", printed)
    assert secret
    store = KeyStore(Path(directory) / ".gateway")
    assert [found.digest for found in store.read().secrets] == [token_digest(secret[0])]
    (row,) = listed(directory, capsys)
    said = ("name", "state", "prefix", "methods", "rate", "bytes_per_day")
    assert {name: row[name] for name in said} == {
        "name": "ci", "state": "active", "prefix": "/upload/acme/", "methods": ["PUT", "GET"],
        "rate": "10/m", "bytes_per_day": 50 << 30,
    }  # fmt: skip
    assert unix_time(row["expires"]) - unix_time(row["created"]) == pytest.approx(parse_duration("30d"))
    assert keys(directory, "list") == 0
    table = capsys.readouterr().out
    assert secret[0] not in table
    assert re.search(r"^ci +active +/upload/acme/ +PUT,GET +10/m ", table, re.MULTILINE)


def test_a_rotated_key_is_printed_and_the_end_of_the_one_before_is_listed(
    directory: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert keys(directory, "create", "ci", "--json") == 0
    first = json.loads(capsys.readouterr().out)["key"]
    assert keys(directory, "rotate", "ci", "--overlap", "1h", "--json") == 0
    second = json.loads(capsys.readouterr().out)["key"]
    assert first != second
    (row,) = listed(directory, capsys)
    assert unix_time(row["overlap_until"]) - time.time() == pytest.approx(3600, abs=60)
    assert keys(directory, "revoke", "ci") == 0
    assert "key ci revoked" in capsys.readouterr().out
    (row,) = listed(directory, capsys)
    assert (row["state"], row["overlap_until"]) == ("revoked", None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("create",), "needs the name"),
        (("create", "two words"), "must be a name of letters"),
        (("create", "ci", "--prefix", "upload/"), "must begin with a slash"),
        (("create", "ci", "--methods", "PUT,FETCH"), "must be methods such as"),
        (("create", "ci", "--rate", "10"), "such as 10/m"),
        (("create", "ci", "--rate", "10/q"), "such as"),
        (("create", "ci", "--rate", "0/m"), "such as 10/m"),
        (("create", "ci", "--expires", "0"), "of no use"),
        (("create", "ci", "--overlap", "1d"), "no --overlap"),
        (("revoke", "ci", "--rate", "1/m"), "no --rate"),
        (("list", "ci"), "accepts no name"),
        (("rotate", "ci"), "no key ci"),
        (("revoke", "ci"), "no key ci"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    directory: str, words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert keys(directory, *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_no_state_folder_is_made_in_a_folder_that_is_no_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["keys", "create", "ci"]) == 2
    assert "--directory" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
