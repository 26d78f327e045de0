"""What every remover of files promises: that of a directory, and that of a bucket on two servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.domain.model import FileRequest, new_id
from gateway.errors import Refusal
from gateway.server.app import Gateway
from gateway.settings.values import Bucket
from tests.conftest import StartGateway
from tests.support.harness import put, wait_until
from tests.support.recorders import EventRecorder, recording_events
from tests.support.s3.servers import S3Server


@dataclass
class Removing:
    """A gateway with a recorder of its deletions."""

    gateway: Gateway
    recorder: EventRecorder

    async def remove(self, path: str, *etags: str) -> None:
        deletion = FileRequest(
            new_id(0), path, method="DELETE", principal={"name": "me", "kind": "token"}
        )
        await self.gateway.resources.parts.remover.remove(deletion, etags or None)

    async def etag(self, path: str) -> str:
        return (await self.gateway.resources.parts.storage.stat(path)).etag

    async def exists(self, path: str) -> bool:
        try:
            await self.etag(path)
        except Refusal:
            return False
        return True

    async def rows(self) -> list[str]:
        rows = await asyncio.wrap_future(self.gateway.resources.journal.deletions.pending())
        return [row.path for row in rows]


@pytest.fixture(
    params=[
        "file",
        pytest.param("s3", marks=pytest.mark.slow),
        pytest.param("rclone", marks=pytest.mark.slow),
    ]
)
async def removing(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    start_gateway: StartGateway,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Removing]:
    storage: str | Bucket = "file"
    if request.param != "file":
        server: S3Server = request.getfixturevalue(request.param)
        await server.make(bucket)
        server.set_environment(monkeypatch)
        storage = f"s3://{bucket}/a prefix"
    with recording_events() as recorder:
        plugins = recorder.write_handler(tmp_path / "p", "APIGW.OnFileDeleted", "gone")
        gateway = await start_gateway(plugins=plugins, storage=storage)
        yield Removing(gateway, recorder)


async def test_a_file_is_gone_and_its_handlers_run(removing: Removing) -> None:
    await put(removing.gateway, "/upload/a/b.txt", b"12345", "X-Amz-Meta-Color: red")
    etag = await removing.etag("/upload/a/b.txt")
    await removing.remove("/upload/a/b.txt")
    assert not await removing.exists("/upload/a/b.txt")
    handler, event = await removing.recorder.next_event()
    assert handler == "gone"
    assert (event["path"], event["bytes"], event["etag"]) == ("/upload/a/b.txt", 5, etag)
    assert event["mime"].startswith("text/plain")
    assert event["principal"] == {"name": "me", "kind": "token"}
    assert event["metadata"] in ({"color": "red"}, {})  # rclone may forget it
    await wait_until(removing.recorder.is_empty)
    with pytest.raises(Refusal) as refused:
        await removing.remove("/upload/a/b.txt")
    assert refused.value.code == "not_found"
    assert await removing.rows() == []


async def test_only_the_named_version_is_removed(removing: Removing) -> None:
    await put(removing.gateway, "/upload/x", b"old")
    old = await removing.etag("/upload/x")
    await put(removing.gateway, "/upload/x", b"newer")
    new = await removing.etag("/upload/x")
    with pytest.raises(Refusal) as refused:
        await removing.remove("/upload/x", old)
    assert refused.value.code == "precondition_failed"
    assert await removing.exists("/upload/x")
    assert removing.recorder.is_empty()
    await removing.remove("/upload/x", "another", new)
    assert not await removing.exists("/upload/x")
    assert (await removing.recorder.next_event())[1]["etag"] == new


async def test_folders_and_what_is_not_there_are_refused(removing: Removing) -> None:
    await put(removing.gateway, "/upload/folder/file", b"x")
    for path, code in (
        ("/upload/folder", "conflict"),
        ("/upload/none", "not_found"),
        ("/upload/none/none", "not_found"),
        ("/upload/folder/file/below", "not_found"),
        ("/upload/../x", "bad_path"),
        ("/.gateway/journal-0.db", "bad_path"),
    ):
        with pytest.raises(Refusal) as refused:
            await removing.remove(path)
        assert refused.value.code == code, path
    assert await removing.exists("/upload/folder/file")
    assert removing.recorder.is_empty()
    assert await removing.rows() == []


async def test_of_many_at_once_one_removes_the_file(removing: Removing) -> None:
    await put(removing.gateway, "/upload/x", b"x")
    etag = await removing.etag("/upload/x")
    results = await asyncio.gather(
        *(removing.remove("/upload/x", etag) for _ in range(8)), return_exceptions=True
    )
    removed = [result for result in results if result is None]
    codes = {result.code for result in results if isinstance(result, Refusal)}
    assert len(removed) >= 1
    assert codes <= {"not_found", "precondition_failed"}
    assert len(removed) + sum(isinstance(result, Refusal) for result in results) == 8
    for _ in removed:
        await removing.recorder.next_event()
    if isinstance(removing.gateway.resources.settings.storage, str):
        assert len(removed) == 1  # a store without conditions on DELETE may answer more of them


async def test_many_files_are_removed_each_with_its_event(removing: Removing) -> None:
    names = [f"/upload/{number}" for number in range(70)]
    await asyncio.gather(*(put(removing.gateway, name, b"x") for name in names))
    await asyncio.gather(*map(removing.remove, names))
    events = [(await removing.recorder.next_event())[1]["path"] for _ in names]
    assert sorted(events) == sorted(names)
    assert not any([await removing.exists(name) for name in names])
