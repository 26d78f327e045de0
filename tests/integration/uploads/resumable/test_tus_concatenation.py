"""tus 1.0.0, concatenation: files that are made of parts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gateway.endpoints.uploads.resumable.concatenation import MAX_CONCAT_PARTS
from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import handlers_done, raw_connection, request_head
from tests.support.recorders import EventRecorder, write_handler
from tests.support.tus import (
    ALICE,
    BOB,
    TOKENS,
    VERSION,
    create,
    kept,
    metadata,
    offset_of,
    patch,
    store_part,
    stored,
    target_of,
    tus,
)


def final(*urls: str) -> str:
    return f"Upload-Concat: final;{' '.join(urls)}"


async def parts(gateway: Gateway, *bodies: bytes) -> list[str]:
    return [await store_part(gateway, body) for body in bodies]


async def test_a_file_is_made_of_its_parts_in_order(start_gateway: StartGateway, data: Path) -> None:
    gateway = await start_gateway()
    first, second, third = await parts(gateway, b"hello", b" ", b"world")
    assert stored(data) == {}
    answer = await tus(gateway, "POST", "/upload/a.txt", final(first, second, third))
    assert (answer.status, answer.headers["Upload-Offset"]) == (201, "11")
    assert answer.json["path"] == "/upload/a.txt"
    assert stored(data) == {"upload/a.txt": b"hello world"}
    assert kept(data) == {}


@pytest.mark.parametrize("form", ["absolute", "relative", "path"])
async def test_parts_are_named_by_any_form_of_their_url(
    start_gateway: StartGateway, data: Path, form: str
) -> None:
    gateway = await start_gateway(public_url="https://files.example")
    urls = await parts(gateway, b"hello ", b"world")
    if form == "relative":
        urls = [target_of(url) for url in urls]
    elif form == "path":
        urls = [urlsplit(url).path for url in urls]
    answer = await tus(gateway, "POST", "/upload/a", final(*urls))
    assert answer.status == 201, answer
    assert stored(data) == {"upload/a": b"hello world"}


async def test_a_path_alone_is_enough_only_for_a_name_that_the_gateway_gave(
    start_gateway: StartGateway, data: Path
) -> None:
    gateway = await start_gateway()
    name = "0f8fad5b-d9cb-469f-a165-70867728950e"
    for target, line in ((f"/upload/{name}", "X-A: b"), ("/upload/", metadata(filename=name))):
        await create(gateway, target, "Upload-Concat: partial", line, length=1, body=b"x")
    answer = await tus(gateway, "POST", "/upload/a", final(f"/upload/{name}"))
    assert answer.status == 404
    url = await create(gateway, "/upload/p", "Upload-Concat: partial", length=1, body=b"x")
    answer = await tus(gateway, "POST", "/upload/a", final(urlsplit(url).path))
    assert (answer.status, answer.json["error"]) == (400, "bad_request")
    # The name of a file that is no part is no part.
    url = await create(gateway, "/upload/", length=2)
    answer = await tus(gateway, "POST", "/upload/a", final(urlsplit(url).path))
    assert answer.status == 404
    assert stored(data) == {}


async def test_a_part_may_be_there_many_times(start_gateway: StartGateway, data: Path) -> None:
    gateway = await start_gateway()
    first, second = await parts(gateway, b"ab", b"c")
    answer = await tus(gateway, "POST", "/upload/a", final(*[first, second, first] * 20))
    assert answer.status == 201
    assert stored(data) == {"upload/a": b"abcab" * 20}
    assert kept(data) == {}


async def test_an_empty_part_counts(start_gateway: StartGateway, data: Path) -> None:
    gateway = await start_gateway()
    empty = await create(gateway, "/upload/", "Upload-Concat: partial", length=0)
    [part] = await parts(gateway, b"x")
    assert (await tus(gateway, "POST", "/upload/a", final(empty, part, empty))).status == 201
    assert (await tus(gateway, "POST", "/upload/b", final(empty))).status == 404
    empty = await create(gateway, "/upload/", "Upload-Concat: partial", length=0)
    assert (await tus(gateway, "POST", "/upload/b", final(empty))).status == 201
    assert stored(data) == {"upload/a": b"x", "upload/b": b""}


async def test_parts_must_be_whole(start_gateway: StartGateway, data: Path) -> None:
    gateway = await start_gateway()
    [whole] = await parts(gateway, b"hello ")
    rest = await create(gateway, "/upload/", "Upload-Concat: partial", length=5)
    deferred = await create(gateway, "/upload/", "Upload-Concat: partial", "Upload-Defer-Length: 1")
    await patch(gateway, rest, 0, b"wor")
    await patch(gateway, deferred, 0, b"x")
    for part in (rest, deferred):
        answer = await tus(gateway, "POST", "/upload/a", final(whole, part))
        assert (answer.status, answer.json["error"]) == (400, "bad_request")
        assert "part 2 is not whole" in answer.json["message"]
    await patch(gateway, rest, 3, b"ld")
    assert (await tus(gateway, "POST", "/upload/a", final(whole, rest))).status == 201
    assert stored(data) == {"upload/a": b"hello world"}
    await patch(gateway, deferred, 1, b"", "Upload-Length: 1")
    assert (await tus(gateway, "POST", "/upload/b", final(deferred))).status == 201


async def test_what_is_no_part_is_none_of_a_file(start_gateway: StartGateway, data: Path) -> None:
    gateway = await start_gateway()
    [part, other] = await parts(gateway, b"x", b"y")
    ordinary = await create(gateway, "/upload/o", length=2, body=b"o")
    complete = await create(gateway, "/upload/c", length=1, body=b"c")
    made = (await tus(gateway, "POST", "/upload/m", final(other))).headers["Location"]
    for url, status in ((ordinary, 400), (complete, 400), (made, 400), (other, 404), (part[:-2], 404)):
        answer = await tus(gateway, "POST", "/upload/a", final(part, url))
        assert answer.status == status, url
    assert "upload/a" not in stored(data)
    assert await offset_of(gateway, part) == 1


async def test_parts_of_another_principal_are_not_found(start_gateway: StartGateway, data: Path) -> None:
    gateway = await start_gateway(**TOKENS)
    url = await store_part(gateway, b"x", ALICE)
    for form in (url, urlsplit(url).path):
        assert (await tus(gateway, "POST", "/upload/a", final(form))).status == 401
        assert (await tus(gateway, "POST", "/upload/a", final(form), BOB)).status == 404
    assert stored(data) == {}
    assert (await tus(gateway, "POST", "/upload/a", final(url), ALICE)).status == 201


async def test_the_number_of_parts_is_bounded(start_gateway: StartGateway, data: Path) -> None:
    gateway = await start_gateway(max_header_bytes="200000")
    [part] = await parts(gateway, b"x")
    short = f"?{urlsplit(part).query}"
    most = [short] * MAX_CONCAT_PARTS
    assert (await tus(gateway, "POST", "/upload/a", final(*most, short))).status == 400
    assert (await tus(gateway, "POST", "/upload/a", final(*most))).status == 201
    assert stored(data) == {"upload/a": b"x" * MAX_CONCAT_PARTS}


async def test_a_header_that_is_too_long_is_refused(start_gateway: StartGateway, data: Path) -> None:
    gateway = await start_gateway()
    [part] = await parts(gateway, b"x")
    async with raw_connection(gateway) as connection:
        lines = (VERSION, final(*[part] * 2000))
        await connection.send(request_head("POST", "/upload/a", *lines))
        assert (await connection.answer()).status == 431
    assert stored(data) == {}


async def test_the_sum_of_all_parts_counts_against_the_greatest_size(
    start_gateway: StartGateway, data: Path
) -> None:
    gateway = await start_gateway(max_bytes="10")
    [part] = await parts(gateway, b"hello")
    answer = await tus(gateway, "POST", "/upload/a", final(part, part, part))
    assert (answer.status, answer.headers["Tus-Max-Size"]) == (413, "10")
    assert (await tus(gateway, "POST", "/upload/a", final(part, part))).status == 201
    assert stored(data) == {"upload/a": b"hellohello"}


async def test_a_refusal_leaves_the_parts_for_another_try(
    start_gateway: StartGateway, data: Path
) -> None:
    gateway = await start_gateway(on_conflict="reject")
    first, second = await parts(gateway, b"a", b"b")
    assert (await tus(gateway, "POST", "/upload/a", "Upload-Length: 1", body=b"x")).status == 201
    before = kept(data)
    assert (await tus(gateway, "POST", "/upload/a", final(first, second))).status == 409
    assert kept(data).keys() == before.keys()
    assert (await tus(gateway, "POST", "/upload/b", final(first, second))).status == 201
    assert stored(data) == {"upload/a": b"x", "upload/b": b"ab"}
    assert kept(data) == {}


async def test_a_part_that_is_gone_is_gone(start_gateway: StartGateway, data: Path) -> None:
    gateway = await start_gateway()
    first, second = await parts(gateway, b"a", b"b")
    assert (await tus(gateway, "DELETE", second)).status == 204
    assert (await tus(gateway, "POST", "/upload/a", final(first, second))).status == 404
    assert await offset_of(gateway, first) == 1
    assert stored(data) == {}


async def test_two_requests_for_the_same_parts_do_not_wait_for_each_other_for_ever(
    start_gateway: StartGateway, data: Path
) -> None:
    gateway = await start_gateway()
    urls = await parts(gateway, *[bytes([65 + number]) for number in range(10)])
    answers = await asyncio.gather(
        tus(gateway, "POST", "/upload/a", final(*urls)),
        tus(gateway, "POST", "/upload/b", final(*reversed(urls))),
    )
    statuses = sorted(answer.status for answer in answers)
    assert statuses[0] == 201
    assert statuses[1] in {201, 404, 423}
    expected = {"upload/a": b"ABCDEFGHIJ", "upload/b": b"JIHGFEDCBA"}
    files = stored(data)
    assert len(files) == statuses.count(201)
    assert all(expected[path] == body for path, body in files.items())


async def test_handlers_decide_about_parts_too_and_see_one_stored_file(
    start_gateway: StartGateway, tmp_path: Path, data: Path, events: EventRecorder
) -> None:
    folder = tmp_path / "plugins"
    events.write_handler(folder, "APIGW.OnFileUploading", "before")
    plugins = events.write_handler(folder, "APIGW.OnFileUploaded", "after")
    gateway = await start_gateway(plugins=[str(folder)])
    assert plugins
    urls = await parts(gateway, b"hello ", b"world")
    for length in (6, 5):
        name, event = await events.next_event()
        assert (name, event["concat"], event["content_length"]) == ("before", "partial", length)
    answer = await tus(gateway, "POST", "/upload/a", final(*urls))
    name, event = await events.next_event()
    assert (name, event["concat"], event["content_length"]) == ("before", None, 11)
    name, event = await events.next_event()
    assert (name, event["path"], event["bytes"]) == ("after", "/upload/a", 11)
    await handlers_done(gateway, answer.json["upload_id"])
    assert events.is_empty()


async def test_a_handler_can_refuse_parts(
    start_gateway: StartGateway, tmp_path: Path, data: Path
) -> None:
    plugins = write_handler(
        tmp_path / "plugins",
        """
        if event["concat"] == "partial":
            await handle.terminate(code=402, output="no parts")
        """,
    )
    gateway = await start_gateway(plugins=plugins)
    answer = await tus(gateway, "POST", "/upload/", "Upload-Concat: partial", "Upload-Length: 1")
    assert (answer.status, answer.body) == (402, b"no parts")
    assert kept(data) == {}


async def test_the_status_of_parts_and_of_their_file_says_what_they_are(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway()
    urls = await parts(gateway, b"hello ", b"world")
    answer = await tus(gateway, "HEAD", urls[0])
    assert answer.headers["Upload-Concat"] == "partial"
    assert answer.headers["Upload-Offset"] == answer.headers["Upload-Length"] == "6"
    assert answer.headers["Upload-Expires"]
    line, tells = final(*urls), metadata(filename="a.txt")
    answer = await tus(gateway, "POST", "/upload/", line, tells)
    answer = await tus(gateway, "HEAD", answer.headers["Location"])
    assert answer.headers["Upload-Concat"] == line.partition(": ")[2]
    assert answer.headers["Upload-Metadata"] == tells.partition(": ")[2]
    assert answer.headers["Upload-Offset"] == answer.headers["Upload-Length"] == "11"


async def test_nothing_is_appended_to_a_file_made_of_parts(
    start_gateway: StartGateway, data: Path
) -> None:
    gateway = await start_gateway()
    urls = await parts(gateway, b"x")
    url = (await tus(gateway, "POST", "/upload/a", final(*urls))).headers["Location"]
    for offset in (0, 1):
        answer = await patch(gateway, url, offset, b"y")
        assert (answer.status, answer.json["error"]) == (403, "forbidden")
    assert stored(data) == {"upload/a": b"x"}
