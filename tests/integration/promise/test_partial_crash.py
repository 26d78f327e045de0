"""kill -9 at every named point of a partial upload's life: no offset that was told ever falls.

Then the upload goes on in a new process, to one file and one event.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.domain.model import new_id
from gateway.errors import Refusal
from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support import PROJECT
from tests.support.harness import files_below, leftovers, wait_settled
from tests.support.partial_process import TAG
from tests.support.partials import StorePartials
from tests.support.promise import RunRecorder, body_of

pytestmark = pytest.mark.slow

SIZE = 6_000_000
APPEND = ("mid append", "before partial cell", "after partial cell")
UNSTORED = ("before partial move", "after partial move", "after file sync", "before journal commit")
UNSTORED_WITH_ROW = ("after journal commit",)
STORED = ("after rename", "before directory sync", "after directory sync", "before partial end")


@pytest.fixture
def recorder(tmp_path: Path) -> RunRecorder:
    return RunRecorder(tmp_path)


@dataclass
class Told:
    """What a client was told before the process died."""

    upload_id: str | None = None
    offset: int = 0
    stored: bool = False
    lines: list[str] = field(default_factory=list)


async def killed_at(
    point: str, tmp_path: Path, recorder: RunRecorder, durability: str = "full", checked: str = "plain"
) -> Told:
    """Upload in a process until it kills itself at `point`."""
    arguments = (tmp_path / "data", recorder.plugins, durability, point, SIZE, checked)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.partial_process", *map(str, arguments),
        stdout=asyncio.subprocess.PIPE, cwd=PROJECT,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == -9
    told = Told(lines=output.decode().split())
    for line in told.lines:
        if line == "stored":
            told.stored = True
        elif line.isdigit():
            told.offset = int(line)
        else:
            told.upload_id = line
    return told


async def restarted(
    start_gateway: StartGateway, recorder: RunRecorder, durability: str = "full"
) -> StorePartials:
    return StorePartials(await start_gateway(plugins=[str(recorder.plugins)], durability=durability))


async def finish(partials: StorePartials, upload_id: str, offset: int) -> int:
    """Go on where the gateway says, and commit; return the offset that it told."""
    body = body_of(TAG, SIZE)
    opened = await partials.store.open(upload_id)
    kept = opened.offset
    assert kept >= offset
    await opened.begin(SIZE - kept)
    await opened.write(body[kept:])
    await opened.settle()
    assert (await opened.commit({})).bytes == SIZE
    return kept


async def assert_one_file_and_one_event(
    gateway: Gateway, partials: StorePartials, recorder: RunRecorder, tmp_path: Path
) -> None:
    await wait_settled(gateway)
    assert files_below(tmp_path / "data/upload") == {"x": body_of(TAG, SIZE)}
    assert recorder.tags() == [TAG]
    assert leftovers(tmp_path / "data") == []
    assert await partials.left() == []


@pytest.mark.parametrize("durability", ["full", "none"])
@pytest.mark.parametrize("point", [f"{name}:{turn}" for name in APPEND for turn in (1, 3)])
async def test_a_kill_in_an_append_loses_nothing_that_was_told(
    start_gateway: StartGateway, tmp_path: Path, recorder: RunRecorder, point: str, durability: str
) -> None:
    told = await killed_at(point, tmp_path, recorder, durability)
    assert told.upload_id is not None
    partials = await restarted(start_gateway, recorder, durability)
    assert (await partials.status(told.upload_id)).offset >= told.offset
    assert await partials.store.resolve(TAG) == told.upload_id
    assert files_below(tmp_path / "data/upload") == {}
    kept = await finish(partials, told.upload_id, told.offset)
    assert kept > told.offset  # what had been written counts too
    await assert_one_file_and_one_event(partials.gateway, partials, recorder, tmp_path)


@pytest.mark.parametrize("point", ["mid append:6", "before partial cell:3"])
async def test_a_kill_in_a_request_that_is_to_be_verified_drops_all_of_it(
    start_gateway: StartGateway, tmp_path: Path, recorder: RunRecorder, point: str
) -> None:
    told = await killed_at(point, tmp_path, recorder, checked="checked")
    assert told.upload_id is not None
    assert told.offset == SIZE // 2
    partials = await restarted(start_gateway, recorder)
    assert await finish(partials, told.upload_id, told.offset) == told.offset
    await assert_one_file_and_one_event(partials.gateway, partials, recorder, tmp_path)


@pytest.mark.parametrize("point", [*UNSTORED, *UNSTORED_WITH_ROW])
async def test_a_kill_in_the_commit_gives_the_whole_body_back(
    start_gateway: StartGateway, tmp_path: Path, recorder: RunRecorder, point: str
) -> None:
    told = await killed_at(point, tmp_path, recorder)
    assert told.upload_id is not None
    assert (told.offset, told.stored) == (SIZE, False)
    partials = await restarted(start_gateway, recorder)
    assert (await partials.status(told.upload_id)).is_whole
    assert files_below(tmp_path / "data/upload") == {}
    assert recorder.tags() == []
    assert await finish(partials, told.upload_id, SIZE) == SIZE
    await assert_one_file_and_one_event(partials.gateway, partials, recorder, tmp_path)


@pytest.mark.parametrize(
    ("point", "checked"), [*((point, "plain") for point in STORED), ("after link", "checked")]
)
async def test_a_kill_after_the_name_was_given_leaves_the_file_and_its_event(
    start_gateway: StartGateway, tmp_path: Path, recorder: RunRecorder, point: str, checked: str
) -> None:
    told = await killed_at(point, tmp_path, recorder, checked=checked)
    assert told.upload_id is not None
    partials = await restarted(start_gateway, recorder)
    assert await partials.store.status(told.upload_id) is None
    assert await partials.store.resolve(TAG) == told.upload_id
    with pytest.raises(Refusal):
        await partials.store.open(told.upload_id)
    await assert_one_file_and_one_event(partials.gateway, partials, recorder, tmp_path)


async def test_a_kill_before_anything_was_told_leaves_nothing(
    start_gateway: StartGateway, tmp_path: Path, recorder: RunRecorder
) -> None:
    told = await killed_at("before partial head", tmp_path, recorder)
    assert told.lines == []
    partials = await restarted(start_gateway, recorder)
    assert await partials.left() == []


async def test_a_kill_after_the_head_leaves_an_upload_that_expires(
    start_gateway: StartGateway, tmp_path: Path, recorder: RunRecorder
) -> None:
    told = await killed_at("after partial head", tmp_path, recorder)
    assert told.lines == []
    partials = await restarted(start_gateway, recorder)
    assert [status.offset async for status in partials.store.list()] == [0]


async def test_junk_in_the_folder_does_not_keep_a_gateway_from_starting(
    start_gateway: StartGateway, tmp_path: Path, recorder: RunRecorder
) -> None:
    told = await killed_at("before partial cell:3", tmp_path, recorder)
    assert told.upload_id is not None
    folder = tmp_path / "data/.gateway/partials"
    unreadable, locked = new_id(0), new_id(0)
    (folder / "notes.txt").write_text("mine")
    (folder / "identities/nowhere").symlink_to("/etc/passwd")
    (folder / f"{new_id(0)}.at").mkdir()
    (folder / f"{new_id(0)}").mkdir()
    (folder / f"{new_id(0)}.json").symlink_to("nowhere")
    for suffix in (".json", ".at", ""):
        (folder / f"{unreadable}{suffix}").write_bytes(os.urandom(100))
        (folder / f"{locked}{suffix}").write_bytes(b"")
    partials = await restarted(start_gateway, recorder)
    assert [status.head.upload.id async for status in partials.store.list()] == [told.upload_id]
    assert [status async for status in partials.store.remove_expired(0.0)] == []
    await finish(partials, told.upload_id, told.offset)
    assert (folder / "notes.txt").read_text() == "mine"
