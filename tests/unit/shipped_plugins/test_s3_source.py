"""The parts and digests of plugins/s3-forward, and the reading of its config. No server."""

from __future__ import annotations

import hashlib
import importlib
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from tests.support import PROJECT

MIB = 1 << 20
PLUGIN = PROJECT / "plugins/s3-forward"


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(PLUGIN))
    return importlib.import_module("s3source")


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(PLUGIN))
    return importlib.import_module("s3target").Target


@pytest.mark.parametrize("size", [0, 1, 5 * MIB, 5 * MIB + 1, 80_000 * MIB, 80_000 * MIB + 1, 5 << 40])
def test_any_size_is_covered_by_equal_parts_that_s3_takes(source: Any, size: int) -> None:
    part_size = source.part_size_for(size, 8 * MIB)
    parts = source.Source(-1, size, part_size).parts
    assert 1 <= len(parts) <= 10_000
    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    assert {part.size for part in parts[:-1]} <= {part_size}
    assert all(part.offset == index * part_size for index, part in enumerate(parts))
    assert sum(part.size for part in parts) == size
    assert 5 * MIB <= part_size <= 5 << 30


async def test_a_whole_file_has_the_plain_digests(source: Any, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"content")
    with (tmp_path / "f").open("rb") as file:
        whole = source.Source(file.fileno(), 7, 8 * MIB)
        assert await whole.has_etag(f'"{hashlib.md5(b"content").hexdigest()}"')
        assert not await whole.has_etag(f'"{hashlib.md5(b"other").hexdigest()}"')
        assert await whole.sha256() == b64encode(hashlib.sha256(b"content").digest()).decode()


async def test_parts_have_the_digest_of_their_digests(source: Any, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"aaaabbbbc")
    with (tmp_path / "f").open("rb") as file:
        parts = source.Source(file.fileno(), 9, 4)
        md5 = b"".join(hashlib.md5(piece).digest() for piece in (b"aaaa", b"bbbb", b"c"))
        assert await parts.has_etag(f'"{hashlib.md5(md5).hexdigest()}-3"')
        assert await parts.has_etag(f'"{hashlib.md5(b"aaaabbbbc").hexdigest()}"')
        assert not await parts.has_etag(f'"{hashlib.md5(md5).hexdigest()}-2"')
        assert not await parts.has_etag(f'"{hashlib.md5(md5).hexdigest()}"')
        sha = b"".join(hashlib.sha256(piece).digest() for piece in (b"aaaa", b"bbbb", b"c"))
        assert await parts.sha256() == b64encode(hashlib.sha256(sha).digest()).decode()


async def test_a_body_is_one_part_of_the_file_and_can_be_sent_again(source: Any, tmp_path: Path) -> None:
    content = bytes(range(256)) * (3 * MIB // 256)
    (tmp_path / "f").write_bytes(content)
    with (tmp_path / "f").open("rb") as file:
        part = source.Part(1, 100, 2 * MIB + 7)
        body = source.Source(file.fileno(), len(content), 8 * MIB).body(part)
        for _ in range(2):
            chunks = [chunk async for chunk in body]
            assert b"".join(chunks) == content[100 : 100 + 2 * MIB + 7]
            assert max(map(len, chunks)) <= source.CHUNK
            assert body.tell() == part.size
            assert body.seek(0) == 0


async def test_a_file_that_has_been_cut_is_an_error_not_a_short_object(
    source: Any, tmp_path: Path
) -> None:
    (tmp_path / "f").write_bytes(b"short")
    with (tmp_path / "f").open("rb") as file:
        cut = source.Source(file.fileno(), 9, 8 * MIB)
        with pytest.raises(OSError, match="it was truncated"):
            await cut.digests(cut.parts[0])
        with pytest.raises(OSError, match="it was truncated"):
            _ = [chunk async for chunk in cut.body(cut.parts[0])]


def test_keys_are_the_path_behind_the_prefix(target: Any) -> None:
    assert target.of({"bucket": "b"}).key("/upload/a.bin") == "upload/a.bin"
    assert target.of({"bucket": "b", "prefix": "/x/y/"}).key("/upload/a.bin") == "x/y/upload/a.bin"


def test_a_new_bucket_is_made_where_the_config_says(target: Any) -> None:
    def constraint(**config: str) -> Any:
        return target.of({"bucket": "b", **config}).location_constraint

    assert constraint() == constraint(region="us-east-1") == constraint(region="x", location="") == {}
    expected = {"CreateBucketConfiguration": {"LocationConstraint": "eu-central-1"}}
    assert constraint(region="eu-central-1") == constraint(location="eu-central-1") == expected


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({}, "bucket"),
        ({"bucket": "b", "buket": "hidden"}, "buket"),
        ({"bucket": "b", "part_size": 5 * MIB - 1}, "part_size"),
        ({"bucket": "b", "part_size": "hidden"}, "part_size"),
        ({"bucket": "b", "parts_in_flight": 0}, "parts_in_flight"),
    ],
)
def test_a_bad_config_is_named_by_its_key_and_not_shown(
    target: Any, config: dict[str, Any], key: str
) -> None:
    with pytest.raises(ValueError, match=key) as error:
        target.of(config)
    assert "hidden" not in str(error.value)


def test_keys_are_not_shown_either(target: Any) -> None:
    shown = repr(target.of({"bucket": "b", "access_key_id": "AKID", "secret_access_key": "SECRET"}))
    assert "AKID" not in shown
    assert "SECRET" not in shown
