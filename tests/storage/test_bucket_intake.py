"""Storing into a bucket: what objects say of themselves, and what a fault on the way must not cost."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.errors import Refusal
from gateway.model import Upload
from gateway.storage.s3.parts import MARK, OWNER
from tests.conftest import Start
from tests.s3.servers import SeaweedFS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("taken", [False, True], ids=["its own name", "another name"])
async def test_an_object_bears_the_mark_of_the_very_path_that_it_got(
    start: Start, s3: SeaweedFS, s3_storage: str, bucket: str, taken: bool
) -> None:
    async def while_somebody_takes_the_name() -> AsyncIterator[bytes]:
        yield b"half"
        if taken:
            async with s3.client() as client:
                await client.put_object(Bucket=bucket, Key="a prefix/made/x", Body=b"of another")
        yield b"rest"

    gateway = await start(auth="none", storage=s3_storage)
    ground = gateway.ground
    saving = while_somebody_takes_the_name()
    stored = await ground.holders.save(
        "/made/x", saving, metadata={"title": "Sunrise"}, on_conflict="rename"
    )
    assert stored.path == ("/made/x-1" if taken else "/made/x")
    said = (await ground.shelf.stat(stored.path)).metadata
    assert said[OWNER] == stored.upload_id
    assert ground.installation.marks.is_genuine(said[MARK], stored.upload_id, stored.path)
    assert (await ground.holders.stat(stored.path)).metadata == {"title": "Sunrise"}


@pytest.mark.parametrize("size", [3, 8 << 20, 20_000_000])
async def test_more_bytes_than_were_declared_are_refused(
    start: Start, s3_storage: str, size: int
) -> None:
    intake = (await start(auth="none", storage=s3_storage)).ground.intake()
    body = await intake.begin(Upload("01ABC-0", "/x", content_length=size), "text/plain")
    await body.write(b"x" * size)
    with pytest.raises(Refusal) as refused:
        await body.write(b"y")
    assert refused.value.code == "incomplete_body"
    await body.discard()
