"""kill -9 at every named point of a removal, then a new start: the promise must hold.

Answered or not, a file is there without an event, or gone with its event.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.conftest import StartProcess
from tests.support.harness import (
    GatewayProcess,
    files_below,
    get,
    put,
    raw_connection,
    request_head,
    wait_settled,
    wait_until,
)
from tests.support.recorders import EventRecorder, recording_events
from tests.support.s3.dropping_proxy import ResponseDroppingProxy
from tests.support.s3.servers import SeaweedFS

pytestmark = pytest.mark.slow

GONE = ("after unlink", "after deletion sync", "before answer", "after answer")


async def delete(gateway: GatewayProcess, name: str = "x", *lines: str) -> int | None:
    """Return the status, None without an answer."""
    try:
        async with raw_connection(gateway) as connection:
            await connection.send(request_head("DELETE", f"/upload/{name}", *lines))
            return (await connection.answer()).status
    except (OSError, asyncio.IncompleteReadError):
        return None


async def events_of(gateway: GatewayProcess, recorder: EventRecorder) -> list[str]:
    await wait_settled(gateway)
    paths = []
    while not recorder.is_empty():
        paths.append((await recorder.next_event())[1]["path"])
    return paths


@pytest.mark.parametrize("durability", ["full", "none"])
@pytest.mark.parametrize(
    "point", ["after deletion recorded", "after unlink", "after deletion sync", "after answer"]
)
async def test_a_kill_leaves_the_file_or_its_event(
    gateway_process: StartProcess, tmp_path: Path, point: str, durability: str
) -> None:
    with recording_events() as recorder:
        (plugins,) = recorder.write_handler(tmp_path / "p", "APIGW.OnFileDeleted", "gone")
        flags = ("--deletes", "--plugins", plugins, "--durability", durability)
        with gateway_process(*flags) as gateway:
            await put(gateway, "/upload/x", b"x")
            await put(gateway, "/upload/other", b"other")
        dying = gateway_process(*flags, die_at=point)
        status = await delete(dying)
        assert dying.wait() == -9
        assert status in ({None} if point != "after answer" else {None, 204})
        gateway = gateway_process(*flags)
        events = await events_of(gateway, recorder)
        left = files_below(tmp_path / "data/upload")
        if point in GONE:
            assert (left, {*events}) == ({"other": b"other"}, {"/upload/x"})
        else:
            assert (left, events) == ({"other": b"other", "x": b"x"}, [])
            assert (await get(gateway, "/-/events")).json["deliveries"] == []
            assert await delete(gateway) == 204
            assert await events_of(gateway, recorder) == ["/upload/x"]


async def test_a_newer_file_of_the_name_is_no_sign_that_the_old_one_stayed(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    with recording_events() as recorder:
        (plugins,) = recorder.write_handler(tmp_path / "p", "APIGW.OnFileDeleted", "gone")
        flags = ("--deletes", "--plugins", plugins)
        with gateway_process(*flags) as gateway:
            await put(gateway, "/upload/x", b"old")
        dying = gateway_process(*flags, die_at="after unlink")
        assert await delete(dying) is None
        dying.wait()
        (tmp_path / "data/upload/x").write_bytes(b"put there by hand meanwhile")
        gateway = gateway_process(*flags)
        assert await events_of(gateway, recorder) == ["/upload/x"]
        assert files_below(tmp_path / "data/upload") == {"x": b"put there by hand meanwhile"}


async def test_a_folder_that_cannot_be_synced_gets_no_answer_and_its_event_waits_for_the_start(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    with recording_events() as recorder:
        (plugins,) = recorder.write_handler(tmp_path / "p", "APIGW.OnFileDeleted", "gone")
        flags = ("--deletes", "--plugins", plugins)
        with gateway_process(*flags) as gateway:
            await put(gateway, "/upload/x", b"x")
            await put(gateway, "/upload/y", b"y")
        with gateway_process(*flags, die_at="after unlink=eio") as gateway:
            assert await delete(gateway) is None
            assert await delete(gateway, "y") == 204
            assert (await recorder.next_event())[1]["path"] == "/upload/y"
            assert recorder.is_empty()
        gateway = gateway_process(*flags)
        # Killed before its run was settled, the event of y may come once more.
        assert {*await events_of(gateway, recorder)} - {"/upload/y"} == {"/upload/x"}


async def test_a_killed_process_of_three_settles_its_removal_when_it_is_restarted(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    with recording_events() as recorder:
        (plugins,) = recorder.write_handler(tmp_path / "p", "APIGW.OnFileDeleted", "gone")
        flags = ("--deletes", "--plugins", plugins, "--processes", "3")
        gateway = gateway_process(*flags, die_at="after unlink:2")
        statuses: dict[str, int | None] = {}
        for number in range(12):
            await put(gateway, f"/upload/{number}", b"x")
        for number in range(12):
            statuses[f"/upload/{number}"] = await delete(gateway, str(number))
        assert None in statuses.values()

        left = files_below(tmp_path / "data/upload")
        gone = {path for path in statuses if path.removeprefix("/upload/") not in left}
        assert {path for path, status in statuses.items() if status == 204} <= gone

        async def all_delivered() -> bool:
            try:
                events = (await get(gateway, "/-/events?state=done")).json
            except (OSError, asyncio.IncompleteReadError):
                return False  # the process that was asked is the one that died
            return {row["path"] for row in events.get("deliveries", ())} == gone

        await wait_until(all_delivered)


# -- a bucket


@pytest.mark.parametrize("point", ["after deletion recorded", "after unlink", "after deletion sync"])
async def test_a_kill_leaves_the_object_or_its_event(
    gateway_process: StartProcess,
    tmp_path: Path,
    s3: SeaweedFS,
    bucket: str,
    s3_storage: str,
    point: str,
) -> None:
    with recording_events() as recorder:
        (plugins,) = recorder.write_handler(tmp_path / "p", "APIGW.OnFileDeleted", "gone")
        flags = ("--deletes", "--downloads", "--plugins", plugins, "--storage", s3_storage)
        with gateway_process(*flags) as gateway:
            await put(gateway, "/upload/x", b"x")
        dying = gateway_process(*flags, die_at=point)
        assert await delete(dying) is None
        assert dying.wait() == -9
        gateway = gateway_process(*flags)
        if point in GONE:
            assert (await recorder.next_event())[1]["path"] == "/upload/x"
            assert (await get(gateway, "/upload/x")).status == 404
        else:
            assert (await get(gateway, "/upload/x")).body == b"x"
            assert recorder.is_empty()  # it is held: a late request might still remove the object


async def test_the_outcome_of_a_lost_answer_of_the_store_is_determined(
    gateway_process: StartProcess, tmp_path: Path, s3: SeaweedFS, s3_storage: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with recording_events() as recorder, ResponseDroppingProxy(s3.url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        (plugins,) = recorder.write_handler(tmp_path / "p", "APIGW.OnFileDeleted", "gone")
        flags = ("--deletes", "--plugins", plugins, "--storage", s3_storage)
        gateway = gateway_process(*flags)
        for name in ("x", "y"):
            assert (await put(gateway, f"/upload/{name}", b"x")).status == 201
        proxy.drop_responses(b"DELETE", count=1, key=b"upload/x")
        assert await delete(gateway) == 204
        assert (await recorder.next_event())[1]["path"] == "/upload/x"
        proxy.drop_responses(b"DELETE", count=1, key=b"upload/y", then=gateway.kill)
        assert await delete(gateway, "y") is None
        proxy.count = 0
        gateway_process(*flags)
        assert (await recorder.next_event())[1]["path"] == "/upload/y"
