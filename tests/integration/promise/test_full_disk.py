"""A full disk, a real one of a few megabytes: clear answers, nothing left, and it goes on after."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.conftest import StartGateway, StartProcess
from tests.support.harness import (
    files_below,
    get,
    leftovers,
    put,
    raw_connection,
    request_head,
    wait_settled,
    wait_until,
    write_plugin,
)
from tests.support.small_disk import MIB, fill, free, mounted_disk

pytestmark = pytest.mark.slow

PAGE = 4096


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted_disk(tmp_path / "disk") as folder:
        yield folder


async def chunks(total: int) -> AsyncIterator[bytes]:
    block = b"z" * 65536
    for _ in range(total // len(block)):
        yield b"%x\r\n%s\r\n" % (len(block), block)
    yield b"0\r\n\r\n"


async def put_chunked(gateway: object, target: str, total: int) -> int:
    async with raw_connection(gateway) as connection:  # type: ignore[arg-type]
        await connection.send(request_head("PUT", target, "Transfer-Encoding: chunked"))
        try:
            async for chunk in chunks(total):
                await connection.send(chunk)
        except ConnectionError:
            pass
        return (await connection.answer()).status


async def test_a_declared_size_that_does_not_fit_is_refused_before_the_body(
    start_gateway: StartGateway, disk: Path
) -> None:
    gateway = await start_gateway(directory=str(disk), min_free_bytes=str(4 * MIB))
    async with raw_connection(gateway) as connection:
        lines = (f"Content-Length: {21 * MIB}", "Expect: 100-continue")
        await connection.send(request_head("PUT", "/upload/big", *lines))
        first = await connection.line()
    assert first == b"HTTP/1.1 507 Insufficient Storage\r\n"
    assert (await put(gateway, "/upload/fits", b"x" * MIB)).status == 201


async def test_what_is_promised_to_one_upload_is_not_promised_to_another(
    start_gateway: StartGateway, disk: Path
) -> None:
    gateway = await start_gateway(directory=str(disk), min_free_bytes=str(4 * MIB))
    async with raw_connection(gateway) as first:
        lines = (f"Content-Length: {12 * MIB}", "Expect: 100-continue")
        await first.send(request_head("PUT", "/upload/one", *lines))
        assert b"100" in await first.line()
        assert (await put(gateway, "/upload/two", b"x" * 10 * MIB)).status == 507
        await first.send(b"x" * 12 * MIB)
        assert (await first.answer()).status == 201
    assert leftovers(disk) == []


@pytest.mark.parametrize("watermark", [4 * MIB, 0])
async def test_an_undeclared_body_that_fills_the_disk_gets_507_and_leaves_nothing(
    start_gateway: StartGateway, disk: Path, watermark: int
) -> None:
    gateway = await start_gateway(directory=str(disk), min_free_bytes=str(watermark))
    before = free(disk)
    assert await put_chunked(gateway, "/upload/endless", 64 * MIB) == 507
    assert leftovers(disk) == []
    assert not (disk / "upload").exists()
    assert free(disk) > before - MIB
    assert await put_chunked(gateway, "/upload/small", MIB) == 201


async def test_readiness_follows_the_watermark(start_gateway: StartGateway, disk: Path) -> None:
    gateway = await start_gateway(directory=str(disk), min_free_bytes=str(4 * MIB))
    filler = fill(disk, 2 * MIB)
    answer = await get(gateway, "/-/ready")
    assert (answer.status, answer.json["checks"]["disk"]) == (503, False)
    filler.unlink()

    async def ready() -> bool:
        return (await get(gateway, "/-/ready")).status == 200

    await wait_until(ready)  # an answer is kept for a second


async def test_without_free_inodes_uploads_get_507_and_the_gateway_is_not_ready(
    start_gateway: StartGateway, disk: Path
) -> None:
    gateway = await start_gateway(directory=str(disk), min_free_bytes="0")
    fillers = [disk / f"filler{number}" for number in range(os.statvfs(disk).f_favail)]
    for filler in fillers:
        filler.touch()
    for body in (b"small", b"x" * MIB):
        answer = await put(gateway, "/upload/a", body)
        assert (answer.status, answer.json["error"]) == (507, "no_space")
        assert "inode" in answer.json["message"]
    assert (await get(gateway, "/-/ready")).json["checks"]["disk"] is False
    assert leftovers(disk) == []
    for filler in fillers:
        filler.unlink()
    assert (await put(gateway, "/upload/a")).status == 201


async def test_a_journal_without_space_means_503_and_nothing_stored(
    gateway_process: StartProcess, disk: Path, tmp_path: Path
) -> None:
    log = tmp_path / "handled"
    folder = write_plugin(
        tmp_path / "plugins",
        "name: note\nevent: APIGW.OnFileUploaded\nscript: |\n"
        "  async def note(event, handle):\n"
        f"      with open({str(log)!r}, 'a') as log:\n"
        "          log.write(event['path'] + '\\n')\n",
    )
    flags = ("--plugins", str(folder), "--min-free-bytes", "0")
    data = disk / "data"
    gateway = gateway_process(*flags, directory=data)
    statuses: dict[str, int] = {}
    for pages in range(24):
        filler = fill(disk, pages * PAGE)
        name = f"f{pages}"
        statuses[name] = (await put(gateway, f"/upload/{name}", b"x" * 3000)).status
        filler.unlink()
        assert leftovers(data) == []
    print(statuses)
    assert set(statuses.values()) <= {201, 503, 507}
    assert 503 in statuses.values(), "the journal never ran out of space"

    assert (await put(gateway, "/upload/after", b"x")).status == 201
    await wait_settled(gateway)
    gateway.kill()
    gateway = gateway_process(*flags, directory=data)
    await wait_settled(gateway)
    stored = {f"/upload/{name}" for name in files_below(data / "upload")}
    acknowledged = {f"/upload/{name}" for name, status in statuses.items() if status == 201}
    assert stored == acknowledged | {"/upload/after"}
    assert set(log.read_text().split()) == stored
