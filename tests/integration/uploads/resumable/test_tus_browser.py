"""Uppy in Chromium, on a page of another origin."""

from __future__ import annotations

import asyncio
import functools
import http.server
import random
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page

from tests.conftest import StartProcess
from tests.support.browser import BrowserVisit, visiting_as
from tests.support.cutting_relay import CuttingRelay, cutting_relay
from tests.support.harness import TIMEOUT, GatewayProcess, files_below
from tests.support.node import SCRIPTS, bundle

MEBI = 1 << 20
BODY = random.Random(8).randbytes(8 * MEBI)
PAGE = (
    '<!doctype html><meta charset="utf-8"><input type="file" id="file"><script src="page.js"></script>'
)


class _SilentPages(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The origin of a page with Uppy."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text(PAGE)
    (folder / "page.js").write_text(bundle((SCRIPTS / "page.mjs").read_text()))
    pages = functools.partial(_SilentPages, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), pages) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
async def relay() -> AsyncIterator[CuttingRelay]:
    async with cutting_relay() as relay:
        yield relay


@pytest.fixture
async def page(site: str) -> AsyncIterator[Page]:
    """The page, open in a browser."""
    async with visiting_as(BrowserVisit) as visit:
        visit.page.set_default_timeout(TIMEOUT * 1000)
        await visit.page.goto(site)
        yield visit.page


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file that is uploaded."""
    path = tmp_path / "Käse 1.bin"
    path.write_bytes(BODY)
    return path


def start(gateway_process: StartProcess, relay: CuttingRelay, site: str, *flags: str) -> GatewayProcess:
    gateway = gateway_process("--public-url", relay.url, "--cors-origins", site, *flags)
    relay.target = gateway.address
    return gateway


async def begin(page: Page, file: Path, relay: CuttingRelay, **options: Any) -> None:
    """Choose the file and begin its upload."""
    await page.set_input_files("#file", file)
    await page.evaluate("given => begin(...given)", [f"{relay.url}/upload/", options])


async def outcome(page: Page) -> str:
    await page.wait_for_function(
        "document.title.startsWith('done') || document.title.startsWith('fail')"
    )
    return await page.title()


def stored(data: Path) -> dict[str, bytes]:
    """Return the files that are visible."""
    return {path: body for path, body in files_below(data).items() if not path.startswith(".gateway/")}


async def test_uppy_goes_on_after_cuts(
    gateway_process: StartProcess, relay: CuttingRelay, site: str, page: Page, file: Path, data: Path
) -> None:
    start(gateway_process, relay, site)
    relay.cuts = [3 * MEBI, 2 * MEBI]
    await begin(page, file, relay)
    assert (await outcome(page)).startswith(f"done {relay.url}/upload/")
    assert relay.cuts == []
    assert stored(data) == {"upload/Käse 1.bin": BODY}
    events = await page.evaluate("events")
    assert events.count("POST 201") == 1
    assert events[-1] == "PATCH 204"
    assert await page.evaluate("link")
    assert await page.evaluate("expires")


async def test_uppy_goes_on_after_the_page_was_loaded_again_and_the_gateway_was_killed(
    gateway_process: StartProcess, relay: CuttingRelay, site: str, page: Page, file: Path, data: Path
) -> None:
    gateway = start(gateway_process, relay, site)
    await begin(page, file, relay, chunkSize=MEBI)
    await page.wait_for_function(f"Number(document.title) >= {3 * MEBI}")
    relay.target = None
    gateway.kill()
    await page.reload()
    start(gateway_process, relay, site)
    await begin(page, file, relay, chunkSize=MEBI)
    assert (await outcome(page)).startswith("done")
    events = await page.evaluate("events")
    assert events[0] == "HEAD 200"
    assert "POST 201" not in events
    assert events.count("PATCH 204") <= 6
    assert stored(data) == {"upload/Käse 1.bin": BODY}


async def test_uppy_waits_for_a_gateway_that_is_started_again(
    gateway_process: StartProcess, relay: CuttingRelay, site: str, page: Page, file: Path, data: Path
) -> None:
    gateway = start(gateway_process, relay, site)
    relay.cuts = [3 * MEBI]
    await begin(page, file, relay, retryDelays=[500] * 40)
    async with asyncio.timeout(TIMEOUT):
        await relay.cut.wait()
    relay.target = None
    gateway.kill()
    start(gateway_process, relay, site)
    assert (await outcome(page)).startswith("done")
    assert stored(data) == {"upload/Käse 1.bin": BODY}


async def test_uppy_uploads_parts_in_parallel(
    gateway_process: StartProcess, relay: CuttingRelay, site: str, page: Page, file: Path, data: Path
) -> None:
    start(gateway_process, relay, site)
    relay.cuts = [MEBI]
    await begin(page, file, relay, parallelUploads=4)
    assert (await outcome(page)).startswith("done")
    assert stored(data) == {"upload/Käse 1.bin": BODY}


async def test_uppy_is_told_of_a_refusal(
    gateway_process: StartProcess, relay: CuttingRelay, site: str, page: Page, file: Path, data: Path
) -> None:
    start(gateway_process, relay, site, "--max-bytes", "1000")
    await begin(page, file, relay)
    assert "response code: 413" in await outcome(page)
    assert await page.evaluate("events") == ["POST 413"]


async def test_a_page_of_another_origin_may_not_upload(
    gateway_process: StartProcess, relay: CuttingRelay, page: Page, file: Path, data: Path
) -> None:
    start(gateway_process, relay, "https://other.example")
    await begin(page, file, relay, retryDelays=[])
    assert (await outcome(page)).startswith("failed")
    assert stored(data) == {}
    assert files_below(data / ".gateway/partials") == {}
