"""What a start leaves behind that fails before its port listens."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.server import process
from gateway.settings import Settings
from gateway.storage.local.state_dir import FileLock


def failing_start(directory: Path) -> Path:
    """Start where another program has the port; return the state folder."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(directory=directory, port=taken.getsockname()[1])
        with pytest.raises(ConfigError, match="in use"):
            process.open_shared_resources(settings)
    return settings.state


def test_a_first_start_that_fails_leaves_nothing(tmp_path: Path) -> None:
    assert not failing_start(tmp_path / "data").exists()


def test_a_start_that_fails_leaves_what_another_one_has_accepted_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire = FileLock.acquire

    def acquire_late(lock: FileLock, timeout: float = 0.0) -> None:
        (tmp_path / "data/.gateway/journal-0.db").write_text("another start served and was killed")
        acquire(lock, timeout)

    monkeypatch.setattr(FileLock, "acquire", acquire_late)
    assert (failing_start(tmp_path / "data") / "journal-0.db").exists()
