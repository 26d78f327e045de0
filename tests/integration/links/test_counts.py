"""Limits of drop links: exact with many uploads at once, in two processes, and over `kill -9`."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import StartProcess
from tests.support.harness import (
    GatewayProcess,
    RawResponse,
    files_below,
    raw_connection,
    request_head,
    wait_until,
)
from tests.support.links import AS_OPERATOR, OPERATOR, TOKENS, MadeLink, asked, make_link

pytestmark = pytest.mark.slow

FLAGS = ("--processes", "2", "--auth", "token", "--tokens", TOKENS[0], "--deletes")


async def send(
    gateway: GatewayProcess, link: MadeLink, name: str, body: bytes, *lines: str
) -> RawResponse:
    head = (f"Authorization: Bearer {link.secret}", f"Content-Length: {len(body)}", *lines)
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", f"/upload/in/{name}", *head) + body)
        return await connection.answer()


async def test_32_uploads_at_once_into_a_link_of_10_files_store_10_for_ever(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    gateway = await asyncio.to_thread(gateway_process, *FLAGS)
    link = await make_link(gateway.url, "drop", "/upload/in/", max_files=10)
    answers = await asyncio.gather(*(send(gateway, link, "same.bin", b"x" * 70_000) for _ in range(32)))
    assert Counter(answer.status for answer in answers) == {201: 10, 507: 22}
    told = next(answer.json for answer in answers if answer.status == 507)
    assert told["error"] == "quota_exceeded"
    assert told["message"] == "this link is full: 10 of 10 files have been sent"
    assert len(files_below(tmp_path / "data" / "upload")) == 10
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("DELETE", "/upload/in/same.bin", f"X-Auth-Token: {OPERATOR}"))
        assert (await connection.answer()).status == 204
    assert (await send(gateway, link, "more.bin", b"x")).status == 507
    row = await link.row()
    assert (row["files"], row["bytes"]) == (10, 700_000)


async def has_bytes(link: MadeLink, count: int) -> bool:
    """Tell whether so many bytes are stored through a link, or reserved for uploads on their way."""
    return bool((await link.row())["bytes"] == count)


async def test_bytes_that_do_not_fit_are_refused_before_the_first_and_freed_where_they_do_not_come(
    gateway_process: StartProcess,
) -> None:
    gateway = await asyncio.to_thread(gateway_process, *FLAGS)
    link = await make_link(gateway.url, "drop", "/upload/in/", max_bytes=100_000)
    async with raw_connection(gateway) as connection:
        await connection.send(
            request_head(
                "PUT", "/upload/in/a", f"Authorization: Bearer {link.secret}",
                "Content-Length: 100001", "Expect: 100-continue",
            )
        )  # fmt: skip
        head = await connection.head()  # no 100 Continue
        assert head.status == 507
    with contextlib.suppress(ConnectionError):
        async with raw_connection(gateway) as connection:
            await connection.send(
                request_head(
                    "PUT",
                    "/upload/in/b",
                    f"Authorization: Bearer {link.secret}",
                    "Content-Length: 90000",
                )
                + b"x" * 40_000
            )
            await wait_until(lambda: has_bytes(link, 90_000))
            connection.reset()
    await wait_until(lambda: has_bytes(link, 0))
    chunk = b"30d40\r\n" + b"x" * 200_000 + b"\r\n0\r\n\r\n"
    async with raw_connection(gateway) as connection:
        await connection.send(
            request_head(
                "PUT",
                "/upload/in/c",
                f"Authorization: Bearer {link.secret}",
                "Transfer-Encoding: chunked",
            )
            + chunk
        )
        assert (await connection.answer()).status == 507
    assert (await send(gateway, link, "d", b"x" * 100_000)).status == 201
    assert (await send(gateway, link, "e", b"x")).status == 507
    row = await link.row()
    assert (row["files"], row["bytes"]) == (1, 100_000)


@pytest.mark.parametrize(
    "point",
    ["after quota reserved", "mid body", "after rename", "after journal commit", "before quota settled"],
)
async def test_after_a_kill_a_link_counts_what_is_stored(
    gateway_process: StartProcess, tmp_path: Path, point: str
) -> None:
    flags = FLAGS[2:]
    gateway = await asyncio.to_thread(gateway_process, *flags)
    link = await make_link(gateway.url, "drop", "/upload/in/", max_files=6)
    await asyncio.to_thread(gateway.kill)
    gateway = await asyncio.to_thread(gateway_process, *flags, die_at=point)
    sending = (send(gateway, link, f"{number}.bin", b"x" * 90_000) for number in range(4))
    answers = await asyncio.gather(*sending, return_exceptions=True)
    stored = sum(isinstance(answer, RawResponse) and answer.status == 201 for answer in answers)
    await asyncio.to_thread(gateway.kill)
    gateway = await asyncio.to_thread(gateway_process, *flags)
    here = MadeLink(gateway.url, link.told)
    there = len(files_below(tmp_path / "data" / "upload"))
    assert there >= stored
    assert (await here.row())["files"] == there
    left = 6 - there
    more = [await send(gateway, here, f"more-{number}.bin", b"x") for number in range(left + 1)]
    assert [answer.status for answer in more] == [201] * left + [507]


async def test_a_cancelled_partial_upload_counts_no_more(gateway_process: StartProcess) -> None:
    gateway = await asyncio.to_thread(gateway_process, *FLAGS)
    link = await make_link(gateway.url, "drop", "/upload/in/", max_files=1)
    key = "resume=0123456789abcdef0123"
    piece = "Content-Range: bytes 0-1/4"
    assert (await send(gateway, link, f"a?{key}", b"ab", piece)).status == 204
    assert (await send(gateway, link, "b", b"x")).status == 507
    answer = await asked("GET", f"{gateway.url}/-/links", AS_OPERATOR)
    assert [row["files"] for row in answer["links"]] == [1]
    async with raw_connection(gateway) as connection:
        line = f"Authorization: Bearer {link.secret}"
        await connection.send(request_head("DELETE", f"/upload/in/a?{key}", line))
        assert (await connection.answer()).status == 204
    assert (await send(gateway, link, "b", b"x")).status == 201
