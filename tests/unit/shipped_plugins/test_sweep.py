"""plugins/sweep on real folders: what goes is old, regular, and below the folder."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from gateway.domain.model import SCHEDULE
from gateway.plugins import Plugins
from gateway.plugins.scripting.decision import Handle
from gateway.plugins.scripting.namespace import Services
from gateway.plugins.scripting.values import Event
from tests.support import PROJECT
from tests.support.harness import files_below, write_plugin

NOW = 1_790_000_000
DAY = 86400
Sweep = Callable[..., Awaitable[None]]


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Sweep]:
    """Run the shipped handler as at the tick `NOW`: `await sweep(folder=..., days=...)`."""
    folder = tmp_path / "plugins"
    loaded = Plugins([folder], Services())

    async def run(**config: object) -> None:
        write_plugin(folder, (PROJECT / "plugins/sweep/sweep.yaml").read_text(), "sweep.yaml")
        lines = "".join(f"  {key}: {value}\n" for key, value in config.items())
        write_plugin(folder, f"name: sweep\nconfig:\n{lines}", "config.yaml")
        [handler] = loaded.load().handlers[SCHEDULE]
        await handler.function(Event({"scheduled": NOW}), Handle())

    yield run
    loaded.close()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with old and new files, links out of it, and a gateway's state."""
    root = tmp_path / "files"
    for name in ("old", "a/b/old", ".gateway/old", "new", "a/new"):
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"1234")
        age = 10 if name.endswith("old") else 1
        os.utime(place, (NOW, NOW - age * DAY))
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "old").write_bytes(b"mine")
    os.utime(outside / "old", (NOW, NOW - 10 * DAY))
    (root / "link").symlink_to(outside)
    (root / "a/link").symlink_to(outside / "old")
    return root


async def test_old_files_go_and_all_else_stays(sweep: Sweep, files: Path) -> None:
    await sweep(folder=files, days=5, remove="true")
    assert set(files_below(files)) == {".gateway/old", "new", "a/new"}
    assert files_below(files.parent / "outside") == {"old": b"mine"}
    assert (files / "a/b").is_dir()
    assert (files / "a/link").is_symlink()


async def test_a_dry_run_tells_what_it_would_remove(
    sweep: Sweep, files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = files_below(files)
    with caplog.at_level("INFO"):
        await sweep(folder=files, days=5)
    assert files_below(files) == before
    assert f"sweep would remove {files}/a/b/old" in caplog.text
    assert f"sweep would remove 2 files, 8 bytes, older than 5 days below {files}" in caplog.text


async def test_a_folder_that_is_a_link_is_refused(sweep: Sweep, files: Path) -> None:
    with pytest.raises(ValueError, match="symbolic link"):
        await sweep(folder=files / "link", days=5, remove="true")
    assert files_below(files.parent / "outside") == {"old": b"mine"}


@pytest.mark.parametrize("days", ["0", "true", "'5'", "-1", ".nan"])
async def test_a_number_of_days_that_makes_no_sense_removes_nothing(
    sweep: Sweep, files: Path, days: str
) -> None:
    before = files_below(files)
    with pytest.raises(ValueError, match="`days` must be a number"):
        await sweep(folder=files, days=days, remove="true")
    assert files_below(files) == before
