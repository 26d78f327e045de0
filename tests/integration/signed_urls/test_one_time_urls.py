"""One-time URLs end to end: one upload each, whatever dies, however many processes there are."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from pathlib import Path

import pytest

from gateway.auth.installation import read_installation_keys
from gateway.domain.grant import Grant
from gateway.signing.urls import UrlSigner
from tests.conftest import StartGateway, StartProcess
from tests.integration.signed_urls.test_signed_uploads import code, sign
from tests.support.harness import (
    curl,
    files_below,
    leftovers,
    put,
    raw_connection,
    request_head,
)
from tests.support.promise import status_of

pytestmark = pytest.mark.both_paths

NOTHING = ("mid body", "after file sync", "after url used up", "after journal commit")
EVERYTHING = ("after link", "after rename", "after directory sync", "before answer")


async def test_a_stored_upload_uses_it_up_and_the_next_one_sends_no_byte(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    url = str(await gateway.resources.plugins.services.sign_url("PUT", "/upload/x", once=True))
    (tmp_path / "big").write_bytes(b"x" * 3_000_000)
    first = await curl("-T", str(tmp_path / "big"), url)
    asking = ("--expect100-timeout", "30", "-H", "Expect: 100-continue")
    second = await curl(*asking, "-T", str(tmp_path / "big"), url)
    assert (first.status, second.status, second.uploaded) == (201, 403, 0)
    assert '"used_up"' in second.body


async def test_a_failed_attempt_does_not_use_it_up(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway(idle_timeout="0.2")
    target = await sign(gateway, "PUT", "/upload/x", once=True, content_type="a/b", max_length=100_000)
    right = "Content-Type: a/b"
    assert (await put(gateway, target, b"x")).status == 403
    assert (await put(gateway, target, b"x" * 100_001, right)).status == 403
    assert (
        await put(gateway, target, b"x", right, "Content-MD5: AAAAAAAAAAAAAAAAAAAAAA==")
    ).status == 400
    async with raw_connection(gateway) as connection:
        await connection.send(
            request_head("PUT", target, right, "Content-Length: 70000") + b"x" * 69_999
        )
        assert (await connection.answer()).status == 408
    async with raw_connection(gateway) as connection:
        await connection.send(
            request_head("PUT", target, right, "Content-Length: 70000") + b"x" * 69_999
        )
        connection.reset()
    assert (await put(gateway, target, b"x", right)).status == 201
    answer = await put(gateway, target, b"x", right)
    assert (answer.status, code(answer)) == (403, "used_up")
    assert os.listdir(tmp_path / "data/.gateway/once")


async def test_of_two_that_are_on_their_way_at_once_one_wins(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    target = await sign(gateway, "PUT", "/upload/x", once=True)
    bodies = [b"1" * 200_000, b"2" * 200_000]
    async with raw_connection(gateway) as one, raw_connection(gateway) as other:
        for connection, body in ((one, bodies[0]), (other, bodies[1])):
            expects = request_head("PUT", target, "Content-Length: 200000", "Expect: 100-continue")
            await connection.send(expects)
            assert b"100" in await connection.line()
            await connection.line()
            await connection.send(body[:-1])
        await one.send(bodies[0][-1:])
        first = await one.answer()
        await other.send(bodies[1][-1:])
        second = await other.answer()
    assert (first.status, second.status, code(second)) == (201, 403, "used_up")
    assert files_below(tmp_path / "data/upload") == {"x": bodies[0]}
    assert leftovers(tmp_path / "data") == []


async def test_other_urls_for_the_same_path_stay_good(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    targets = [await sign(gateway, "PUT", "/upload/x", once=True) for _ in range(2)]
    assert [(await put(gateway, target)).status for target in targets] == [201, 200]


# -- processes


def signed(tmp_path: Path, path: str = "/upload/x", fresh: bool = False) -> str:
    """Sign outside the gateway, as `gateway sign` does, once it has made its key."""
    keys = read_installation_keys(tmp_path / "data/.gateway/installation.key")
    terms = {"on_conflict": "reject"} if fresh else {}
    return UrlSigner(keys).target(
        Grant("PUT", path, int(time.time()) + 600, once="n" * 22, **terms)  # type: ignore[arg-type]  # see Grant
    )


@pytest.mark.slow
@pytest.mark.parametrize("point", [*NOTHING, *EVERYTHING])
async def test_a_kill_leaves_file_and_used_up_url_or_neither(
    gateway_process: StartProcess, tmp_path: Path, point: str
) -> None:
    with gateway_process() as gateway:
        pass
    target, body = signed(tmp_path, fresh=point == "after link"), b"b" * 200_000
    dying = gateway_process(die_at=point)
    assert await status_of(dying, target, body) is None
    assert dying.wait() == -9

    gateway = gateway_process()
    assert leftovers(tmp_path / "data") == []
    if point in NOTHING:
        assert files_below(tmp_path / "data/upload") == {}
        assert os.listdir(tmp_path / "data/.gateway/once") == []
        assert await status_of(gateway, target, body) == 201
    assert files_below(tmp_path / "data/upload") == {"x": body}
    assert os.listdir(tmp_path / "data/.gateway/once") == ["n" * 22]
    answer = await put(gateway, target, body)
    assert (answer.status, code(answer)) == (403, "used_up")


@pytest.mark.slow
async def test_it_is_used_up_for_all_processes_and_over_a_restart(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    with gateway_process("--processes", "2") as gateway:
        target = signed(tmp_path)
        bodies = [b"%d" % number * 70_000 for number in range(24)]
        statuses = await asyncio.gather(*(status_of(gateway, target, body) for body in bodies))
        assert Counter(statuses) == {201: 1, 403: 23}
        assert files_below(tmp_path / "data/upload") == {"x": bodies[statuses.index(201)]}
        gateway.terminate()
    gateway = gateway_process("--processes", "3")
    assert [await status_of(gateway, target, b"again") for _ in range(6)] == [403] * 6


# -- in a bucket


@pytest.mark.slow
async def test_in_a_bucket_too_it_is_good_for_one_stored_upload(
    gateway_process: StartProcess, tmp_path: Path, s3_storage: str
) -> None:
    gateway = gateway_process("--storage", s3_storage)
    target = signed(tmp_path)
    bad = await put(gateway, target, b"x", "Content-MD5: AAAAAAAAAAAAAAAAAAAAAA==")
    assert (bad.status, code(bad)) == (400, "digest_mismatch")
    answers = await asyncio.gather(*(put(gateway, target, b"%d" % number) for number in range(8)))
    assert Counter(answer.status for answer in answers) == {201: 1, 403: 7}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "status"),
    [("after journal commit", 201), ("after url used up", 403), ("after complete", 403)],
)
async def test_in_a_bucket_a_kill_never_lets_it_be_used_twice(
    gateway_process: StartProcess, tmp_path: Path, s3_storage: str, point: str, status: int
) -> None:
    flags = ("--storage", s3_storage)
    with gateway_process(*flags) as gateway:
        pass
    target = signed(tmp_path)
    dying = gateway_process(*flags, die_at=point)
    assert await status_of(dying, target, b"body") is None
    assert dying.wait() == -9
    gateway = gateway_process(*flags)
    assert await status_of(gateway, target, b"body") == status
    assert await status_of(gateway, target, b"body") == 403
