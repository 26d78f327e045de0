"""kill -9 at every named point of an upload's life, then a new start: the promise must hold."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartProcess
from tests.support.harness import (
    GatewayProcess,
    complete_lines,
    files_below,
    get,
    leftovers,
    put,
    raw_connection,
    request_head,
    wait_settled,
    write_plugin,
)

pytestmark = pytest.mark.slow

HANDLER = """
name: witness
event: APIGW.OnFileUploaded
retry: {attempts: 20, backoff: 0.05, max_backoff: 0.2}
script: |
  import hashlib
  from gateway.errors import Superseded

  async def witness(event, handle):
      try:
          async with files.open(event) as reader:
              digest = hashlib.sha256(await reader.read()).hexdigest()
      except Superseded:
          digest = None
      config = await get_service_config("witness")
      with open(config["log"], "a") as log:
          log.write(json.dumps({"tag": event["headers"]["X-Tag"], "sha256": digest}) + "\\n")
"""

NOTHING = ("after admit", "mid body", "after file sync", "before journal commit", "after journal commit")
EVERYTHING = ("after rename", "before directory sync", "after directory sync", "before answer")


def body_of(tag: str, size: int) -> bytes:
    block = hashlib.sha256(tag.encode()).digest()
    return (block * (size // len(block) + 1))[:size]


def plugins(tmp_path: Path) -> tuple[str, str]:
    folder = write_plugin(tmp_path / "plugins", HANDLER)
    write_plugin(folder, f"name: witness\nconfig:\n  log: {tmp_path / 'handled'}\n", "config.yaml")
    return "--plugins", str(folder)


def handled(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in complete_lines(tmp_path / "handled")]


async def attempt(gateway: GatewayProcess, name: str, tag: str, size: int) -> int | None:
    """Upload; return the status, None when the connection broke without an answer."""
    try:
        answer = await put(gateway, f"/upload/{name}", body_of(tag, size), f"X-Tag: {tag}")
    except (OSError, asyncio.IncompleteReadError):
        return None
    return answer.status


@pytest.mark.parametrize("size", [1000, 3_000_000, 12_000_000], ids=["buffered", "streamed", "socket"])
@pytest.mark.parametrize("point", [*NOTHING, *EVERYTHING, "after answer", "mid handler"])
async def test_a_kill_leaves_all_or_nothing(
    gateway_process: StartProcess, tmp_path: Path, point: str, size: int
) -> None:
    if point == "mid body" and size == 1000:
        size = 70_000  # a body that is handed over in memory has no middle
    flags = plugins(tmp_path)
    with gateway_process(*flags) as gateway:
        assert await attempt(gateway, "x", "old", 500) == 201
        await wait_settled(gateway)

    dying = gateway_process(*flags, die_at=point)
    status = await attempt(dying, "x", "new", size)
    assert dying.wait() == -9

    gateway = gateway_process(*flags)
    await wait_settled(gateway)
    stored = files_below(tmp_path / "data/upload")
    tags = [run["tag"] for run in handled(tmp_path)]
    assert leftovers(tmp_path / "data") == []
    if point in NOTHING:
        assert status is None
        assert stored == {"x": body_of("old", 500)}
        assert tags == ["old"]
    else:
        assert status is None if point in EVERYTHING else status in {None, 200}
        assert stored == {"x": body_of("new", size)}
        assert set(tags) == {"old", "new"}
    digests = {run["tag"]: run["sha256"] for run in handled(tmp_path)}
    assert digests.get("new") in {None, hashlib.sha256(body_of("new", size)).hexdigest()}


@pytest.mark.parametrize("policy", ["reject", "rename"])
@pytest.mark.parametrize("point", ["after journal commit", "after link", "after rename"])
async def test_a_kill_between_the_two_names_of_a_new_file_leaves_all_or_nothing(
    gateway_process: StartProcess, tmp_path: Path, policy: str, point: str
) -> None:
    flags = (*plugins(tmp_path), "--on-conflict", policy)
    dying = gateway_process(*flags, die_at=point)
    assert await attempt(dying, "x", "new", 1000) is None
    assert dying.wait() == -9
    gateway = gateway_process(*flags)
    await wait_settled(gateway)
    assert leftovers(tmp_path / "data") == []
    whole = {} if point == "after journal commit" else {"x": body_of("new", 1000)}
    assert files_below(tmp_path / "data/upload") == whole
    assert [run["tag"] for run in handled(tmp_path)] == ["new"] * len(whole)


async def test_recovery_does_not_overwrite_a_file_that_is_newer(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    flags = plugins(tmp_path)
    dying = gateway_process(*flags, die_at="after journal commit")
    assert await attempt(dying, "x", "unanswered", 1000) is None
    dying.wait()
    target = tmp_path / "data/upload/x"
    target.write_bytes(b"put there by hand meanwhile")
    gateway = gateway_process(*flags)
    await wait_settled(gateway)
    assert target.read_bytes() == b"put there by hand meanwhile"
    assert handled(tmp_path) == []
    assert (await get(gateway, "/-/events")).json["deliveries"] == []


async def test_a_folder_that_cannot_be_synced_gets_no_answer_and_keeps_its_promise(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    flags = plugins(tmp_path)
    gateway = gateway_process(*flags, die_at="before directory sync=eio")
    assert await attempt(gateway, "x", "new", 1000) is None
    await wait_settled(gateway)
    assert files_below(tmp_path / "data/upload") == {"x": body_of("new", 1000)}
    assert [run["tag"] for run in handled(tmp_path)] == ["new"]
    assert await attempt(gateway, "y", "next", 1000) == 201


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
    status = await attempt(gateway, "x", "deadly", 10)
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
    assert await attempt(first, "x", "t", 10) == 201


@pytest.mark.parametrize("size", [200_000, 12_000_000], ids=["streamed", "socket"])
async def test_a_body_on_its_way_is_finished_when_the_gateway_is_asked_to_stop(
    gateway_process: StartProcess, tmp_path: Path, size: int
) -> None:
    gateway = gateway_process(*plugins(tmp_path))
    body = body_of("late", size)
    async with raw_connection(gateway) as connection:
        lines = ("X-Tag: late", f"Content-Length: {len(body)}", "Expect: 100-continue")
        await connection.send(request_head("PUT", "/upload/late", *lines))
        assert (await connection.line()).startswith(b"HTTP/1.1 100")
        await connection.send(body[: size // 2])
        gateway.signal(15)
        while True:  # until the port is closed, the signal has not been acted on
            try:
                await get(gateway, "/-/health")
            except (OSError, asyncio.IncompleteReadError):
                break
        await connection.send(body[size // 2 :])
        answer = await connection.answer()
    assert answer.status == 201
    assert gateway.wait() == 0
    assert files_below(tmp_path / "data/upload") == {"late": body}
