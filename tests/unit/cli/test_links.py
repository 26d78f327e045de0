"""`gateway links`: what it prints, and what it refuses."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest

from gateway.auth.links.store import LinkStore
from gateway.auth.tokens import token_digest
from gateway.cli import main


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return str(tmp_path / "data")


def links(directory: str, *words: str) -> int:
    return main(["links", *words, "--directory", directory])


def test_a_link_is_printed_once_and_listed_with_what_it_is_for(
    directory: str, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = ("--expires=30d", "--max-files=20", "--max-bytes=5G", "--public-url=https://files.example")
    assert links(directory, "create", "--drop", "/upload/in", *limits) == 0
    printed = capsys.readouterr().out
    assert re.fullmatch(r"https://files\.example/-/drop#ugl_[A-Za-z0-9_-]{43}\n", printed)
    secret = printed.strip().partition("#")[2]
    table = LinkStore(Path(directory) / ".gateway").read()
    assert [*table.digests] == [token_digest(secret)]
    assert links(directory, "list", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    said = ("kind", "folder", "state", "max_files", "max_bytes", "files", "bytes", "password")
    assert [row[name] for name in said] == ["drop", "/upload/in/", "active", 20, 5 << 30, 0, 0, False]
    assert links(directory, "list") == 0
    shown = capsys.readouterr().out
    assert secret not in shown
    assert re.search(rf"^{row['id']} +drop +active +0/20 +0 B/5\.4 GB ", shown, re.MULTILINE)
    assert links(directory, "revoke", row["id"]) == 0
    assert links(directory, "revoke", row["id"]) == 0
    assert capsys.readouterr().out == f"link {row['id']} revoked\nlink {row['id']} had been revoked\n"


def test_a_password_comes_from_standard_input_and_is_kept_as_a_hash(
    directory: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("correct horse\n"))
    assert links(directory, "create", "--share", "/upload/in/", "--password", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["password"] is True
    assert "qr" not in told
    (link,) = LinkStore(Path(directory) / ".gateway").read().links.values()
    assert link.password is not None
    assert link.password.startswith("$argon2id$")
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert links(directory, "create", "--share", "/upload/in/", "--password") == 2
    assert "a password has 1 to 1000 characters" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("create",), "needs --drop FOLDER or --share FOLDER"),
        (("create", "--drop", "in"), "such as /upload/in/"),
        (("create", "--drop", "/in/"), "no upload path of this gateway leads below /in/"),
        (("create", "--drop", "/upload/a/", "--share", "/upload/a/"), "not allowed with argument"),
        (("create", "--share", "/upload/a/", "--max-files", "1"), "a share link has none"),
        (("create", "--drop", "/upload/a/", "--expires", "0"), "expires at once"),
        (("create", "--drop", "/upload/a/", "--port", "0"), "add --public-url"),
        (("list", "--drop", "/upload/a/"), "links list has no --drop"),
        (("revoke",), "needs the id of a link"),
        (("list", "abcdefgh"), "accepts no id"),
        (("revoke", "abcdefgh"), "there is no link abcdefgh"),
    ],
)
def test_what_makes_no_sense_is_refused(
    directory: str, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], fault: str
) -> None:
    assert links(directory, *words) == 2
    assert fault in capsys.readouterr().err
