"""`gateway top`: what it shows of a real server, what its keys do, and a server that goes away."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from gateway.cli.top.app import GatewayTop, Pane
from gateway.settings import load
from tests.conftest import StartProcess
from tests.support import PROJECT
from tests.support.harness import (
    GatewayProcess,
    handlers_done,
    put,
    raw_connection,
    request_head,
    wait_until,
)
from tests.support.recorders import write_handler
from tests.support.terminal import COLOUR, terminal

pytestmark = pytest.mark.slow

UNREADABLE = """
import os
if not os.path.exists({good!r}):
    raise RuntimeError("[bold]no luck[/bold]\\nwith the second line")
"""


@asynccontextmanager
async def screen(directory: Path, columns: int = 80, rows: int = 24) -> AsyncIterator[Pilot[None]]:
    app = GatewayTop(load({"directory": str(directory)}, {}, listening=False))
    async with app.run_test(size=(columns, rows)) as pilot:
        yield pilot


def shown(pilot: Pilot[None], selector: str) -> str:
    """The text of a part of the screen; none before it is there."""
    return "".join(str(part.content) for part in pilot.app.screen.query(selector).results(Static))


async def details(pilot: Pilot[None]) -> str:
    """The text of the details, when they are there."""
    await wait_until(lambda: shown(pilot, "#lines"))
    return shown(pilot, "#lines")


def lines(pilot: Pilot[None], pane: str) -> list[str]:
    """The rows of a pane, their cells separated by blanks."""
    table = pilot.app.screen_stack[0].query_one(f"#{pane}", Pane).table
    cells = (table.get_row_at(row) for row in range(table.row_count))
    return [" ".join(" ".join(str(cell) for cell in row).split()) for row in cells]


def start(gateway_process: StartProcess, tmp_path: Path, *flags: str) -> tuple[GatewayProcess, Path]:
    """A server whose handler fails until a file is there."""
    good = tmp_path / "good"
    body = UNREADABLE.format(good=str(good))
    retry = "retry: {attempts: 1}\n"
    folder = tmp_path / "plugins"
    write_handler(folder, body, name="thumbnails", event="APIGW.OnFileUploaded", more=retry)
    return gateway_process("--plugins", str(folder), *flags), good


async def test_an_upload_is_shown_on_its_way_and_among_the_latest(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    server = gateway_process()
    async with screen(server.directory) as pilot:
        await wait_until(lambda: server.url in shown(pilot, "#head"))
        empty = [str(pane.query_one(".empty", Static).content) for pane in pilot.app.query(Pane)]
        assert empty == [
            "no upload is on its way",
            "nothing waits for a handler",
            "nothing was uploaded yet",
        ]
        async with raw_connection(server) as connection:
            body = b"x" * 500_000
            await connection.send(
                request_head("PUT", "/upload/[b]film", "Content-Length: 1000000") + body
            )
            await wait_until(lambda: any("50%" in line for line in lines(pilot, "active")))
            (line,) = lines(pilot, "active")
            assert line.endswith("- /upload/[b]film")
            assert "1 on their way" in shown(pilot, "#figures")
            await pilot.press("p")
            assert shown(pilot, "#head").startswith("PAUSED")
            await connection.send(body)
            assert (await connection.answer()).status == 201
            assert lines(pilot, "latest") == []
            await pilot.press("p")
            await wait_until(lambda: lines(pilot, "active") == [] and lines(pilot, "latest"))
        assert lines(pilot, "latest")[0].endswith("stored 1.0 MB - /upload/[b]film")
        await pilot.press("tab", "tab", "enter")
        text = await details(pilot)
        assert "/upload/[b]film" in text
        assert "1000000" in text


async def test_dead_deliveries_are_explained_retried_and_dropped(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    server, good = start(gateway_process, tmp_path)
    for number in range(3):
        upload_id = (await put(server, f"/upload/{number}")).json["upload_id"]
        await handlers_done(server, upload_id, state="dead")
    async with screen(server.directory, 150, 40) as pilot:
        await wait_until(lambda: len(lines(pilot, "backlog")) == 4)
        assert lines(pilot, "backlog")[0].startswith("thumbnails dead 3 ")
        assert lines(pilot, "backlog")[1].endswith("/upload/0 RuntimeError: [bold]no luck[/bold]")
        await pilot.press("r")  # no dead delivery is selected
        await pilot.press("tab", "down", "enter")
        assert "with the second line" in await details(pilot)
        good.touch()
        await pilot.press("escape", "r")
        await answer(pilot, "Retry this delivery of thumbnails?", "y")
        await wait_until(lambda: len(lines(pilot, "backlog")) == 3)
        await pilot.press("ctrl+home", "d")
        await answer(pilot, "Drop all dead deliveries of thumbnails? The handler will not run.", "n")
        assert len(lines(pilot, "backlog")) == 3
        await pilot.press("d")
        await answer(pilot, "Drop all dead deliveries of thumbnails? The handler will not run.", "y")
        await wait_until(lambda: lines(pilot, "backlog") == [])


async def answer(pilot: Pilot[None], question: str, key: str) -> None:
    await wait_until(lambda: shown(pilot, "#question"))
    assert shown(pilot, "#question").startswith(f"{question}\n")
    await pilot.press(key)
    await wait_until(lambda: len(pilot.app.screen_stack) == 1)


async def test_a_server_that_is_killed_is_shown_away_until_it_is_back(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    server = gateway_process("--processes", "2")
    assert (await put(server, "/upload/a")).status == 201
    async with screen(server.directory) as pilot:
        await wait_until(lambda: lines(pilot, "latest"))
        assert "2 processes" in shown(pilot, "#figures")
        server.kill()
        await wait_until(lambda: shown(pilot, "#head").startswith("NO ANSWER: no server answers"))
        assert lines(pilot, "latest")[0].endswith("/upload/a")  # what was shown is kept
        await pilot.press("tab", "tab", "enter")
        await pilot.pause()
        assert len(pilot.app.screen_stack) == 1
        again = gateway_process()
        await wait_until(lambda: again.url in shown(pilot, "#head"))


async def test_a_screen_of_80_columns_and_24_rows_shows_every_part(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    server, _ = start(gateway_process, tmp_path, "--min-free-bytes", "1000000T")
    async with screen(server.directory) as pilot:
        await wait_until(lambda: "uploads are refused" in shown(pilot, "#attention"))
        for part in (
            *pilot.app.query(Pane),
            pilot.app.query_one("#attention"),
            *pilot.app.query("Footer"),
        ):
            assert part.region.height >= 1
            assert pilot.app.screen.region.contains_region(part.region)
        await pilot.press("question_mark")
        assert "retry the dead deliveries" in await details(pilot)
        await pilot.press("escape")
        await wait_until(lambda: len(pilot.app.screen_stack) == 1)


def test_a_terminal_without_colours_gets_none_and_q_ends(gateway_process: StartProcess) -> None:
    server = gateway_process()
    flags = ("top", "--directory", str(server.directory))
    with terminal(*flags, environ={"NO_COLOR": "1"}) as without:
        assert server.url in without.until(server.url)
        without.press("q")
        assert without.end() == 0
        assert not COLOUR.search(without.text)
    with terminal(*flags) as coloured:
        assert COLOUR.search(coloured.until(server.url))
        coloured.press("q")
        assert coloured.end() == 0


def test_without_a_terminal_or_a_gateway_it_says_what_to_do(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gateway", "top", "--directory", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "`gateway top` needs a terminal; for programs there is `gateway status --json`" in done.stderr
    with terminal("top", "--directory", str(tmp_path)) as started:
        assert started.end() == 2
        assert f"no gateway has run for {tmp_path}" in started.text.replace("\r\n", " ")
    assert list(tmp_path.iterdir()) == []
