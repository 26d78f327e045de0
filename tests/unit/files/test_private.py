"""`files.open` of events of OnFileReceived: the private file, while handlers may read it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.event_bodies import received_body
from gateway.domain.held import PrivateFile
from gateway.domain.model import Upload
from gateway.errors import Refusal, Superseded
from gateway.files.service import FilesService
from gateway.storage.protocols import Stat
from tests.unit.files.test_service import FakeFile, FakeStorage

UPLOAD = Upload("01-0", "/upload/x")
BODY = received_body(UPLOAD, mime="a/b", size=4, digests={}, params={}, headers={})


class PrivateObjects(FakeStorage):
    """A bucket with one private object."""

    @contextlib.asynccontextmanager
    async def open_private(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> AsyncIterator[FakeFile]:
        if key != "p/.gateway/held/01-0":
            raise Refusal("not_found", "there is no such object")
        yield FakeFile(Stat("/x", 4, 0.0, "e"))


async def read(files: FilesService, event: dict[str, Any]) -> bytes:
    async with files.open(event) as file:
        return await file.read()


async def test_a_private_file_is_read_while_it_is_registered_and_has_its_own_path(
    tmp_path: Path,
) -> None:
    files, path = FilesService(FakeStorage()), tmp_path / "body"
    path.write_bytes(b"whole")
    files.private.register("01-0", PrivateFile(5, path))
    event = files.received_event("01-0", BODY)
    assert (event["id"], event["filepath"], event["path"]) == ("01-0.received", str(path), "/upload/x")
    assert await read(files, event) == b"whole"
    with pytest.raises(RuntimeError, match="terminate"):
        await files.remove(event)
    path.unlink()
    with pytest.raises(Superseded):
        await read(files, event)
    files.private.forget("01-0")
    files.private.forget("01-0")
    with pytest.raises(Superseded):
        await read(files, event)
    assert files.received_event("01-0", BODY)["filepath"] is None


async def test_a_private_object_is_fetched_and_has_no_path(tmp_path: Path) -> None:
    files = FilesService(PrivateObjects())
    files.private.register("01-0", PrivateFile(4, key="p/.gateway/held/01-0"))
    event = files.received_event("01-0", BODY)
    assert event["filepath"] is None
    assert await read(files, event) == b"byte"
    files.private.register("01-0", PrivateFile(4, key="p/.gateway/held/gone"))
    with pytest.raises(Superseded):
        await read(files, event)
