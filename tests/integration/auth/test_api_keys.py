"""API keys and tokens change while the processes of a gateway serve."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.auth.key_store import KeyStore
from gateway.auth.tokens import token_digest
from tests.support import PROJECT
from tests.support.harness import (
    TIMEOUT,
    GatewayProcess,
    RawResponse,
    get,
    put,
    raw_connection,
    request_head,
    wait_until,
    write_plugin,
)

REWRITES = """
- name: rewrites
  event: APIGW.OnFileUploading
  authorization: keep
  script: |
    async def rewrites(event, handle):
        event["path"] = event["path"].replace("/moved/", "/elsewhere/")
- name: api
  upstreams: []
  proxy: {path: "/api/{rest}", authorization: {auth: default}}
  request_script: |
    return {"who": request.principal}
"""

PROCESSES = 2


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    plugins = write_plugin(tmp_path / "plugins", REWRITES)
    settings = tmp_path / "data" / "config" / "gateway.yaml"
    settings.parent.mkdir(parents=True)
    settings.write_text(_settings("secret-a"))
    flags = ["--auth=token", "--downloads", "--listing", "--deletes", f"--processes={PROCESSES}"]
    with GatewayProcess(tmp_path / "data", [*flags, f"--plugins={plugins}"]) as process:
        yield process


def _settings(token: str) -> str:
    return f"tokens:\n- {{name: alice, sha256: {token_digest(token)}}}\n"


async def keys(gateway: GatewayProcess, *words: str) -> str:
    """Run `gateway keys`, and return the key that it prints, or nothing."""
    command = ["-m", "gateway", "keys", *words, "--directory", str(gateway.directory)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE, cwd=PROJECT
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return str(json.loads(out)["key"]) if "--json" in words else ""


async def send(
    gateway: GatewayProcess, method: str, target: str, body: bytes, *lines: str
) -> RawResponse:
    async with raw_connection(gateway) as connection:
        length = f"Content-Length: {len(body)}"
        await connection.send(request_head(method, target, length, *lines) + body)
        return await connection.answer(head=method == "HEAD")


async def wait_known(gateway: GatewayProcess, secret: str, *, known: bool = True) -> int:
    """Wait until every process knows a key, or none does: the id of an upload ends with the process.

    Return how many requests were made with a key that was known.
    """
    accepted, processes = 0, set[str]()
    async with asyncio.timeout(TIMEOUT):
        while len(processes) < PROCESSES:
            uploads = (put(gateway, "/upload/acme/a", b"x", f"X-Auth-Token: {secret}") for _ in range(4))
            for response in await asyncio.gather(*uploads):
                accepted += response.status != 401
                if (response.status != 401) == known:
                    processes.add(response.json["upload_id"].rpartition("-")[2])
    return accepted


async def test_keys_are_created_rotated_and_revoked_while_all_processes_serve(
    gateway: GatewayProcess,
) -> None:
    everywhere = await keys(gateway, "create", "all", "--json")
    limits = ("--prefix=/upload/acme/", "--methods=PUT,GET")
    narrow = await keys(gateway, "create", "narrow", *limits, "--json")
    await wait_known(gateway, narrow)
    auth, other = f"X-Auth-Token: {narrow}", f"Authorization: Bearer {everywhere}"
    stored = await put(gateway, "/upload/acme/a", b"x", auth)
    assert stored.status == 200
    assert (await put(gateway, "/upload/acme/moved/b", b"x", auth)).status == 201
    assert (await get(gateway, "/upload/acme/a", auth)).body == b"x"
    for target in ("/upload/b", "/upload/acme2/a", "/upload/acme/%2e%2e/b", "/api/acme"):
        assert (await put(gateway, target, b"x", auth)).status in {400, 403}, target
        assert (await get(gateway, target, auth)).status in {400, 403}, target
    assert (await send(gateway, "DELETE", "/upload/acme/a", b"", auth)).status == 403
    assert (await get(gateway, "/api/x", other)).json == {"who": {"name": "all", "kind": "key"}}
    status = f"/-/uploads/{stored.json['upload_id']}"
    assert (await get(gateway, status, auth)).json["principal"] == {"name": "narrow", "kind": "key"}
    assert (await get(gateway, status, other)).status == 404
    own = (await get(gateway, "/-/uploads", auth)).json["uploads"]
    assert {upload["principal"]["name"] for upload in own} == {"narrow"}
    for endpoint in ("/-/metrics", "/-/events", "/-/files?path=/upload/"):
        assert (await get(gateway, endpoint, other)).status == 403

    newer = await keys(gateway, "rotate", "narrow", "--overlap=1h", "--json")
    await wait_known(gateway, newer)
    assert (await get(gateway, "/upload/acme/a", auth)).status == 200
    await keys(gateway, "revoke", "narrow")
    await wait_known(gateway, newer, known=False)
    assert (await get(gateway, "/upload/acme/a", auth)).status == 401
    assert {narrow, newer, everywhere} & {*gateway.log().split()} == set()
    table = KeyStore(gateway.directory / ".gateway").read
    await wait_until(lambda: table().keys["narrow"].last_used)
    await wait_until(lambda: "key narrow: revoked" in gateway.log())
    for word in ("created", "rotated", "revoked"):
        assert gateway.log().count(f"key narrow: {word}") == 1


async def test_no_protocol_of_uploads_leaves_the_prefix_of_a_key(gateway: GatewayProcess) -> None:
    secret = await keys(gateway, "create", "narrow", "--prefix=/upload/acme/", "--json")
    await wait_known(gateway, secret)
    auth = f"X-Auth-Token: {secret}"
    form = b'--b\r\nContent-Disposition: form-data; name="f"; filename="../c"\r\n\r\nx\r\n--b--\r\n'
    for place, allowed in (("/upload/acme/", True), ("/upload/acme2/", False), ("/upload/", False)):
        tus = await send(gateway, "POST", place, b"", auth, "Tus-Resumable: 1.0.0", "Upload-Length: 4")
        draft = await send(gateway, "POST", place, b"xy", auth, "Upload-Complete: ?1")
        ranged = await send(
            gateway,
            "PUT",
            f"{place}r?resume=0123456789abcdef",
            b"xy",
            auth,
            "Content-Range: bytes 0-1/2",
        )
        posted = await send(
            gateway, "POST", place, form, auth, "Content-Type: multipart/form-data; boundary=b"
        )
        statuses = [response.status for response in (tus, draft, ranged, posted)]
        assert statuses == ([201, 201, 201, 201] if allowed else [403] * 4), place
        if allowed:
            assert posted.json["uploads"][0]["path"] == "/upload/acme/c"
            url = tus.headers["Location"].removeprefix(gateway.url)
            elsewhere = url.replace("/acme/", "/other/")
            for target, status in ((url, 200), (elsewhere, 403)):
                found = await send(gateway, "HEAD", target, b"", auth, "Tus-Resumable: 1.0.0")
                assert found.status == status


async def test_a_rate_counts_the_requests_of_all_processes(gateway: GatewayProcess) -> None:
    limited = await keys(gateway, "create", "limited", "--rate=400/h", "--json")
    auth = f"X-Auth-Token: {limited}"
    before = await wait_known(gateway, limited)
    responses = await asyncio.gather(*(get(gateway, "/api/x", auth) for _ in range(400)))
    late = [response for response in responses if response.status == 429]
    assert before + len(responses) - len(late) == 400
    assert all(0 < int(response.headers["Retry-After"]) <= 3600 for response in late)
    assert (await put(gateway, "/upload/x", b"x", auth)).status == 429


async def test_the_bytes_of_a_day_count_over_all_processes(gateway: GatewayProcess) -> None:
    secret = await keys(gateway, "create", "daily", "--bytes-per-day=10k", "--json")
    probe = await wait_known(gateway, secret)  # a byte each
    auth, body = f"X-Auth-Token: {secret}", bytes(1000)
    uploads = (put(gateway, f"/upload/{number}", body, auth) for number in range(30))
    statuses = Counter(response.status for response in await asyncio.gather(*uploads))
    assert statuses == {201: (10 * 1024 - probe) // 1000, 429: 30 - (10 * 1024 - probe) // 1000}
    refused = await put(gateway, "/upload/x", body, auth)
    assert "key daily" in refused.json["message"]
    assert int(refused.headers["Retry-After"]) > 0
    assert (await get(gateway, "/upload/0", auth)).status in {200, 404}


async def test_sighup_takes_the_tokens_of_the_settings_or_keeps_the_old(gateway: GatewayProcess) -> None:
    async def status(token: str) -> int:
        return (await put(gateway, "/upload/a", b"x", f"X-Auth-Token: {token}")).status

    settings = gateway.directory / "config" / "gateway.yaml"
    assert await status("secret-a") == 201
    settings.write_text("tokens:\n- {name: alice, sha256: short}\nmax_bytes: -1\n")
    gateway.signal(signal.SIGHUP)
    await wait_until(lambda: gateway.log().count("the reload failed, nothing has changed") == PROCESSES)
    assert "gateway.yaml:2" in gateway.log()
    assert "Traceback" not in gateway.log()
    assert await status("secret-a") == 200
    settings.write_text(f"{_settings('secret-b')}max_bytes: 1\n")
    gateway.signal(signal.SIGHUP)
    await wait_until(lambda: gateway.log().count("reloaded: plugin set") == PROCESSES)
    for _ in range(8):
        assert await status("secret-b") == 200
        assert await status("secret-a") == 401
    assert "the settings have changed, and take a restart: max_bytes" in gateway.log()
