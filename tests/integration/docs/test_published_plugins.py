"""The four published plugins, together and unchanged, against a real S3 server and a real target."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from gateway.domain.model import UPLOADED, Delivery
from gateway.events import settlement
from gateway.server.delivery import PluginDispatcher
from tests.conftest import StartGateway, StartProcess
from tests.support import TESTS
from tests.support.harness import TIMEOUT, curl, files_below, get, put
from tests.support.s3.servers import ACCESS_KEY, REGION, SECRET_KEY, SeaweedFS

pytestmark = pytest.mark.slow

GOLDEN = TESTS / "golden/plugins"
PUBLISHED = {
    "fileUploadedEventHandler": "fe28a480bdc06ab8fb7fc0f554c1429fe77cd5416d7b8e63c22da505ded5ad5a",
    "fileUploadingEventHandler": "e798d6ee093b3d207e23fb14f67b166c4141de1b2fe856b153cc6f5fbff2309a",
    "streamToTarget": "b13f49c62c4f1d2a1a3b0e47e400005146a952498fd2485685a8d8b3e62c5418",
    "uploadToS3": "0fb2bef8e3bfd7bd14bdf44837c53cd2201ccb2be0f1ff53f3521900dd52a786",
}
"""The files as they were published, by the SHA-256 of their bytes."""

TOKEN = "a-token-of-the-test"
BEARER = f"Authorization: Bearer {TOKEN}"
MIB = 1 << 20


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    with SeaweedFS(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path, s3: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write the settings of a gateway with the published plugins, a token and the config they read."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.url)

    def write(secret: str = SECRET_KEY) -> Path:
        values = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": secret, "region": REGION}
        own = tmp_path / "own"
        own.mkdir()
        (own / "handson.yaml").write_text(yaml.safe_dump({"name": "handson", "config": values}))
        digest = hashlib.sha256(TOKEN.encode()).hexdigest()
        file = tmp_path / "gateway.yaml"
        file.write_text(
            yaml.safe_dump(
                {
                    "auth": "token",
                    "tokens": [{"name": "test", "sha256": digest}],
                    "plugins": [str(GOLDEN), str(own)],
                }
            )
        )
        return file

    return write


async def handlers(gateway: Any, upload_id: str, state: str) -> dict[str, Any]:
    """Wait until the only handler of an upload is in `state`; return what the page tells of it."""
    deadline = time.monotonic() + TIMEOUT
    told: dict[str, Any] = {}
    while time.monotonic() < deadline:
        told = (await get(gateway, f"/-/uploads/{upload_id}", BEARER)).json
        if [handler["state"] for handler in told["handlers"]] == [state]:
            handler: dict[str, Any] = told["handlers"][0]
            return handler
        await asyncio.sleep(0.02)  # the page is the only public sign
    raise AssertionError(f"not {state}: {told}")


def test_the_copies_are_byte_for_byte_what_was_published() -> None:
    found = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in GOLDEN.iterdir()}
    assert found == PUBLISHED


async def test_an_upload_goes_all_the_way_to_s3(
    s3: SeaweedFS,
    settings: Callable[..., Path],
    gateway_process: StartProcess,
    tmp_path: Path,
) -> None:
    gateway = gateway_process("--config", str(settings()))
    file = tmp_path / "video.bin"
    file.write_bytes(hashlib.sha256(b"content").digest() * (20 * MIB // 32))
    url = f"{gateway.url}/upload/video.bin"
    refused = await curl("-T", str(file), url)
    assert (refused.status, refused.body) == (401, "Unauthorized")
    stored = await curl("-T", str(file), "-H", "X-Auth-Token: whatever", url)
    assert stored.status == 201
    handler = await handlers(gateway, json.loads(stored.body)["upload_id"], "done")
    assert handler["attempt"] == 1
    async with s3.client() as client:
        answer = await client.get_object(Bucket="qmonus", Key="uploadedFiles/video.bin")
        assert await answer["Body"].read() == file.read_bytes()
    assert files_below(gateway.directory / "upload") == {}
    assert SECRET_KEY not in gateway.log()


async def test_the_route_is_closed_to_those_without_a_token_and_checks_what_it_is_sent(
    settings: Callable[..., Path], gateway_process: StartProcess
) -> None:
    gateway = gateway_process("--config", str(settings()))
    assert (await put(gateway, "/v1/uploadToS3", b"{}")).status == 401
    assert (await put(gateway, "/v1/uploadToS3", b"{}", "X-Auth-Token: wrong")).status == 401
    answer = await put(gateway, "/v1/uploadToS3", b'{"bucket": 7}', BEARER)
    assert answer.status == 400
    assert b"filepath" in answer.body
    assert (await get(gateway, "/v1/uploadToS3", BEARER)).status == 405


async def test_a_wrong_secret_is_retried_and_ends_dead_with_the_error_of_s3(
    settings: Callable[..., Path],
    start_gateway: StartGateway,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    # The published handler has the default pauses: a minute and a half in all.
    monkeypatch.setattr(settlement, "retry_delay", lambda policy, attempt: 0.01)
    gateway = await start_gateway(config=str(settings("A-WRONG-SECRET")))
    upload_id = (await put(gateway, "/upload/a.bin", b"kept", "X-Auth-Token: t")).json["upload_id"]
    handler = await handlers(gateway, upload_id, "dead")
    assert handler["attempt"] == 8
    show = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "events", "show", handler["event_id"],
        "--directory", str(tmp_path / "data"),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    shown, _ = await show.communicate()
    assert b"SignatureDoesNotMatch" in shown
    assert b"A-WRONG-SECRET" not in shown
    assert files_below(tmp_path / "data/upload") == {"a.bin": b"kept"}


async def test_a_repeated_delivery_of_the_sample_fails_though_the_object_is_there(
    s3: SeaweedFS, settings: Callable[..., Path], start_gateway: StartGateway
) -> None:
    gateway = await start_gateway(config=str(settings()))
    upload_id = (await put(gateway, "/upload/b.bin", b"moved", "X-Auth-Token: t")).json["upload_id"]
    handler = await handlers(gateway, upload_id, "done")
    event = (await get(gateway, f"/-/events/{handler['event_id']}", BEARER)).json
    again = Delivery(0, event["id"], upload_id, UPLOADED, handler["handler"], 2, event["body"])
    resources = gateway.resources
    result = await PluginDispatcher(resources.hooks, resources.scripts.files).run(again)
    assert result.status == "failed"
    assert "FileNotFoundError" in result.error
    async with s3.client() as client:
        answer = await client.get_object(Bucket="qmonus", Key="uploadedFiles/b.bin")
        assert await answer["Body"].read() == b"moved"


@pytest.fixture
async def target() -> AsyncIterator[tuple[str, dict[str, bytes]]]:
    """An HTTP server that takes files: its URL, and what it was sent by name."""
    received: dict[str, bytes] = {}

    async def take(request: web.Request) -> web.Response:
        received[request.headers["X-Forwarded-File"]] = await request.read()
        return web.Response(text="thank you")

    app = web.Application(client_max_size=64 * MIB)
    app.router.add_put("/{name}", take)
    server = web.AppRunner(app)
    await server.setup()
    site = web.TCPSite(server, "127.0.0.1", 0)
    await site.start()
    host, port = server.addresses[0][:2]
    yield f"http://{host}:{port}", received
    await server.cleanup()


async def test_a_file_is_streamed_to_a_target(
    settings: Callable[..., Path],
    gateway_process: StartProcess,
    target: tuple[str, dict[str, bytes]],
    tmp_path: Path,
) -> None:
    gateway = gateway_process("--config", str(settings()))
    url, received = target
    (tmp_path / "report.pdf").write_bytes(b"pdf" * 1_000_000)
    body = {"url": f"{url}/in", "filepath": str(tmp_path / "report.pdf")}
    answer = await put(gateway, "/v1/streamToTarget", json.dumps(body).encode(), BEARER)
    assert (answer.status, answer.body) == (200, b"thank you")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert received == {"report.pdf": b"pdf" * 1_000_000}
