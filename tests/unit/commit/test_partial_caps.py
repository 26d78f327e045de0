"""Caps of partial uploads, counted over all processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.commit import partial_caps
from gateway.commit.partial_caps import PartialCaps
from gateway.domain.partial import PartialHead
from gateway.errors import Refusal
from gateway.storage.local.partial_directory import PartialDirectory
from gateway.storage.local.partial_opening import create_partial, remove_idle
from tests.support.partials import partial_head


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PartialDirectory]:
    monkeypatch.setattr(partial_caps, "MAX_PARTIALS", 5)
    monkeypatch.setattr(partial_caps, "MAX_PARTIALS_PER_CLIENT", 3)
    opened = PartialDirectory(tmp_path / "partials")
    yield opened
    opened.close()


def create(folder: PartialDirectory, client: str) -> str:
    file = create_partial(folder, partial_head(length=9, client=client), 0o640, 0o022)
    file.close()
    return file.upload_id


def refused(caps: PartialCaps, client: str) -> str:
    with pytest.raises(Refusal) as caught:
        caps.check(client)
    return caught.value.code


def test_each_client_has_its_own_cap_and_all_have_one(folder: PartialDirectory) -> None:
    mine, others = PartialCaps(folder), PartialCaps(folder)
    ids = [create(folder, "a") for _ in range(3)]
    for caps in (mine, others):  # as two processes count
        assert refused(caps, "a") == "too_many_requests"
        caps.check("b")
    ids += [create(folder, "b") for _ in range(2)]
    assert refused(mine, "c") == refused(others, "a") == "overloaded"
    remove_idle(folder, ids[0])
    mine.check("a")
    others.check("c")


def test_each_head_is_read_once(folder: PartialDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    caps, real = PartialCaps(folder), folder.read_head
    read: list[str] = []

    def read_head(upload_id: str) -> PartialHead | None:
        read.append(upload_id)
        return real(upload_id)

    monkeypatch.setattr(folder, "read_head", read_head)
    ids = [create(folder, "a")]
    caps.check("a")
    ids.append(create(folder, "a"))
    caps.check("a")
    caps.check("b")
    assert read == ids


def test_a_long_list_is_not_made_for_each_creation(
    folder: PartialDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial_caps, "SHORT_LIST", -1.0)
    monkeypatch.setattr(partial_caps, "PAUSE", 1e9)
    caps = PartialCaps(folder)
    caps.check("a")
    others = create(folder, "a")  # as another process does
    for _ in range(3):
        caps.check("a")
        caps.add(create(folder, "a"), "a")
    assert refused(caps, "a") == "too_many_requests"
    caps.check("b")
    monkeypatch.setattr(caps, "_next_list", 0.0)
    caps.add(others, "a")
    caps.add(others, "a")
    caps.check("b")
    caps.add(create(folder, "b"), "b")
    assert refused(caps, "b") == "overloaded"
