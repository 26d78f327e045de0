"""kill -9 at every named point of an upload's life, then a new start: the promise must hold."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.conftest import StartProcess
from tests.support.harness import (
    files_below,
    get,
    leftovers,
    raw_connection,
    request_head,
    wait_port_closed,
    wait_settled,
    write_plugin,
)
from tests.support.promise import READ, RunRecorder, UploadAttempt, body_of, judge, upload

pytestmark = [pytest.mark.slow, pytest.mark.both_paths]

NOTHING = ("after admit", "mid body", "after file sync", "before journal commit", "after journal commit")
EVERYTHING = ("after rename", "before directory sync", "after directory sync", "before answer")
"""Failpoints of a local upload by what a kill there leaves."""


@pytest.fixture
def recorder(tmp_path: Path) -> RunRecorder:
    return RunRecorder(tmp_path)


@pytest.mark.parametrize("size", [1000, 3_000_000, 12_000_000], ids=["buffered", "streamed", "socket"])
@pytest.mark.parametrize("point", [*NOTHING, *EVERYTHING, "after answer", "mid handler"])
async def test_a_kill_leaves_all_or_nothing(
    gateway_process: StartProcess, tmp_path: Path, recorder: RunRecorder, point: str, size: int
) -> None:
    if point == "mid body" and size == 1000:
        size = 70_000  # a body that is handed over in memory has no middle
    with gateway_process(*recorder.flags) as gateway:
        old = await upload(gateway, "x", "old", 500)
        assert old.status == 201
        await wait_settled(gateway)

    dying = gateway_process(*recorder.flags, die_at=point)
    new = await upload(dying, "x", "new", size)
    assert dying.wait() == -9

    await wait_settled(gateway_process(*recorder.flags))
    stored = files_below(tmp_path / "data/upload")
    assert leftovers(tmp_path / "data") == []
    assert judge([old, new], stored, recorder.digests()).broken() == {}
    if point in NOTHING:
        assert new.status is None
        assert stored == {"x": old.body}
        assert recorder.tags() == ["old"]
    else:
        assert new.status is None if point in EVERYTHING else new.status in {None, 200}
        assert stored == {"x": new.body}
        assert set(recorder.tags()) == {"old", "new"}


@pytest.mark.parametrize("work", [READ, "pass"], ids=["awaits", "never awaits"])
@pytest.mark.parametrize(
    "point", ["before hand-over", "after hand-over", "before settlement", "after settlement"]
)
async def test_a_kill_around_a_run_from_memory_loses_no_event(
    gateway_process: StartProcess, tmp_path: Path, point: str, work: str
) -> None:
    recorder = RunRecorder(tmp_path, work=work)
    dying = gateway_process(*recorder.flags, die_at=f"{point}:3")
    attempts: list[UploadAttempt] = []
    while dying.process.poll() is None:  # the first ones may be claimed
        attempts.append(await upload(dying, f"n{len(attempts)}"))
    assert dying.wait() == -9

    gateway = gateway_process(*recorder.flags)
    await wait_settled(gateway)
    stored = files_below(tmp_path / "data/upload")
    assert judge(attempts, stored, recorder.digests()).broken() == {}
    listed = (await get(gateway, "/-/events")).json["deliveries"]
    assert {delivery["state"] for delivery in listed} == {"done"}
    assert {delivery["attempt"] for delivery in listed} <= {1, 2}


@pytest.mark.parametrize("policy", ["reject", "rename"])
@pytest.mark.parametrize("point", ["after journal commit", "after link", "after rename"])
async def test_a_kill_between_the_two_names_of_a_new_file_leaves_all_or_nothing(
    gateway_process: StartProcess, tmp_path: Path, recorder: RunRecorder, policy: str, point: str
) -> None:
    flags = (*recorder.flags, "--on-conflict", policy)
    dying = gateway_process(*flags, die_at=point)
    assert (await upload(dying, "x", "new")).status is None
    assert dying.wait() == -9
    await wait_settled(gateway_process(*flags))
    assert leftovers(tmp_path / "data") == []
    whole = {} if point == "after journal commit" else {"x": body_of("new", 1000)}
    assert files_below(tmp_path / "data/upload") == whole
    assert recorder.tags() == ["new"] * len(whole)


async def test_recovery_does_not_overwrite_a_file_that_is_newer(
    gateway_process: StartProcess, tmp_path: Path, recorder: RunRecorder
) -> None:
    dying = gateway_process(*recorder.flags, die_at="after journal commit")
    assert (await upload(dying, "x", "unanswered")).status is None
    dying.wait()
    target = tmp_path / "data/upload/x"
    target.write_bytes(b"put there by hand meanwhile")
    gateway = gateway_process(*recorder.flags)
    await wait_settled(gateway)
    assert target.read_bytes() == b"put there by hand meanwhile"
    assert recorder.runs() == []
    assert (await get(gateway, "/-/events")).json["deliveries"] == []


async def test_a_folder_that_cannot_be_synced_gets_no_answer_and_keeps_its_promise(
    gateway_process: StartProcess, tmp_path: Path, recorder: RunRecorder
) -> None:
    gateway = gateway_process(*recorder.flags, die_at="before directory sync=eio")
    assert (await upload(gateway, "x", "new")).status is None
    await wait_settled(gateway)
    assert files_below(tmp_path / "data/upload") == {"x": body_of("new", 1000)}
    assert recorder.tags() == ["new"]
    assert (await upload(gateway, "y", "next")).status == 201


async def test_an_attempt_that_dies_with_the_process_counts_and_ends_dead(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    folder = write_plugin(
        tmp_path / "poison",
        "name: poison\nevent: APIGW.OnFileUploaded\nretry: {attempts: 2, backoff: 0.01}\n"
        "script: |\n"
        "  import os\n"
        "  async def poison(event, handle):\n"
        "      os.kill(os.getpid(), 9)\n",
    )
    gateway = gateway_process("--plugins", str(folder))
    status = (await upload(gateway, "x", "deadly", 10)).status
    assert status in {None, 201}
    gateway.wait()
    with contextlib.suppress(AssertionError):  # it may die again before it can say its address
        gateway_process("--plugins", str(folder)).wait()
    survivor = gateway_process("--plugins", str(folder))
    await wait_settled(survivor)
    (delivery,) = (await get(survivor, "/-/events?state=dead")).json["deliveries"]
    assert (delivery["handler"], delivery["state"]) == ("poison", "dead")
    assert files_below(tmp_path / "data/upload") == {"x": body_of("deadly", 10)}


async def test_a_second_gateway_on_the_same_directory_is_refused(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    first = gateway_process()
    with pytest.raises(AssertionError, match=r"another gateway \(process \d+\) serves this directory"):
        gateway_process()
    assert (await upload(first, "x", "t", 10)).status == 201


async def test_an_answered_upload_whose_private_file_cannot_be_removed_survives_a_kill(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    allowed = tmp_path / "allowed"
    work = f"import os\n      if not os.path.exists({str(allowed)!r}): raise RuntimeError('not yet')"
    recorder = RunRecorder(tmp_path, work=work)
    flags = (*recorder.flags, "--on-conflict", "reject")
    gateway = gateway_process(*flags, die_at="unlink=eio")
    assert (await upload(gateway, "x", "stays")).status == 201
    assert len(leftovers(tmp_path / "data")) == 1
    (tmp_path / "data/upload/x").unlink()
    gateway.kill()

    allowed.touch()
    await wait_settled(gateway_process(*flags))
    assert recorder.tags() == ["stays"]
    assert leftovers(tmp_path / "data") == []


@pytest.mark.parametrize("size", [200_000, 12_000_000], ids=["streamed", "socket"])
async def test_a_body_on_its_way_is_finished_when_the_gateway_is_asked_to_stop(
    gateway_process: StartProcess, tmp_path: Path, recorder: RunRecorder, size: int
) -> None:
    gateway = gateway_process(*recorder.flags)
    body = body_of("late", size)
    async with raw_connection(gateway) as connection:
        lines = ("X-Tag: late", f"Content-Length: {len(body)}", "Expect: 100-continue")
        await connection.send(request_head("PUT", "/upload/late", *lines))
        assert (await connection.line()).startswith(b"HTTP/1.1 100")
        await connection.send(body[: size // 2])
        gateway.signal(15)
        await wait_port_closed(gateway)  # until then the signal has not been acted on
        await connection.send(body[size // 2 :])
        answer = await connection.answer()
    assert answer.status == 201
    assert gateway.wait() == 0
    assert files_below(tmp_path / "data/upload") == {"late": body}
