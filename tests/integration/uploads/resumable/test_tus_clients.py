"""Real clients of tus over a bad network: tus-js-client in node, tuspy, aiotus."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import aiotus
import pytest
import tusclient.client
from aiotus import core
from yarl import URL

from tests.conftest import StartProcess
from tests.support.cutting_relay import CuttingRelay, cutting_relay
from tests.support.harness import GatewayProcess, files_below, get
from tests.support.node import run_node
from tests.support.tus import target_of

MEBI = 1 << 20
BODY = random.Random(7).randbytes(8 * MEBI)
RETRIES = [0, 100, 300, 1000, 2000]
"""Milliseconds before each try of tus-js-client."""

JS_CLIENTS = pytest.mark.parametrize("client", ["tus-js-client", "tus-js-client-5"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file that is uploaded."""
    path = tmp_path / "big.bin"
    path.write_bytes(BODY)
    return path


@pytest.fixture
async def relay() -> AsyncIterator[CuttingRelay]:
    async with cutting_relay() as relay:
        yield relay


def start(gateway_process: StartProcess, relay: CuttingRelay, *flags: str) -> GatewayProcess:
    """Start a gateway behind the relay; its URLs lead through it."""
    gateway = gateway_process("--public-url", relay.url, *flags)
    relay.target = gateway.address
    return gateway


def stored(data: Path) -> dict[str, bytes]:
    """Return the files that are visible."""
    return {path: body for path, body in files_below(data).items() if not path.startswith(".gateway/")}


def upload_job(client: str, file: Path, relay: CuttingRelay, **options: Any) -> dict[str, Any]:
    given = {
        "endpoint": f"{relay.url}/upload/",
        "retryDelays": RETRIES,
        "metadata": {"filename": "big.bin", "filetype": "application/x-big"},
        **options,
    }
    return {"client": client, "file": str(file), "options": given}


def methods(outcome: dict[str, Any]) -> list[str]:
    return [request["method"] for request in outcome["requests"]]


# -- tus-js-client


@JS_CLIENTS
@pytest.mark.parametrize("source", ["whole", "file"])
async def test_tus_js_client_goes_on_after_cuts(
    gateway_process: StartProcess,
    relay: CuttingRelay,
    file: Path,
    data: Path,
    client: str,
    source: str,
) -> None:
    start(gateway_process, relay)
    relay.cuts = [3 * MEBI, 2 * MEBI] if source == "whole" else [MEBI // 2, MEBI // 3]
    outcome = await run_node("upload.mjs", {**upload_job(client, file, relay), "source": source})
    assert outcome["ok"], outcome
    assert stored(data) == {"upload/big.bin": BODY}
    assert relay.cuts == []
    assert methods(outcome).count("POST") == 1
    assert methods(outcome).count("HEAD") == 2


@JS_CLIENTS
async def test_tus_js_client_goes_on_in_another_process_with_a_gateway_that_was_killed(
    gateway_process: StartProcess,
    relay: CuttingRelay,
    file: Path,
    data: Path,
    tmp_path: Path,
    client: str,
) -> None:
    gateway = start(gateway_process, relay)
    job = upload_job(client, file, relay, chunkSize=MEBI)
    job["storage"] = str(tmp_path / "urls.json")
    assert await run_node("upload.mjs", {**job, "die_after": 3 * MEBI}) == 3
    gateway.kill()
    start(gateway_process, relay)
    outcome = await run_node("upload.mjs", job)
    assert outcome["ok"], outcome
    assert methods(outcome)[0] == "HEAD"
    assert "POST" not in methods(outcome)
    assert methods(outcome).count("PATCH") <= 6
    assert stored(data) == {"upload/big.bin": BODY}


@JS_CLIENTS
async def test_tus_js_client_waits_for_a_gateway_that_is_started_again(
    gateway_process: StartProcess, relay: CuttingRelay, file: Path, data: Path, client: str
) -> None:
    gateway = start(gateway_process, relay)
    relay.cuts = [3 * MEBI]
    job = upload_job(client, file, relay, retryDelays=[500] * 40)
    running = asyncio.create_task(run_node("upload.mjs", job))
    await relay.cut.wait()
    relay.target = None
    gateway.kill()
    start(gateway_process, relay)
    outcome = await running
    assert outcome["ok"], outcome
    assert methods(outcome).count("POST") == 1
    assert stored(data) == {"upload/big.bin": BODY}


@JS_CLIENTS
async def test_tus_js_client_uploads_parts_in_parallel(
    gateway_process: StartProcess, relay: CuttingRelay, file: Path, data: Path, client: str
) -> None:
    gateway = start(gateway_process, relay)
    relay.cuts = [MEBI, MEBI]
    job = upload_job(client, file, relay, parallelUploads=4)
    outcome = await run_node("upload.mjs", job)
    assert outcome["ok"], outcome
    assert methods(outcome).count("POST") == 4 + 1
    assert stored(data) == {"upload/big.bin": BODY}
    assert files_below(data / ".gateway/partials") == {}
    assert (await get(gateway, target_of(outcome["url"]))).status in {200, 204}


@JS_CLIENTS
async def test_tus_js_client_tells_the_length_at_the_end(
    gateway_process: StartProcess, relay: CuttingRelay, file: Path, data: Path, client: str
) -> None:
    start(gateway_process, relay)
    relay.cuts = [MEBI // 2]
    job = upload_job(client, file, relay, uploadLengthDeferred=True, chunkSize=MEBI)
    outcome = await run_node("upload.mjs", {**job, "source": "pipe"})
    assert outcome["ok"], outcome
    assert stored(data) == {"upload/big.bin": BODY}


@JS_CLIENTS
async def test_tus_js_client_sends_bytes_with_the_creation_and_post_for_patch(
    gateway_process: StartProcess, relay: CuttingRelay, file: Path, data: Path, client: str
) -> None:
    start(gateway_process, relay)
    options = {"uploadDataDuringCreation": True, "overridePatchMethod": True, "chunkSize": 3 * MEBI}
    outcome = await run_node("upload.mjs", upload_job(client, file, relay, **options))
    assert outcome["ok"], outcome
    assert methods(outcome) == ["POST", "POST", "POST"]
    assert stored(data) == {"upload/big.bin": BODY}


@JS_CLIENTS
async def test_tus_js_client_is_told_of_a_refusal(
    gateway_process: StartProcess, relay: CuttingRelay, file: Path, data: Path, client: str
) -> None:
    start(gateway_process, relay, "--max-bytes", "1000")
    outcome = await run_node("upload.mjs", upload_job(client, file, relay))
    assert not outcome["ok"]
    assert "response code: 413" in outcome["error"]
    assert methods(outcome) == ["POST"]
    assert stored(data) == {}


# -- tuspy


@pytest.mark.parametrize("sums", [False, True], ids=["no checksums", "checksums"])
async def test_tuspy_goes_on_after_a_cut(
    gateway_process: StartProcess, relay: CuttingRelay, data: Path, sums: bool
) -> None:
    start(gateway_process, relay)
    relay.cuts = [MEBI // 2]
    client = tusclient.client.TusClient(f"{relay.url}/upload/f/")
    uploader = client.uploader(
        file_stream=io.BytesIO(BODY),
        chunk_size=MEBI,
        metadata={"filename": "big.bin"},
        retries=5,
        retry_delay=0,
        upload_checksum=sums,
    )
    await asyncio.to_thread(uploader.upload)
    assert relay.cuts == []
    assert stored(data) == {"upload/f/big.bin": BODY}


async def test_tuspy_goes_on_with_a_url_after_the_gateway_was_killed(
    gateway_process: StartProcess, relay: CuttingRelay, data: Path
) -> None:
    gateway = start(gateway_process, relay)
    client = tusclient.client.TusClient(f"{relay.url}/upload/big.bin")
    first = client.uploader(file_stream=io.BytesIO(BODY), chunk_size=MEBI)
    await asyncio.to_thread(first.upload, stop_at=3 * MEBI)
    gateway.kill()
    start(gateway_process, relay)
    again: dict[str, Any] = {"file_stream": io.BytesIO(BODY), "chunk_size": MEBI, "url": first.url}
    second = await asyncio.to_thread(client.uploader, **again)
    assert second.offset == 3 * MEBI
    await asyncio.to_thread(second.upload)
    assert stored(data) == {"upload/big.bin": BODY}


async def test_tuspy_uploads_an_empty_file(
    gateway_process: StartProcess, relay: CuttingRelay, data: Path
) -> None:
    start(gateway_process, relay)
    client = tusclient.client.TusClient(f"{relay.url}/upload/empty")
    await asyncio.to_thread(client.uploader(file_stream=io.BytesIO(b"")).upload)
    assert stored(data) == {"upload/empty": b""}


# -- aiotus

CHUNK = MEBI // 2
BRIEF = aiotus.RetryConfiguration(retry_attempts=8, max_retry_period_seconds=0.2)


async def test_aiotus_goes_on_after_cuts_and_reads_its_metadata(
    gateway_process: StartProcess, relay: CuttingRelay, file: Path, data: Path
) -> None:
    start(gateway_process, relay)
    relay.cuts = [3 * MEBI, 2 * MEBI]
    known = {"filename": b"big.bin", "note": "Käse".encode(), "flag": None}
    with file.open("rb") as source:
        url = await aiotus.upload(f"{relay.url}/upload/", source, known, config=BRIEF, chunksize=CHUNK)
    assert url is not None
    assert relay.cuts == []
    assert stored(data) == {"upload/big.bin": BODY}
    assert await aiotus.metadata(url, config=BRIEF) == known


async def test_aiotus_uploads_parts(
    gateway_process: StartProcess, relay: CuttingRelay, data: Path
) -> None:
    start(gateway_process, relay)
    relay.cuts = [MEBI]
    sources = [io.BytesIO(BODY[start : start + 2 * MEBI]) for start in range(0, len(BODY), 2 * MEBI)]
    url = await aiotus.upload_multiple(
        f"{relay.url}/upload/", sources, {"filename": b"big.bin"}, config=BRIEF, chunksize=CHUNK
    )
    assert url is not None
    assert stored(data) == {"upload/big.bin": BODY}
    assert files_below(data / ".gateway/partials") == {}


async def test_aiotus_reads_what_is_supported(
    gateway_process: StartProcess, relay: CuttingRelay
) -> None:
    start(gateway_process, relay, "--max-bytes", "1000000000")
    async with aiohttp.ClientSession() as session:
        configuration = await core.configuration(session, URL(f"{relay.url}/upload/"))
    assert configuration.max_size == 1_000_000_000
    assert configuration.protocol_versions == ["1.0.0"]
    assert "concatenation" in configuration.protocol_extensions
