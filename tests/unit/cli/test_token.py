"""`gateway token`: printed once, stored nowhere, and what it prints works as settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.auth.authenticator import Auth
from gateway.auth.tokens import token_digest
from gateway.cli import main
from gateway.settings import load
from tests.support.incoming import head_of


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


async def test_the_printed_lines_let_the_printed_token_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["token", "--name", "alice"]) == 0
    printed = capsys.readouterr().out
    found = re.search(r"^token \(shown only now\): (\S+)$", printed, re.MULTILINE)
    lines = re.search(r"^auth: token\ntokens:\n- .*$", printed, re.MULTILINE)
    assert found
    assert lines
    (tmp_path / "settings.yaml").write_text(lines[0] + "\n")
    settings = load({"config": "settings.yaml"}, {})
    guard = Auth(settings, settings.tokens)
    caller = await guard.authenticate(head_of({"X-Auth-Token": found[1]}))
    assert caller.principal == {"name": "alice", "kind": "token"}
    assert settings.auth == "token"


def test_beside_other_tokens_the_printed_line_is_an_item(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["token", "--name", "alice"]) == 0
    lines = re.search(r"^auth: token\ntokens:\n- .*$", capsys.readouterr().out, re.MULTILINE)
    assert lines
    (tmp_path / "settings.yaml").write_text(lines[0] + "\n")
    assert main(["token", "--name", "bob", "--config", "settings.yaml"]) == 0
    printed = capsys.readouterr().out
    item = re.search(r"^- .*$", printed, re.MULTILINE)
    assert item
    assert "auth:" not in printed
    (tmp_path / "settings.yaml").write_text(f"{lines[0]}\n{item[0]}\n")
    assert [token.name for token in load({"config": "settings.yaml"}, {}).tokens] == ["alice", "bob"]


def test_a_token_is_kept_nowhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["token"])
    assert list(tmp_path.iterdir()) == []
    assert "-T FILE http://127.0.0.1:8080/upload/FILE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "url"),
    [
        ("--file_upload_api_path /files/{filepath}", "http://127.0.0.1:8080/files/FILE"),
        ("--file_upload_api_path /t/{tenant_id}/{filename}", "http://127.0.0.1:8080/t/TENANT_ID/FILE"),
        ("--host :: --auth token --port 80", "http://[::1]:80/upload/FILE"),
        ("--public_url https://files.example/in/", "https://files.example/in/upload/FILE"),
    ],
)
def test_the_url_to_upload_to_follows_the_settings(
    flags: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["token", *flags.split()]) == 0
    assert capsys.readouterr().out.endswith(f" -T FILE {url}\n")


def test_a_name_that_cannot_stand_in_the_settings_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "--name", "two words"]) == 2
    assert "--name: 'two words' must be letters" in capsys.readouterr().err


def test_a_name_that_the_settings_know_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "--name", "alice", "--tokens", f"alice:{token_digest('x')}"]) == 2
    assert "choose another name" in capsys.readouterr().err


def test_settings_that_no_server_would_start_with_do_not_keep_a_token_back() -> None:
    assert main(["token", "--host", "0.0.0.0"]) == 0


def test_the_printed_command_uploads_to_the_path_that_is_configured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["token", "--file-upload-api-path", "/files/{team}/{filepath}"]) == 0
    assert "-T FILE http://127.0.0.1:8080/files/TEAM/FILE" in capsys.readouterr().out
