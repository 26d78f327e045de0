"""States of partial uploads as objects: read back as written, and never alike."""

from __future__ import annotations

from typing import cast

import pytest

from gateway.domain.saved_digests import load_digest
from gateway.errors import Refusal
from gateway.storage.s3.partial_objects import PartialObjects, PartialState
from gateway.storage.s3.private_objects import ChangedError, PrivateContent, PrivateObjects

UPLOAD_ID = "0123456789ABCDEFGHJKMNPQRS-0"


class MemoryObjects:
    """Objects in memory, whose tags are of their bytes as in S3. `loses` answers of writes."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.loses = 0

    async def get(self, name: str, *, first: int | None = None) -> tuple[bytes, str] | None:
        if name not in self.contents:
            return None
        return self.contents[name][:first], str(hash(self.contents[name]))

    async def put(self, name: str, content: PrivateContent, *, replaces: str | None = None) -> str:
        if replaces is not None and replaces != str(hash(self.contents.get(name))):
            raise ChangedError("changed")
        self.contents[name] = await content.read()
        if self.loses:
            self.loses -= 1
            return await self.put(name, content, replaces=replaces)
        return str(hash(self.contents[name]))


@pytest.fixture
def memory() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def objects(memory: MemoryObjects) -> PartialObjects:
    return PartialObjects(cast("PrivateObjects", memory))


@pytest.mark.parametrize("tags", [0, 3, 10_000])
@pytest.mark.parametrize("tail", [0, 5, 30_000])
async def test_a_state_is_read_as_it_was_written(objects: PartialObjects, tags: int, tail: int) -> None:
    state = PartialState(
        100_000,
        '/upload/h"é\\' + "x" * 900,
        "a gateway",
        1.5,
        length=None,
        offset=tags * 100_000 + tail,
        multipart="m" * 300,
        tags=tuple(f'"{number:032x}"' for number in range(tags)),
        digests={name: load_digest(name).save() for name in ("sha256", "sha512")},
    )
    etag = await objects.write(UPLOAD_ID, state, memoryview(b"t" * tail), None)
    stored = await objects.read(UPLOAD_ID)
    assert stored is not None
    assert (stored.state, stored.etag, stored.state.tail) == (state, etag, tail)
    assert stored.tail in (b"t" * tail, b"t" * len(stored.tail))
    described = await objects.describe(UPLOAD_ID)
    assert described is not None
    assert (described.offset, described.multipart) == (state.offset, state.multipart)


async def test_equal_states_have_different_tags(objects: PartialObjects) -> None:
    state = PartialState(1, "/x", "w", 1.0)
    tags = {await objects.write(UPLOAD_ID, state, memoryview(b""), None) for _ in range(3)}
    assert len(tags) == 3


async def test_a_write_whose_answer_was_lost_counts(
    objects: PartialObjects, memory: MemoryObjects
) -> None:
    state = PartialState(1, "/x", "w", 1.0)
    etag = await objects.write(UPLOAD_ID, state, memoryview(b""), None)
    memory.loses = 1
    again = await objects.write(UPLOAD_ID, state, memoryview(b"t"), etag)
    assert again != etag
    with pytest.raises(ChangedError):
        await objects.write(UPLOAD_ID, state, memoryview(b"t"), etag)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b'{"format": 2}', b"\xff", b"x" * 5000])
async def test_what_is_no_state_is_a_defect_that_is_named(
    objects: PartialObjects, memory: MemoryObjects, content: bytes
) -> None:
    memory.contents[UPLOAD_ID] = content
    with pytest.raises(Refusal, match="cannot be read"):
        await objects.read(UPLOAD_ID)


async def test_a_state_with_a_damaged_digest_is_not_read(objects: PartialObjects) -> None:
    state = PartialState(1, "/x", "w", 1.0, digests={"sha256": b"\xff" * 112})
    await objects.write(UPLOAD_ID, state, memoryview(b""), None)
    with pytest.raises(Refusal, match="damaged"):
        await objects.read(UPLOAD_ID)
