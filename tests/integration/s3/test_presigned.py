"""Presigned requests on real servers: what is allowed works with curl, all else is refused."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.domain.grant import Grant
from gateway.errors import Refusal
from gateway.settings.values import Bucket
from gateway.storage.protocols import PresignedRequest
from gateway.storage.s3 import presign
from gateway.storage.s3.client import Clients
from gateway.storage.s3.storage import S3Storage
from tests.support.harness import curl
from tests.support.s3.servers import S3Server

PATH = "/uploads/event_1/é 1+2%41.png"
METADATA = {"title": "Keynote Speech", "description": "Steve, ünterwegs"}


def grant(method: str = "PUT", path: str = PATH, *, seconds: float = 60, **more: Any) -> Grant:
    said: dict[str, Any] = {"content_type": "image/png"} if method in {"PUT", "POST"} else {}
    return dataclasses.replace(Grant(method, path, int(time.time() + seconds)), **{**said, **more})


async def signed(storage: S3Storage, wanted: Grant) -> PresignedRequest:
    found = await storage.sign(wanted, expires=wanted.expires)
    assert found is not None
    return found


async def put(url: str, body: bytes = b"picture", *more: str, mime: str = "image/png") -> int:
    sent = ["-X", "PUT", "--path-as-is", "--data-binary", "@-", "-H", f"Content-Type: {mime}"]
    return (await curl(*sent, *more, url, stdin=body)).status


@pytest.fixture
def small_file(tmp_path: Path) -> Path:
    file = tmp_path / "picture.png"
    file.write_bytes(b"picture")
    return file


async def stat_of(storage: S3Storage, path: str = PATH) -> tuple[int, str | None]:
    stat = await storage.stat(path)
    return stat.bytes, stat.mime


async def missing(storage: S3Storage, path: str = PATH) -> bool:
    try:
        await storage.stat(path)
    except Refusal as refusal:
        return refusal.code == "not_found"
    return False


# -- PUT


@pytest.mark.slow
async def test_a_client_that_knows_only_the_url_and_its_type_can_put(
    server: S3Server, storage: S3Storage
) -> None:
    found = await signed(storage, grant(metadata=METADATA, cache_control="max-age=31557600"))
    assert found.headers == {"Content-Type": "image/png"}
    query = parse_qs(urlsplit(found.url).query)
    assert query["x-amz-meta-title"] == ["Keynote Speech"]
    assert query["Cache-Control"] == ["max-age=31557600"]
    assert query["X-Amz-SignedHeaders"] == ["content-type;host"]
    assert await put(found.url) == 200
    assert await stat_of(storage) == (7, "image/png")


@pytest.mark.slow
async def test_a_wrong_type_is_refused(server: S3Server, storage: S3Storage) -> None:
    found = await signed(storage, grant())
    assert await put(found.url, mime="text/html") == 403
    assert await put(found.url, mime="") == 403
    assert await missing(storage)


@pytest.mark.slow
async def test_changed_metadata_is_refused(server: S3Server, storage: S3Storage) -> None:
    url = (await signed(storage, grant(metadata=METADATA))).url
    for other in (
        url.replace("Keynote", "Another"),
        url.replace("x-amz-meta-title=Keynote%20Speech&", ""),
        url.replace("x-amz-meta-title", "x-amz-meta-other"),
        url + "&x-amz-meta-more=1",
        url + "&x-amz-meta-title=2",
    ):
        assert other != url
        assert await put(other) == 403, other
    assert await missing(storage)


@pytest.mark.slow
async def test_metadata_in_headers_beside_the_signed_is_refused(
    server: S3Server, storage: S3Storage
) -> None:
    url = (await signed(storage, grant(metadata=METADATA))).url
    assert await put(url, b"picture", "-H", "x-amz-meta-title: Another") == 403
    assert await put(url, b"picture", "-H", "x-amz-meta-more: 1") == 403
    assert await missing(storage)


@pytest.mark.slow
async def test_another_cache_control_in_the_url_is_refused(server: S3Server, storage: S3Storage) -> None:
    url = (await signed(storage, grant(cache_control="max-age=60"))).url
    assert await put(url.replace("max-age%3D60", "max-age%3D61")) == 403
    assert await missing(storage)


@pytest.mark.slow
async def test_another_length_than_the_signed_is_refused(server: S3Server, storage: S3Storage) -> None:
    url = (await signed(storage, grant(length=7))).url
    assert await put(url, b"pictures") == 403
    assert await put(url, b"") == 403
    assert await missing(storage)
    assert await put(url) == 200


@pytest.mark.slow
async def test_another_key_is_refused(server: S3Server, storage: S3Storage, place: Bucket) -> None:
    url = (await signed(storage, grant(path="/a/one"))).url
    for other in (
        url.replace("/a/one", "/a/two"),
        url.replace("/a/one", "/a/one/two"),
        url.replace("/a/one", "/a/b/../one2"),
        url.replace("/a/one", "/a/%6Fne2"),
        url.replace(place.name, f"{place.name}x"),
    ):
        assert other != url
        assert await put(other) in {400, 403}, other
    assert [stat.path async for stat in storage.list("/")] == []


@pytest.mark.slow
async def test_another_method_is_refused(server: S3Server, storage: S3Storage) -> None:
    url = (await signed(storage, grant())).url
    assert await put(url) == 200
    for method in ("GET", "DELETE"):
        assert (await curl("-X", method, "-H", "Content-Type: image/png", url)).status == 403
    got = (await signed(storage, grant("GET"))).url
    assert await put(got, b"evil") == 403
    assert (await curl("-X", "DELETE", got)).status == 403
    assert await stat_of(storage) == (7, "image/png")


@pytest.mark.slow
async def test_late_use_and_a_later_expiry_are_refused(server: S3Server, storage: S3Storage) -> None:
    wanted = grant(seconds=6)
    url = (await signed(storage, wanted)).url
    longer = re.sub(r"X-Amz-Expires=\d+&", "X-Amz-Expires=3600&", url)
    assert longer != url
    assert await put(longer) == 403
    await asyncio.sleep(wanted.expires + 1.5 - time.time())  # the clock of the server is what is asked
    assert await put(url) in {400, 403}
    assert await missing(storage)


@pytest.mark.slow
async def test_a_signature_of_other_keys_is_refused(
    server: S3Server, storage: S3Storage, place: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-servers-secret")
    others = Clients()
    url = (await signed(S3Storage(place, others), grant())).url
    await others.close()
    assert await put(url) == 403
    assert await put(url.partition("?")[0]) in {400, 403}


@pytest.mark.slow
async def test_what_a_presigned_put_cannot_enforce_is_left_to_the_gateway(
    s3_storage: str, storage: S3Storage
) -> None:
    for wanted in (
        grant(on_conflict="reject"),
        grant(once="a-name-of-22-characters"),
        grant("PATCH"),
        grant("GET", query=(("version", "1"),)),
    ):
        assert await storage.sign(wanted, expires=wanted.expires) is None


@pytest.mark.slow
async def test_clients_may_reach_the_storage_by_another_address_than_the_gateway(
    server: S3Server, place: Bucket, clients: Clients
) -> None:
    outside = Clients(endpoint=server.url.replace("127.0.0.1", "localhost"))
    url = (await signed(S3Storage(place, clients, outside), grant())).url
    await outside.close()
    assert url.startswith("http://localhost:")
    assert await put(url, b"picture", "-4") == 200
    # The address is part of what is signed.
    assert await put(url.replace("localhost", "127.0.0.1")) == 403


# -- GET and HEAD


@pytest.mark.slow
async def test_a_get_may_name_the_file_and_say_how_it_is_cached(
    server: S3Server, storage: S3Storage
) -> None:
    assert await put((await signed(storage, grant())).url) == 200
    named = grant("GET", filename="Söme picture.png", cache_control="private, max-age=60")
    url = (await signed(storage, named)).url
    answer = await curl("-i", url)
    assert answer.status == 200
    assert answer.body.endswith("picture")
    assert "filename*=UTF-8''S%C3%B6me%20picture.png" in answer.body
    assert "max-age=60" in answer.body
    assert (await curl(url.replace("S%25C3%25B6me", "Evil"))).status == 403
    assert (await curl("-r", "2-3", url)).body == "ct"


@pytest.mark.slow
async def test_a_head_is_signed_for_head_alone(server: S3Server, storage: S3Storage) -> None:
    assert await put((await signed(storage, grant())).url) == 200
    url = (await signed(storage, grant("HEAD"))).url
    assert (await curl("-I", url)).status == 200
    assert (await curl(url)).status == 403


# -- POST: a form, as browsers send it


async def post(found: PresignedRequest, file: Path, *more: str, **changed: str) -> int:
    fields = {**found.fields, **changed}
    sent = [one for name, value in fields.items() for one in ("-F", f"{name}={value}")]
    answer = await curl("-H", "Expect:", *sent, *more, "-F", f"file=@{file}", found.url)
    return answer.status


@pytest.mark.slow
async def test_a_form_brings_a_file_with_its_metadata(
    s3_storage: str, storage: S3Storage, place: Bucket, small_file: Path
) -> None:
    wanted = grant("POST", metadata=METADATA, max_length=100, cache_control="max-age=60")
    found = await signed(storage, wanted)
    assert await post(found, small_file) in {200, 201, 204}
    stat = await storage.stat(PATH)
    assert (stat.bytes, stat.mime, stat.metadata) == (7, "image/png", METADATA)


@pytest.mark.slow
async def test_a_form_with_anything_else_is_refused(
    s3_storage: str, storage: S3Storage, small_file: Path, tmp_path: Path
) -> None:
    found = await signed(storage, grant("POST", metadata=METADATA, max_length=7))
    (tmp_path / "large").write_bytes(b"pictures")
    assert await post(found, tmp_path / "large") in {400, 403}
    for name, value in {
        "Content-Type": "text/html",
        "key": "a prefix/elsewhere",
        "x-amz-meta-title": "Another",
        "policy": found.fields["policy"][:-8] + "AAAAAAA=",
        "x-amz-signature": "0" * 64,
        "x-amz-date": "20200101T000000Z",
    }.items():
        assert await post(found, small_file, **{name: value}) in {400, 403}, name
    assert [stat.path async for stat in storage.list("/")] == []


@pytest.mark.slow
async def test_a_form_for_an_exact_size_takes_no_other(
    s3_storage: str, storage: S3Storage, small_file: Path, tmp_path: Path
) -> None:
    found = await signed(storage, grant("POST", length=7))
    for size in (6, 8):
        (tmp_path / "other").write_bytes(b"x" * size)
        assert await post(found, tmp_path / "other") in {400, 403}
    assert await post(found, small_file) in {200, 201, 204}


@pytest.mark.slow
async def test_a_late_form_is_refused(s3_storage: str, storage: S3Storage, small_file: Path) -> None:
    wanted = grant("POST", seconds=6)
    found = await signed(storage, wanted)
    await asyncio.sleep(wanted.expires + 1.5 - time.time())  # as above
    assert await post(found, small_file) in {400, 403}
    assert await missing(storage)


# -- without a server


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDSOMEBODY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-mine")


async def test_a_url_never_outlives_temporary_credentials(
    no_server: None, monkeypatch: pytest.MonkeyPatch, storage: S3Storage
) -> None:
    async def soon(_client: object) -> float:
        return 30.5

    monkeypatch.setattr(presign, "expires_in", soon)
    assert "X-Amz-Expires=30&" in (await signed(storage, grant(seconds=900))).url
    (seconds,) = parse_qs(urlsplit((await signed(storage, grant(seconds=9.9))).url).query)[
        "X-Amz-Expires"
    ]
    assert 0 < int(seconds) <= 9


async def test_a_url_that_would_be_over_at_once_is_not_signed(
    no_server: None, storage: S3Storage
) -> None:
    with pytest.raises(ValueError, match="at least a second"):
        await signed(storage, grant(seconds=0))


async def test_a_form_whose_path_s3_would_rewrite_is_not_signed(
    no_server: None, storage: S3Storage
) -> None:
    with pytest.raises(ValueError, match="another name"):
        await signed(storage, grant("POST", "/up/${filename}"))


async def test_the_gateways_own_uploads_keep_their_metadata_in_headers(
    no_server: None, storage: S3Storage, clients: Clients
) -> None:
    await signed(storage, grant(metadata=METADATA))
    client = await clients.client()
    said = {"Bucket": "b", "Key": "k", "Metadata": {"title": "x"}}
    url = await client.generate_presigned_url("put_object", Params=said)
    assert "x-amz-meta-title" in parse_qs(urlsplit(url).query)["X-Amz-SignedHeaders"][0]


async def test_without_credentials_nothing_is_signed(storage: S3Storage) -> None:
    with pytest.raises(Refusal) as refused:
        await signed(storage, grant())
    assert refused.value.code == "storage_unavailable"
