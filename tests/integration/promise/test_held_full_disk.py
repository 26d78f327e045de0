"""A full disk while files wait for a decision: none is lost, none is visible undecided."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartProcess
from tests.support.harness import GatewayProcess, files_below, get, leftovers, wait_until, write_plugin
from tests.support.promise import body_of, upload
from tests.support.small_disk import fill, mounted_disk

pytestmark = pytest.mark.slow

_JUDGE = """\
name: judge
event: APIGW.OnFileReceived
hold: true
retry: {{attempts: 1000, backoff: 0.05, max_backoff: 0.2}}
script: |
  from pathlib import Path
  async def judge(event, handle):
      async with files.open(event) as reader:
          assert len(await reader.read()) == event["bytes"]
      while not Path({gate!r}).exists():
          await asyncio.sleep(0.01)
      if event["path"].endswith("refused"):
          await handle.terminate(code=422, output="not wanted")
"""
NAMES = [f"{number}-{verdict}" for number in range(4) for verdict in ("accepted", "refused")]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted_disk(tmp_path / "disk") as folder:
        yield folder


async def states(gateway: GatewayProcess) -> dict[str, str]:
    listed: list[dict[str, Any]] = (await get(gateway, "/-/uploads")).json["uploads"]
    states = {row["path"].rpartition("/")[2]: row["state"] for row in listed}
    return {name: state for name, state in states.items() if name in NAMES}


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "running"])
async def test_held_uploads_outlive_a_full_disk(
    gateway_process: StartProcess, tmp_path: Path, disk: Path, killed: bool
) -> None:
    gate, plugins = tmp_path / "gate", tmp_path / "plugins"
    plugins.mkdir()
    write_plugin(plugins, _JUDGE.format(gate=str(gate)), "judge.yaml")
    flags = ("--directory", str(disk), "--plugins", str(plugins), "--min-free-bytes", "0")
    gateway = gateway_process(*flags)
    assert {(await upload(gateway, name, size=100_000)).status for name in NAMES} == {202}
    held = sorted(os.listdir(disk / ".gateway/held"))
    filler = fill(disk, 0)
    assert (await upload(gateway, "late-accepted", size=100_000)).status == 507
    assert (sorted(os.listdir(disk / ".gateway/held")), leftovers(disk)) == (held, [])
    gate.touch()
    if killed:
        gateway.kill()
        gateway = gateway_process(*flags)
    visible = files_below(disk / "upload") if (disk / "upload").exists() else {}
    assert not [name for name in visible if name.endswith("refused")]
    filler.unlink()

    async def all_decided() -> bool:
        return {*(await states(gateway)).values()} <= {"stored", "rejected"}

    await wait_until(all_decided)
    accepted = {name: body_of(name, 100_000) for name in NAMES if name.endswith("accepted")}
    assert files_below(disk / "upload") == accepted
    decided = {name: "stored" if name in accepted else "rejected" for name in NAMES}
    assert await states(gateway) == decided
    assert (os.listdir(disk / ".gateway/held"), leftovers(disk)) == ([], [])
