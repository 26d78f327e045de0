"""The gateway in front of a real nginx, asked by the real curl: what each does well still works."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import StartGateway, StartProcess
from tests.integration.uploads.test_load import MIB, Peak, two_gib
from tests.support.harness import curl, get, raw_connection, request_head, write_plugin
from tests.support.routing.nginx import Nginx, nginx
from tests.support.routing.proxying import lines_of

pytestmark = [pytest.mark.slow, pytest.mark.both_paths]

__all__ = ["two_gib"]


ROUTE = """
- upstreams: [{authority}]
  proxy: {{path: '/web/{{rest:path}}', scheme: 'http:', authorization: {{auth: none}}}}
  target: {{path: '/{{rest:path}}', scheme: 'http:'}}
  limits: {{connect: 2, idle: {idle}}}
"""


def routed(folder: Path, server: Nginx, idle: float = 20) -> Path:
    return write_plugin(folder / "plugins", ROUTE.format(authority=server.authority, idle=idle))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Nginx]:
    with nginx(tmp_path / "nginx") as running:
        (running.files / "hello.txt").write_text("hello, world\n" * 100)
        yield running


@pytest.fixture
async def url(start_gateway: StartGateway, tmp_path: Path, server: Nginx) -> str:
    gateway = await start_gateway(auth="none", plugins=[str(routed(tmp_path, server))])
    return f"{gateway.url}/web"


async def test_a_file_arrives_whole_with_its_metadata(url: str) -> None:
    result = await curl("-i", f"{url}/hello.txt")
    assert result.status == 200
    fields, _, body = result.body.partition("\r\n\r\n")
    assert body == "hello, world\n" * 100
    assert lines_of(fields.encode(), "Content-Length") == ["1300"]
    for name in ("Last-Modified", "ETag", "Accept-Ranges", "Via", "Date"):
        assert len(lines_of(fields.encode(), name)) == 1, name


async def test_ranges_pass_through(url: str) -> None:
    result = await curl("-i", "-r", "7-11", f"{url}/hello.txt")
    assert result.status == 206
    assert "\r\nContent-Range: bytes 7-11/1300" in result.body
    assert result.body.endswith("\r\n\r\nworld")
    parts = await curl("-r", "0-4,7-11", f"{url}/hello.txt")
    assert (parts.status, parts.body.count("Content-Range: bytes")) == (206, 2)
    assert (await curl("-r", "5000-", f"{url}/hello.txt")).status == 416


async def test_head_tells_the_length_and_sends_no_body(url: str) -> None:
    result = await curl("-I", f"{url}/hello.txt")
    assert result.status == 200
    assert "\r\nContent-Length: 1300" in result.body


async def test_what_has_not_changed_is_a_304_without_body(url: str) -> None:
    first = await curl("-I", f"{url}/hello.txt")
    [tag], [modified] = (lines_of(first.body.encode(), name) for name in ("ETag", "Last-Modified"))
    for condition in (f"If-None-Match: {tag}", f"If-Modified-Since: {modified}"):
        result = await curl("-H", condition, f"{url}/hello.txt")
        assert (result.code, result.status, result.body) == (0, 304, "")


async def test_a_packed_answer_stays_packed_and_comes_in_chunks(url: str, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    result = await curl("-D", "-", "-o", str(packed), "-H", "Accept-Encoding: gzip",
                        f"{url}/packed/hello.txt")  # fmt: skip
    assert "\r\nContent-Encoding: gzip" in result.body
    assert "\r\nTransfer-Encoding: chunked" in result.body
    assert "\r\nContent-Length:" not in result.body
    assert gzip.decompress(packed.read_bytes()).startswith(b"hello, world\n")
    plain = await curl("-D", "-", "-o", "/dev/null", f"{url}/packed/hello.txt")
    assert "Content-Encoding" not in plain.body


@pytest.mark.parametrize("framing", [[], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect:"]])
async def test_an_upload_through_the_proxy_is_stored(
    url: str, server: Nginx, tmp_path: Path, framing: list[str]
) -> None:
    body = bytes(range(256)) * 16384
    (tmp_path / "source").write_bytes(body)
    result = await curl(*framing, "-T", str(tmp_path / "source"), f"{url}/dav/deep/er/file")
    assert (result.code, result.status) == (0, 201)
    assert (server.stored / "dav/deep/er/file").read_bytes() == body


async def test_the_upstream_refuses_a_large_body_before_the_client_has_sent_it(
    url: str, tmp_path: Path
) -> None:
    (tmp_path / "source").write_bytes(b"x" * 8 * MIB)
    asked = await curl("-H", "Expect: 100-continue", "-T", str(tmp_path / "source"), f"{url}/small/file")
    assert (asked.status, asked.uploaded) == (413, 0)
    unasked = await curl("-H", "Expect:", "-T", str(tmp_path / "source"), f"{url}/small/file")
    assert (unasked.code, unasked.status) == (0, 413)


async def test_the_client_waits_for_the_upstreams_go_ahead(url: str, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * MIB)
    result = await curl(
        "-v", "-H", "Expect: 100-continue", "-T", str(tmp_path / "source"), f"{url}/dav/f"
    )
    assert (result.status, result.uploaded) == (201, MIB)
    assert result.error.count("100 Continue") == 1


async def test_the_connection_to_the_upstream_is_used_again(url: str) -> None:
    result = await curl("-i", *[f"{url}/hello.txt"] * 5)
    used = [line for line in result.body.split("\r\n") if line.startswith("X-Connection: ")]
    assert len(used) == 5
    assert len(set(used)) == 1


async def test_an_upstream_that_says_nothing_is_a_504(
    start_gateway: StartGateway, tmp_path: Path, server: Nginx
) -> None:
    gateway = await start_gateway(auth="none", plugins=[str(routed(tmp_path, server, idle=0.3))])
    answer = await get(gateway, "/web/silent/")
    assert (answer.status, answer.json["error"]) == (504, "gateway_timeout")


async def test_a_dead_upstream_is_a_502(
    start_gateway: StartGateway, tmp_path: Path, server: Nginx
) -> None:
    gateway = await start_gateway(auth="none", plugins=[str(routed(tmp_path, server))])
    server.kill()
    answer = await get(gateway, "/web/hello.txt")
    assert (answer.status, answer.json["error"]) == (502, "bad_gateway")


async def test_an_upstream_killed_in_its_answer_is_no_clean_end(
    start_gateway: StartGateway, tmp_path: Path, server: Nginx
) -> None:
    gateway = await start_gateway(auth="none", plugins=[str(routed(tmp_path, server))])
    (server.files / "large").write_bytes(b"x" * 8 * MIB)
    async with raw_connection(gateway) as client:
        await client.send(request_head("GET", "/web/trickle/large"))
        await client.reader.readuntil(b"\r\n\r\nxxxx")
        server.kill()
        assert len(await client.closed()) < 8 * MIB
    assert (await get(gateway, "/-/health")).status == 200


@pytest.mark.parametrize("path", ["dav/../hello.txt", "%2e%2e/hello.txt", "x/..%2f..%2fhello.txt"])
async def test_a_path_never_climbs_above_what_the_route_serves(url: str, path: str) -> None:
    assert (await curl("--path-as-is", f"{url}/{path}")).status == 400


async def test_many_downloads_at_once_are_all_right(url: str, server: Nginx) -> None:
    body = bytes(range(256)) * 4096
    (server.files / "mebi").write_bytes(body)
    results = await asyncio.gather(*(curl("-o", "/dev/null", "-w", "\n%{http_code} %{size_download}",
                                          f"{url}/mebi?{n}") for n in range(16)))  # fmt: skip
    assert [(result.status, result.uploaded) for result in results] == [(200, len(body))] * 16


@pytest.mark.timeout(300)
@pytest.mark.parametrize("framing", ["declared", "chunked"])
async def test_two_gib_go_up_and_down_within_64_mib_of_memory(
    gateway_process: StartProcess,
    server: Nginx,
    two_gib: Path,
    tmp_path: Path,
    framing: str,
) -> None:
    gateway = gateway_process("--plugins", str(routed(tmp_path, server)))
    await get(gateway, "/web/echo")
    chunked = ["-H", "Transfer-Encoding: chunked"] if framing == "chunked" else []
    size = two_gib.stat().st_size
    with Peak(gateway.process.pid) as peak:
        up = await curl(*chunked, "-T", str(two_gib), f"{gateway.url}/web/dav/big")
        (server.stored / "dav/big").rename(server.files / "big")
        down = await curl("-o", "/dev/null", "-w", "\n%{http_code} %{size_download}",
                          f"{gateway.url}/web/big")  # fmt: skip
    assert (up.status, up.code) == (201, 0)
    assert (down.status, down.uploaded) == (200, size)
    print(f"{framing}: resident memory grew by {peak.growth / MIB:.1f} MiB")
    assert peak.growth < 64 * MIB
