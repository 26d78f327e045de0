"""kill -9 at every named point of a held upload: never visible undecided, never lost, decided once.

The handler decides otherwise when it runs again. So what is published, or not, tells which of its runs
has decided: the first one, unless the kill came before its decision was in the journal.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartProcess
from tests.support.harness import (
    GatewayProcess,
    files_below,
    get,
    leftovers,
    wait_settled,
    wait_until,
    write_plugin,
)
from tests.support.promise import RunRecorder, UploadAttempt, body_of, upload
from tests.support.tus import create, kept, patch, tus

pytestmark = [pytest.mark.slow]

NOTHING = ("mid body", "before held row")
UNANSWERED = ("after held row", "after held move")
UNDECIDED = ("mid handler", "before held decision", "within held decision")
DECIDED = (
    "after held decision",
    "before held publish",
    "after held publish move",
    "before journal commit",
    "after journal commit",
)
PUBLISHED = (
    "after rename",
    "before directory sync",
    "after directory sync",
    "before answer",
    "after held publish",
)
REJECTED = ("after held decision", "before held removal", "after held removal")
"""Failpoints of a held upload by what a kill there leaves."""

_JUDGE = """\
name: judge
event: APIGW.OnFileReceived
hold: true
retry: {attempts: 50, backoff: 0.05, max_backoff: 0.2}
script: |
  async def judge(event, handle):
      async with files.open(event) as reader:
          await reader.read()
      if (event["attempt"] == 1) != event["path"].endswith("accepted"):
          await handle.terminate(code=422, output="not wanted")
"""


@pytest.fixture
def recorder(tmp_path: Path) -> RunRecorder:
    recorder = RunRecorder(tmp_path)
    write_plugin(recorder.plugins, _JUDGE, "judge.yaml")
    return recorder


def held_bodies(directory: Path) -> list[str]:
    return [path.name for path in (directory / ".gateway/held").iterdir()]


async def settled(gateway: GatewayProcess, directory: Path) -> list[dict[str, Any]]:
    """Wait until everything is decided, carried out and delivered; return the uploads."""

    async def uploads() -> list[dict[str, Any]] | None:
        listed = list((await get(gateway, "/-/uploads")).json["uploads"])
        return None if {row["state"] for row in listed} - {"stored", "rejected"} else listed

    async def is_settled() -> bool:
        return not held_bodies(directory) and await uploads() is not None

    await wait_until(is_settled)
    await wait_settled(gateway)
    return await uploads() or []


async def killed(
    gateway_process: StartProcess, recorder: RunRecorder, point: str, attempt: tuple[str, int]
) -> UploadAttempt:
    """Upload to a gateway that dies at `point`."""
    dying = gateway_process(*recorder.flags, die_at=point)
    sent = await upload(dying, attempt[0], size=attempt[1])
    assert dying.wait() == -9
    return sent


@pytest.mark.parametrize("size", [1000, 3_000_000], ids=["small", "large"])
@pytest.mark.parametrize("point", NOTHING)
async def test_a_kill_before_the_journal_leaves_nothing(
    gateway_process: StartProcess, tmp_path: Path, recorder: RunRecorder, point: str, size: int
) -> None:
    size = max(size, 70_000) if point == "mid body" else size
    sent = await killed(gateway_process, recorder, point, ("accepted", size))
    gateway = gateway_process(*recorder.flags)
    assert (sent.status, await settled(gateway, tmp_path / "data")) == (None, [])
    assert (leftovers(tmp_path / "data"), files_below(tmp_path / "data/upload")) == ([], {})


@pytest.mark.parametrize("point", [*UNANSWERED, *UNDECIDED, *DECIDED, *PUBLISHED])
async def test_an_accepted_file_is_published_once(
    gateway_process: StartProcess, tmp_path: Path, recorder: RunRecorder, point: str
) -> None:
    sent = await killed(gateway_process, recorder, point, ("accepted", 3000))
    whole = {"accepted": sent.body}
    assert sent.status in ({None} if point in UNANSWERED else {None, 202})
    assert files_below(tmp_path / "data/upload") == (whole if point in PUBLISHED else {})

    gateway = gateway_process(*recorder.flags)
    (told,) = await settled(gateway, tmp_path / "data")
    assert leftovers(tmp_path / "data") == []
    if point in UNDECIDED:  # the second run refuses
        assert (told["state"], files_below(tmp_path / "data/upload")) == ("rejected", {})
        assert recorder.runs() == []
    else:
        assert (told["state"], files_below(tmp_path / "data/upload")) == ("stored", whole)
        assert set(recorder.tags()) == {"accepted"}


@pytest.mark.parametrize("point", [*UNDECIDED, *REJECTED])
async def test_a_refused_file_leaves_only_its_story(
    gateway_process: StartProcess, tmp_path: Path, recorder: RunRecorder, point: str
) -> None:
    sent = await killed(gateway_process, recorder, point, ("refused", 3000))
    assert sent.status in {None, 202}  # the decision may come before the response
    assert files_below(tmp_path / "data/upload") == {}

    gateway = gateway_process(*recorder.flags)
    (told,) = await settled(gateway, tmp_path / "data")
    assert leftovers(tmp_path / "data") == []
    if point in UNDECIDED:  # the second run accepts
        assert told["state"] == "stored"
        assert files_below(tmp_path / "data/upload") == {"refused": sent.body}
    else:
        assert (told["state"], files_below(tmp_path / "data/upload")) == ("rejected", {})
        assert recorder.runs() == []


_GATED = """\
name: judge
event: APIGW.OnFileReceived
hold: true
retry: {{attempts: 50, backoff: 0.05, max_backoff: 0.2}}
script: |
  from pathlib import Path
  async def judge(event, handle):
      while not Path({gate!r}).exists():
          await asyncio.sleep(0.01)
      if event["path"].endswith("refused"):
          await handle.terminate(code=422, output="not wanted")
"""


async def test_held_uploads_of_slots_that_are_gone_are_decided_by_another(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    recorder, gate = RunRecorder(tmp_path), tmp_path / "gate"
    write_plugin(recorder.plugins, _GATED.format(gate=str(gate)), "judge.yaml")
    names = [f"{number}-{verdict}" for number in range(6) for verdict in ("accepted", "refused")]
    with gateway_process(*recorder.flags, "--processes", "3") as gateway:
        sent = [await upload(gateway, name) for name in names]
        assert {attempt.status for attempt in sent} == {202}
        assert files_below(tmp_path / "data/upload") == {}

    gate.touch()
    last = gateway_process(*recorder.flags)
    told = await settled(last, tmp_path / "data")
    accepted = {attempt.name: attempt.body for attempt in sent if attempt.name.endswith("accepted")}
    assert files_below(tmp_path / "data/upload") == accepted
    assert set(recorder.tags()) == set(accepted)
    assert sorted(row["state"] for row in told) == ["rejected"] * 6 + ["stored"] * 6


PARTIAL = ("before partial move", "after partial move", "before held row")
HELD = ("after held row", "after held move", "before partial end")
"""Failpoints of a partial upload that becomes a held one, by what a kill there leaves."""


@pytest.mark.parametrize("point", [*PARTIAL, *HELD])
async def test_a_partial_upload_is_whole_and_partial_or_held(
    gateway_process: StartProcess, tmp_path: Path, recorder: RunRecorder, point: str
) -> None:
    data, body = tmp_path / "data", body_of("partial", 3000)
    dying = gateway_process(*recorder.flags, die_at=point)
    url = await create(dying, "/upload/accepted", length=3000)
    with pytest.raises((OSError, asyncio.IncompleteReadError)):
        await patch(dying, url, 0, body)
    assert dying.wait() == -9

    gateway = gateway_process(*recorder.flags)
    if point in PARTIAL:
        assert (held_bodies(data), files_below(data / "upload")) == ([], {})
        assert (await tus(gateway, "HEAD", url)).status in {200, 204}
    (told,) = await settled(gateway, data)
    # Before its end as a partial upload a first run may have begun: the second one refuses.
    is_stored = told["state"] == "stored" or point != "before partial end"
    assert files_below(data / "upload") == ({"accepted": body} if is_stored else {})
    assert recorder.paths() == ({"/upload/accepted"} if is_stored else set())
    assert (leftovers(data), kept(data)) == ([], {})
