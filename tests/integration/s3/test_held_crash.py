"""kill -9 at every named point of an upload into a bucket that handlers judge before it is visible.

Never visible undecided, never lost, decided once. The holding handler decides otherwise when it runs
again: so what is published, or not, tells which of its runs has decided.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartProcess
from tests.support.harness import GatewayProcess, get, wait_settled, wait_until, write_plugin
from tests.support.promise import RunRecorder, body_of, upload
from tests.support.resumable import PART_TYPE, request
from tests.support.s3.dropping_proxy import ResponseDroppingProxy
from tests.support.s3.servers import SeaweedFS

pytestmark = pytest.mark.slow

SMALL, LARGE = 1000, 20_000_000

_JUDGE = """\
name: judge
event: APIGW.OnFileReceived
{how}
script: |
  async def judge(event, handle):
      async with files.open(event) as reader:
          await reader.read()
      if event["path"].endswith("refused") or event.get("attempt", 1) > 1:
          await handle.terminate(code=422, output="not wanted")
"""
HOLDS = "hold: true\nretry: {attempts: 50, backoff: 0.05, max_backoff: 0.2}"

NOTHING = ("mid body", "before staged", "after staged", "before held row")
UNANSWERED = ("after held row",)
UNDECIDED = ("mid handler", "before held decision", "within held decision")
DECIDED = (
    "after held decision",
    "before held publish",
    "before journal commit",
    "after journal commit",
    "before complete",
)
PUBLISHED = ("after complete", "before answer", "after held publish")
REJECTED = ("after held decision", "before held removal", "after held removal")
"""Failpoints of a held upload by what a kill there leaves."""

WAITING = ("before staged", "after staged", "after decision", "before journal commit", "before complete")
"""Failpoints of an upload whose client waits for the decision, before it is visible."""


class Bucket:
    """What is in the bucket of a test."""

    def __init__(self, s3: SeaweedFS, name: str) -> None:
        self._s3 = s3
        self._name = name

    async def _keys(self, prefix: str) -> list[str]:
        async with self._s3.client() as client:
            page = await client.list_objects_v2(Bucket=self._name, Prefix=prefix)
        return [entry["Key"].removeprefix(prefix) for entry in page.get("Contents", ())]

    async def visible(self) -> dict[str, bytes]:
        """Return the files, by name."""
        found = {}
        async with self._s3.client() as client:
            for name in await self._keys("a prefix/upload/"):
                answer = await client.get_object(Bucket=self._name, Key=f"a prefix/upload/{name}")
                found[name] = await answer["Body"].read()
        return found

    async def private(self) -> list[str]:
        """Return what is left of uploads that have no name."""
        async with self._s3.client() as client:
            multiparts = await client.list_multipart_uploads(Bucket=self._name)
        keys = await self._keys("a prefix/.gateway/")
        return [*(key for key in keys if key != "probe"), *multiparts.get("Uploads", ())]

    async def is_clean(self) -> bool:
        """Tell whether nothing private is left."""
        return await self.private() == []


@pytest.fixture
def in_bucket(s3: SeaweedFS, bucket: str) -> Bucket:
    return Bucket(s3, bucket)


@pytest.fixture
def recorder(tmp_path: Path) -> RunRecorder:
    return RunRecorder(tmp_path)


@pytest.fixture
def flags(recorder: RunRecorder, s3_storage: str) -> list[str]:
    return [*recorder.flags, "--storage", s3_storage]


def judge(recorder: RunRecorder, how: str = HOLDS) -> None:
    """Let a handler judge what is received."""
    write_plugin(recorder.plugins, _JUDGE.format(how=how), "judge.yaml")


async def settled(gateway: GatewayProcess, in_bucket: Bucket) -> list[dict[str, Any]]:
    """Wait until everything is decided, carried out and delivered; return the uploads."""

    async def uploads() -> list[dict[str, Any]] | None:
        listed = list((await get(gateway, "/-/uploads")).json["uploads"])
        return None if {row["state"] for row in listed} - {"stored", "rejected"} else listed

    async def is_settled() -> bool:
        return await uploads() is not None and await in_bucket.is_clean()

    await wait_until(is_settled, seconds=60)
    await wait_settled(gateway)
    return await uploads() or []


@pytest.mark.parametrize(
    ("point", "size"),
    [
        *((point, LARGE) for point in (*NOTHING, *UNANSWERED, *UNDECIDED, *DECIDED, *PUBLISHED)),
        *((point, SMALL) for point in ("after staged", "after held row", "before complete")),
    ],
)
async def test_a_held_file_is_published_once_or_was_never_there(
    gateway_process: StartProcess,
    recorder: RunRecorder,
    in_bucket: Bucket,
    flags: list[str],
    point: str,
    size: int,
) -> None:
    judge(recorder)
    dying = gateway_process(*flags, die_at=point)
    sent = await upload(dying, "x", size=size)
    assert dying.wait() == -9
    assert sent.status in ({None} if point in (*NOTHING, *UNANSWERED) else {None, 202})
    whole = {"x": sent.body}
    assert await in_bucket.visible() == (whole if point in PUBLISHED else {})

    gateway = gateway_process(*flags)
    told = [(row["path"], row["state"]) for row in await settled(gateway, in_bucket)]
    if point in NOTHING:
        assert (told, await in_bucket.visible(), recorder.runs()) == ([], {}, [])
    elif point in UNDECIDED:  # the second run refuses
        assert told == [("/upload/x", "rejected")]
        assert (await in_bucket.visible(), recorder.runs()) == ({}, [])
    else:
        assert told == [("/upload/x", "stored")]
        assert await in_bucket.visible() == whole
        assert set(recorder.tags()) == {"x"}


@pytest.mark.parametrize("point", REJECTED)
async def test_a_rejected_file_leaves_nothing_but_its_story(
    gateway_process: StartProcess, recorder: RunRecorder, in_bucket: Bucket, flags: list[str], point: str
) -> None:
    judge(recorder)
    dying = gateway_process(*flags, die_at=point)
    assert (await upload(dying, "refused", size=LARGE)).status in {None, 202}
    assert dying.wait() == -9
    gateway = gateway_process(*flags)
    assert [row["state"] for row in await settled(gateway, in_bucket)] == ["rejected"]
    assert (await in_bucket.visible(), recorder.runs()) == ({}, [])


@pytest.mark.parametrize("point", [*WAITING, "after complete", "before answer"])
async def test_a_file_whose_client_waits_is_there_as_accepted_or_not_at_all(
    gateway_process: StartProcess, recorder: RunRecorder, in_bucket: Bucket, flags: list[str], point: str
) -> None:
    judge(recorder, how="timeout: 20")
    dying = gateway_process(*flags, die_at=point)
    sent = await upload(dying, "x", size=LARGE)
    assert (sent.status, dying.wait()) == (None, -9)
    gateway = gateway_process(*flags)
    if point != "before complete":  # else the copy may still be on its way
        await wait_until(in_bucket.is_clean, seconds=60)
    if point in WAITING:
        assert (await in_bucket.visible(), recorder.runs()) == ({}, [])
    else:
        assert await in_bucket.visible() == {"x": sent.body}
        await wait_until(lambda: recorder.tags() == ["x"])
    assert (await upload(gateway, "x", "again", SMALL)).status in {200, 201}


@pytest.mark.parametrize(
    "point",
    ["before staged", "after staged", "after hold claimed", "after held row", "before partial end"],
)
async def test_a_partial_upload_is_held_once_whatever_is_killed(
    gateway_process: StartProcess, recorder: RunRecorder, in_bucket: Bucket, flags: list[str], point: str
) -> None:
    """Its client goes on after the kill where it can, and completes the upload."""
    judge(recorder)
    body = body_of("x", LARGE)
    dying = gateway_process(*flags, die_at=point)
    first = ("X-Tag: x", "Upload-Complete: ?0", f"Upload-Length: {LARGE}")
    created = await request(dying, "POST", "/upload/x", *first, body=body[: LARGE // 2])
    offset = (f"Upload-Offset: {LARGE // 2}", "Upload-Complete: ?1", PART_TYPE)
    with pytest.raises((OSError, EOFError)):
        await request(dying, "PATCH", created.resource, *offset, body=body[LARGE // 2 :])
    assert dying.wait() == -9
    assert await in_bucket.visible() == {}

    gateway = gateway_process(*flags)
    is_held = point in {"after held row", "before partial end"}

    async def goes_on() -> bool:
        answer = await request(gateway, "HEAD", created.resource)
        if answer.status == 423:
            return False
        if not is_held:
            assert (answer.status, answer.offset) == (204, LARGE)
            end = (f"Upload-Offset: {LARGE}", "Upload-Complete: ?1", PART_TYPE)
            done = await request(gateway, "PATCH", created.resource, *end, body=b"")
            return done.status in {201, 202}
        return True

    await wait_until(goes_on, seconds=60)
    (told,) = await settled(gateway, in_bucket)
    # Before its end as a partial upload a first run may have begun: the second one refuses.
    state = "rejected" if point == "before partial end" and told["state"] == "rejected" else "stored"
    assert (told["path"], told["state"]) == ("/upload/x", state)
    assert await in_bucket.visible() == ({"x": body} if state == "stored" else {})
    assert set(recorder.tags()) == ({"x"} if state == "stored" else set())


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_the_outcome_of_a_copy_whose_response_is_lost_is_determined(
    gateway_process: StartProcess,
    recorder: RunRecorder,
    s3: SeaweedFS,
    in_bucket: Bucket,
    flags: list[str],
    size: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The store made the copy: nothing is lost, nothing is published twice; nor with a kill then."""
    judge(recorder)
    with ResponseDroppingProxy(s3.url) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", between.url)
        gateway = gateway_process(*flags)
        between.drop_responses(b"PUT", count=1, key=b"upload/x")
        assert (await upload(gateway, "x", size=size)).status == 202
        await wait_until(lambda: recorder.tags() == ["x"])
        is_dead = threading.Event()

        def kill() -> None:
            gateway.kill()
            is_dead.set()

        between.drop_responses(b"PUT", count=1, key=b"upload/y", then=kill)
        later = await upload(gateway, "y", size=size)
        assert later.status in {None, 202}
        await wait_until(is_dead.is_set)
        between.count = 0
        again = gateway_process(*flags)
        await settled(again, in_bucket)
    assert await in_bucket.visible() == {"x": body_of("x", size), "y": later.body}
    assert sorted(set(recorder.tags())) == ["x", "y"]
