"""The URLs that were given out for objects: remembered, looked for, forgotten."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.domain.grant import Grant
from gateway.endpoints.notifications.presigned_uploads import FIRST_LOOK, GRACE, SKEW, PresignedUploads
from gateway.records import Records
from gateway.storage.protocols import Stat


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def initiated(clock: Clock) -> PresignedUploads:
    return PresignedUploads(Records().own("initiated"), clock)


GRANT = Grant("PUT", "/a/b.bin", 1_000_900, "image/png", max_length=10, metadata={"title": "ü"})


async def test_a_url_is_remembered_with_all_that_it_allows(initiated: PresignedUploads) -> None:
    await initiated.remember(GRANT)
    await initiated.remember(replace(GRANT, path="/a/b.bin2"))
    (one,) = await initiated.of("/a/b.bin")
    assert (one.path, one.expires, one.max_length) == ("/a/b.bin", 1_000_900.0, 10)
    assert (one.content_type, one.metadata) == ("image/png", {"title": "ü"})


async def test_the_latest_url_of_a_path_comes_first(initiated: PresignedUploads, clock: Clock) -> None:
    await initiated.remember(GRANT)
    clock.now += 5
    await initiated.remember(replace(GRANT, content_type="text/plain"))
    assert [one.content_type for one in await initiated.of("/a/b.bin")] == ["text/plain", "image/png"]


async def test_looks_come_with_growing_pauses_and_the_last_one_at_the_end(
    initiated: PresignedUploads, clock: Clock
) -> None:
    await initiated.remember(GRANT)
    assert await initiated.due(10) == []
    looks = []
    while clock.now < 1_000_900 + GRACE:
        clock.now += 1
        for one in await initiated.due(10):
            looks.append(clock.now - one.created)
            assert await initiated.change(one, one.later(clock.now))
    assert looks[:3] == pytest.approx([120, 240, 480], abs=5)
    assert len(looks) < 10
    (last,) = await initiated.of("/a/b.bin")
    assert last.due >= last.until


async def test_only_one_of_two_that_look_at_once_gets_it(
    initiated: PresignedUploads, clock: Clock
) -> None:
    await initiated.remember(GRANT)
    clock.now += FIRST_LOOK + 1
    (one,) = await initiated.due(10)
    assert await initiated.change(one, one.later(clock.now))
    assert not await initiated.change(one, one.later(clock.now + 1))


async def test_what_was_told_is_looked_at_once_more_at_its_end(
    initiated: PresignedUploads, clock: Clock
) -> None:
    await initiated.remember(GRANT)
    (one,) = await initiated.of(GRANT.path)
    assert replace(one, told="abc").later(clock.now).due == 1_000_900 + GRACE


async def test_forgetting_leaves_nothing(initiated: PresignedUploads) -> None:
    await initiated.remember(GRANT)
    (one,) = await initiated.of(GRANT.path)
    assert await initiated.forget(one)
    assert not await initiated.forget(one)
    assert await initiated.of(GRANT.path) == []


@pytest.mark.parametrize(
    ("limits", "size", "mime", "fault"),
    [
        ({"max_length": 10}, 10, None, None),
        ({"max_length": 10}, 11, None, "too_large"),
        ({"length": 10}, 11, None, "too_large"),
        ({"length": 10}, 9, None, "incomplete_body"),
        ({"content_type": "image/png"}, 9, "image/png", None),
        ({"content_type": "image/png"}, 9, "text/html", "unsupported_media_type"),
        ({"content_type": "image/png"}, 9, None, None),
        ({}, 1 << 40, "x/y", None),
    ],
)
async def test_an_object_is_compared_with_what_its_url_allowed(
    initiated: PresignedUploads,
    limits: dict[str, object],
    size: int,
    mime: str | None,
    fault: str | None,
) -> None:
    await initiated.remember(Grant("PUT", "/x", 1_000_900, **limits))  # type: ignore[arg-type]  # of a table
    (one,) = await initiated.of("/x")
    assert one.fault_of(size, mime) == fault


async def test_an_object_that_was_there_before_is_none_of_its(
    initiated: PresignedUploads, clock: Clock
) -> None:
    await initiated.remember(GRANT)
    (one,) = await initiated.of(GRANT.path)
    assert one.is_of(Stat("/a/b.bin", 1, clock.now + 1, "e"))
    assert not one.is_of(Stat("/a/b.bin", 1, clock.now - SKEW - 1, "e"))
