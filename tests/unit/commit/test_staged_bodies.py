"""A finished body that handlers read before it is visible, and what they change in its upload."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.commit.local_writer import LocalWriter
from gateway.domain.model import Upload, new_id
from gateway.errors import Refusal
from gateway.storage.local.xattrs import FileAttributes, read_attributes
from tests.support.committer import CommitterHarness
from tests.support.partials import partial_head

KIB = 1 << 10


@pytest.fixture
def writer(harness: CommitterHarness) -> LocalWriter:
    return LocalWriter(harness.local_disk, harness.committer, 0o640, "sha256")


def attributes_of(path: Path) -> FileAttributes:
    with path.open("rb") as file:
        return read_attributes(file.fileno(), os.fstat(file.fileno()))


@pytest.mark.parametrize("size", [0, 5, 200 * KIB], ids=["empty", "in memory", "in its file"])
async def test_a_staged_body_is_read_by_its_path_and_is_nowhere_else(
    harness: CommitterHarness, writer: LocalWriter, size: int
) -> None:
    pending = await writer.begin(Upload(new_id(0), "/x.bin", content_length=size), staged=True)
    await pending.write(b"z" * size)
    await pending.finish()
    private = await pending.stage()
    assert private.path is not None
    assert private.path.is_absolute()
    assert (private.size, private.path.read_bytes()) == (size, b"z" * size)
    assert (harness.stored(), harness.deliveries()) == ({}, [])
    await pending.discard()
    assert (harness.bodies(), harness.space.reserved) == ([], 0)


async def test_what_handlers_change_in_the_upload_counts_at_the_commit(
    harness: CommitterHarness, writer: LocalWriter
) -> None:
    (harness.root / "new").mkdir()
    (harness.root / "new/taken.png").write_bytes(b"old")
    upload = Upload(new_id(0), "/x.bin", content_type="image/png", metadata={"a": "1"})
    pending = await writer.begin(upload, staged=True)
    await pending.write(b"12345")
    await pending.finish()
    await pending.stage()
    upload.path, upload.metadata, upload.on_conflict = "/new/taken.png", {"b": "2"}, "rename"
    stored = await pending.commit({}, from_client=True)
    assert stored.path == "/new/taken-1.png"
    mime, metadata, digests = attributes_of(harness.root / "new/taken-1.png")
    assert (mime, metadata) == (None, {"b": "2"})
    assert list(digests) == ["sha-256"]


async def test_metadata_that_a_handler_removes_is_not_kept(
    harness: CommitterHarness, writer: LocalWriter
) -> None:
    upload = Upload(new_id(0), "/x", metadata={"a": "1"})
    pending = await writer.begin(upload, staged=True)
    await pending.write(b"12345")
    await pending.finish()
    await pending.stage()
    upload.metadata = {}
    await pending.commit({}, from_client=True)
    assert attributes_of(harness.root / "x").metadata == {}


async def test_a_target_that_a_handler_chose_is_checked_at_the_commit(
    harness: CommitterHarness, writer: LocalWriter
) -> None:
    (harness.root / "taken").write_bytes(b"old")
    upload = Upload(new_id(0), "/free", on_conflict="reject")
    pending = await writer.begin(upload, staged=True)
    await pending.write(b"12345")
    await pending.finish()
    await pending.stage()
    upload.path = "/taken"
    with pytest.raises(Refusal) as refused:
        await pending.commit({}, from_client=True)
    assert refused.value.code == "conflict"
    assert (harness.stored(), harness.bodies(), harness.space.reserved) == ({"taken": b"old"}, [], 0)


async def test_a_staged_partial_upload_is_read_by_its_path_and_committed_as_handlers_left_it(
    harness: CommitterHarness,
) -> None:
    head = partial_head(length=5, path="/x.bin", metadata={"a": "1"}, content_type="image/png")
    opened = await harness.partial_store().create(head)
    await opened.begin(5)
    await opened.write(b"12345")
    private = await opened.stage()
    assert private.path is not None
    assert (private.size, private.path.read_bytes()) == (5, b"12345")
    head.upload.path, head.upload.metadata = "/y.png", {}
    assert (await opened.commit({})).path == "/y.png"
    mime, metadata, _ = attributes_of(harness.root / "y.png")
    assert (mime, metadata, harness.stored()) == (None, {}, {"y.png": b"12345"})
