"""Running `gateway` verbs inside a test: events of a stopped server, signed URLs."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.cli.check import check
from gateway.events.journal import Journal
from gateway.storage.local.state_dir import StateDirectory
from tests.support.records import claim_deliveries, publish_uploads, result_of, settle_run, upload_record
from tests.support.spawner import start_forked

SECONDS = 60.0
"""In which a verb ends."""

Ask = Callable[..., Awaitable[tuple[int, str, str]]]
Check = Callable[[str], tuple[int, str, str]]


def run_verb(directory: Path, *words: str) -> tuple[int, str, str]:
    """Run `gateway WORDS --directory DIRECTORY` as a process; return its code and what it printed."""
    with tempfile.TemporaryFile() as errors:
        process = start_forked(["never", *words, "--directory", str(directory)], errors.fileno())
        with process.stdout as output:
            printed = output.read().decode()
        code = process.wait(SECONDS)
        errors.seek(0)
        return code, printed, errors.read().decode()


def fill(journal: Journal) -> None:
    """Leave a delivery in each state."""
    for name, outcome, delay in (("done", "done", 0), ("dead", "dead", 0), ("delayed", "retry", 900.0)):
        publish_uploads(journal, name)
        error = "first line\nsecond line"
        settle_run(journal, claim_deliveries(journal)[0], outcome, error, delay)
    publish_uploads(journal, "running")
    claim_deliveries(journal)
    result_of(journal.outbox.record_uploads([upload_record("ready"), upload_record("ö", ("other",))]))


def stopped_journal(directory: Path) -> Journal:
    """Return an open journal as a server that has ended left it."""
    state = StateDirectory(directory / ".gateway")
    state.prepare()
    journal = Journal(state.journal, full=False)
    journal.open()
    return journal


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Run `gateway events ...` for tmp_path/data; return exit code, stdout and stderr."""

    async def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        arguments = ["events", "--directory", str(tmp_path / "data"), *words]
        code = await asyncio.to_thread(main, arguments)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def check_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """Run `gateway check` on a plugin; return exit code, stdout and stderr."""

    def check_text(text: str) -> tuple[int, str, str]:
        (tmp_path / "x.yaml").write_text(text)
        code = check([tmp_path])
        out, err = capsys.readouterr()
        return code, out.replace(f"{tmp_path}/", ""), err.replace(f"{tmp_path}/", "")

    return check_text


async def listed(ask: Ask, *words: str) -> list[dict[str, Any]]:
    code, out, _ = await ask("list", "--json", *words)
    assert code == 0
    rows: list[dict[str, Any]] = json.loads(out)
    return rows


def key_file(tmp_path: Path) -> str:
    file = tmp_path / "shared.key"
    file.write_bytes(b"k" * 40 + b"\n")
    file.chmod(0o600)
    return str(file)


def signed_url(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["sign", *words]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    return line
