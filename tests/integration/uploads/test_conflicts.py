"""Many uploads to one name, and everything that can stand in a file's way: nothing leaves the tree."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import (
    RawConnection,
    RawResponse,
    files_below,
    leftovers,
    put,
    raw_connection,
    request_head,
)
from tests.support.recorders import write_handler

pytestmark = pytest.mark.both_paths

MANY = 50
REWRITE = "event['path'] = event['X-Path']"


def body(number: int) -> bytes:
    """Return a body that tells which one it is; every third is larger than what memory keeps."""
    return f"{number:04d}".encode() * (50_000 if number % 3 == 0 else 100)


async def crowd(gateway: Gateway, *lines: str) -> list[RawResponse]:
    """Upload MANY different bodies to one name at once."""
    return await asyncio.gather(
        *(put(gateway, "/upload/d/x.bin", body(number), *lines) for number in range(MANY))
    )


async def test_with_replace_the_last_one_stands_and_all_are_thanked(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    answers = await crowd(gateway)
    assert sorted(answer.status for answer in answers) == [200] * (MANY - 1) + [201]
    stored = files_below(tmp_path / "data/upload")
    assert list(stored) == ["d/x.bin"]
    assert stored["d/x.bin"] in map(body, range(MANY))
    assert leftovers(tmp_path / "data") == []


@pytest.mark.parametrize(
    ("settings", "line", "status"),
    [({"on_conflict": "reject"}, "X-A: b", 409), ({}, "If-None-Match: *", 412)],
)
async def test_where_nothing_may_be_replaced_exactly_one_wins(
    start_gateway: StartGateway, tmp_path: Path, settings: dict[str, str], line: str, status: int
) -> None:
    gateway = await start_gateway(**settings)
    answers = await crowd(gateway, line)
    assert sorted(answer.status for answer in answers) == [201] + [status] * (MANY - 1)
    (winner,) = [number for number, answer in enumerate(answers) if answer.status == 201]
    assert files_below(tmp_path / "data/upload") == {"d/x.bin": body(winner)}
    assert leftovers(tmp_path / "data") == []


async def test_with_rename_everybody_gets_a_file_and_is_told_its_name(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(on_conflict="rename")
    answers = await crowd(gateway)
    assert [answer.status for answer in answers] == [201] * MANY
    told = {answer.json["path"].removeprefix("/upload/"): body(n) for n, answer in enumerate(answers)}
    assert len(told) == MANY
    assert "d/x.bin" in told
    assert all(name.endswith(".bin") for name in told)
    assert files_below(tmp_path / "data/upload") == told
    assert leftovers(tmp_path / "data") == []


async def test_a_handler_chooses_what_happens_where_the_name_is_taken(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    script = "event['on_conflict'] = event['X-Conflict']"
    gateway = await start_gateway(plugins=write_handler(tmp_path / "plugins", script))
    wishes = ("replace", "reject", "rename", "replace")
    answers = [await put(gateway, "/upload/x", w.encode(), f"X-Conflict: {w}") for w in wishes]
    assert [answer.status for answer in answers] == [201, 409, 201, 200]
    assert files_below(tmp_path / "data/upload") == {"x": b"replace", "x-1": b"rename"}


# -- things in the way


def _folder(place: Path) -> None:
    place.mkdir()


def _link_to_a_file(place: Path) -> None:
    place.with_name("other").write_bytes(b"other")
    place.symlink_to("other")


def _dangling_link(place: Path) -> None:
    place.symlink_to("nowhere")


def _fifo(place: Path) -> None:
    os.mkfifo(place)


@pytest.mark.parametrize("policy", ["replace", "reject", "rename"])
@pytest.mark.parametrize("obstacle", [_folder, _link_to_a_file, _dangling_link, _fifo])
async def test_what_is_no_file_is_never_replaced(
    start_gateway: StartGateway, tmp_path: Path, obstacle: object, policy: str
) -> None:
    assert callable(obstacle)
    gateway = await start_gateway(on_conflict=policy)
    place = tmp_path / "data/upload/x"
    place.parent.mkdir()
    obstacle(place)
    before = place.lstat()
    answer = await put(gateway, "/upload/x", b"new")
    assert (answer.status, answer.json["error"]) == (409, "conflict")
    assert os.path.samestat(place.lstat(), before)
    assert b"new" not in files_below(tmp_path / "data/upload").values()
    assert leftovers(tmp_path / "data") == []


async def test_a_file_is_no_folder(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway()
    await put(gateway, "/upload/x", b"file")
    for target in ("/upload/x/y", "/upload/x/y/z"):
        answer = await put(gateway, target, b"new")
        assert (answer.status, answer.json["error"]) == (409, "conflict")
    assert files_below(tmp_path / "data/upload") == {"x": b"file"}


async def test_what_gets_in_the_way_while_the_body_comes_is_not_replaced(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    async with halfway(gateway, "/upload/x") as connection:
        (tmp_path / "data/upload/x").mkdir(parents=True)
        await connection.send(b"half")
        answer = await connection.answer()
    assert answer.status == 409
    assert (tmp_path / "data/upload/x").is_dir()
    assert leftovers(tmp_path / "data") == []


# -- links that lead out


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A folder outside DIRECTORY with a file in it."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "canary").write_bytes(b"sings")
    return folder


def unharmed(canary: Path) -> bool:
    return files_below(canary) == {"canary": b"sings"}


def halfway(gateway: Gateway, target: str, *lines: str) -> _Halfway:
    """Begin an upload of 8 bytes and leave it after the first 4, admitted."""
    return _Halfway(gateway, target, *lines)


class _Halfway:
    def __init__(self, gateway: Gateway, target: str, *lines: str) -> None:
        self._context = raw_connection(gateway)
        self._request = request_head("PUT", target, "Content-Length: 8", "Expect: 100-continue", *lines)

    async def __aenter__(self) -> RawConnection:
        connection = await self._context.__aenter__()
        await connection.send(self._request)
        assert await connection.line() == b"HTTP/1.1 100 Continue\r\n"
        await connection.send(b"half")
        return connection

    async def __aexit__(self, *exc: object) -> None:
        await self._context.__aexit__(None, None, None)


@pytest.mark.parametrize("target", ["/upload/link/canary", "/upload/link/new", "/upload/link/a/b"])
async def test_no_symbolic_link_is_followed(
    start_gateway: StartGateway, tmp_path: Path, canary: Path, target: str
) -> None:
    gateway = await start_gateway()
    (tmp_path / "data/upload").mkdir()
    (tmp_path / "data/upload/link").symlink_to(canary)
    answer = await put(gateway, target, b"new")
    assert (answer.status, answer.json["error"]) == (400, "bad_path")
    assert unharmed(canary)
    assert leftovers(tmp_path / "data") == []


async def test_a_link_on_a_path_that_a_handler_wrote_is_the_handlers_failure(
    start_gateway: StartGateway, tmp_path: Path, canary: Path
) -> None:
    gateway = await start_gateway(plugins=write_handler(tmp_path / "plugins", REWRITE))
    (tmp_path / "data/link").symlink_to(canary)
    answer = await put(gateway, "/upload/x", b"new", "X-Path: /link/canary")
    assert (answer.status, answer.json["error"]) == (503, "hook_failed")
    assert unharmed(canary)


@pytest.mark.parametrize("depth", ["/upload/a/x", "/upload/a/b/c/canary"])
async def test_a_folder_that_becomes_a_link_while_the_body_comes_leads_nowhere(
    start_gateway: StartGateway, tmp_path: Path, canary: Path, depth: str
) -> None:
    gateway = await start_gateway()
    folder = tmp_path / "data/upload/a"
    folder.mkdir(parents=True)
    async with halfway(gateway, depth) as connection:
        folder.rename(tmp_path / "data/upload/moved")
        folder.symlink_to(canary)
        await connection.send(b"half")
        answer = await connection.answer()
    assert (answer.status, answer.json["error"]) == (400, "bad_path")
    assert unharmed(canary)
    assert files_below(tmp_path / "data/upload") == {}
    assert leftovers(tmp_path / "data") == []


async def test_the_same_on_a_path_that_a_handler_wrote(
    start_gateway: StartGateway, tmp_path: Path, canary: Path
) -> None:
    gateway = await start_gateway(plugins=write_handler(tmp_path / "plugins", REWRITE))
    folder = tmp_path / "data/a"
    folder.mkdir()
    async with halfway(gateway, "/upload/x", "X-Path: a/canary") as connection:
        folder.rmdir()
        folder.symlink_to(canary)
        await connection.send(b"half")
        answer = await connection.answer()
    assert (answer.status, answer.json["error"]) == (503, "hook_failed")
    assert unharmed(canary)
    assert leftovers(tmp_path / "data") == []


# -- what belongs to the gateway

SPELLINGS = [
    "/upload/plugins/evil.yaml",
    "/upload/plugins/deeper/evil.yaml",
    "/upload/%70lugins/evil.yaml",
    "/upload/plugins",
    "/upload/conf/gateway.yaml",
    "/upload/other-name/evil.yaml",
    "/upload/hard-link.yaml",
]


@pytest.mark.parametrize("through_a_handler", [False, True])
async def test_plugins_and_settings_cannot_be_reached_under_any_name(
    start_gateway: StartGateway, tmp_path: Path, through_a_handler: bool
) -> None:
    upload = tmp_path / "data/upload"
    config = upload / "conf/gateway.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("max_bytes: 1000\n")
    folder = write_handler(upload / "plugins", REWRITE if through_a_handler else "pass")
    gateway = await start_gateway(plugins=folder, config=str(config))
    os.link(config, upload / "hard-link.yaml")
    before = files_below(upload)

    (upload / "plugins").rename(upload / "other-name")
    for target in SPELLINGS:
        name = target.replace("%70", "p")
        lines = [f"X-Path: {name}"] if through_a_handler else []
        answer = await put(gateway, "/upload/x" if through_a_handler else target, b"evil", *lines)
        assert answer.status == (503 if through_a_handler else 403), target
    (upload / "other-name").rename(upload / "plugins")
    assert files_below(upload) == before


@pytest.mark.parametrize(
    "path", ["/.gateway/x", ".gateway/journal", "/.gateway", "/.gateway/incoming/x"]
)
async def test_no_handler_can_lead_an_upload_into_the_state(
    start_gateway: StartGateway, tmp_path: Path, path: str
) -> None:
    gateway = await start_gateway(plugins=write_handler(tmp_path / "plugins", REWRITE))
    answer = await put(gateway, "/upload/x", b"evil", f"X-Path: {path}")
    assert (answer.status, answer.json["error"]) == (503, "hook_failed")
    assert b"evil" not in files_below(tmp_path / "data").values()


async def test_the_state_is_known_by_its_inode_too(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway()
    (tmp_path / "data/upload").mkdir()
    state, elsewhere = tmp_path / "data/.gateway", tmp_path / "data/upload/state"
    state.rename(elsewhere)
    answer = await put(gateway, "/upload/state/x", b"evil")
    elsewhere.rename(state)
    assert answer.status == 403
    assert not (state / "x").exists()
