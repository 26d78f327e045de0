"""Nothing that a real gateway writes or answers holds a secret, whatever its scripts do with them."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.auth.tokens import token_digest
from gateway.plugins.secrets import SecretKeys, new_key
from gateway.telemetry.redaction import REDACTED
from tests.conftest import StartProcess
from tests.support.harness import TIMEOUT, GatewayProcess, get, put, write_plugin

pytestmark = pytest.mark.both_paths

SEALED = "sealed-Wu3ohb7u"
FROM_ENV = "fromenv/Ohq4 ai&b"
FROM_FILE = "-----BEGIN KEY-----\nfile-line-one-Eiwei8ei\nfile-line-two-Quoo0tho\n-----END KEY-----"
TOKEN = "token-aiNgoh8ohB"
HEADER = "header-eeph4Ahp"
CLEAR = (SEALED, FROM_ENV, "file-line-one", "file-line-two", TOKEN, HEADER, "fromenv%2FOhq4", "v1.1")
"""`v1.1` begins every internal credential of these years."""

PLUGINS = """
- name: keys
  config:
    sealed: !secret TOKEN
    env: "${env:LEAK_TEST_VALUE}"
    file: "${file:key.pem}"
- name: leakyFirst
  event: APIGW.OnFileUploading
  authorization: keep
  on_error: allow
  script: |
    import logging, threading

    async def leakyFirst(event, handle):
        config = await get_service_config("keys", mu_conversion=True)
        held = [config.sealed, config.env, config.file]
        print("printed", held, config)
        logger.warning("logged %s", held, extra={"fields": {"config": config.env}})
        logging.getLogger("somebody.else").error("elsewhere %s", config.sealed)
        try:
            raise ValueError(json.dumps(held))
        except ValueError:
            logger.exception("caught")
        thread = threading.Thread(target=lambda: 1 / 0 if not held else int(held[0]))
        thread.start()
        thread.join()
        asyncio.create_task(aiohttp.ClientSession.get(None, held))
        raise RuntimeError(f"{held}")
- name: leakySecond
  event: APIGW.OnFileUploading
  authorization: keep
  script: |
    async def leakySecond(event, handle):
        config = await get_service_config("keys")
        if event["path"].endswith("refused"):
            raise KeyError(config["env"])
- name: leakyThird
  event: APIGW.OnFileUploaded
  retry: {attempts: 2, backoff: 0.01}
  script: |
    async def leakyThird(event, handle):
        config = await get_service_config("keys", mu_conversion=True)
        await callout(path="/-/health")
        try:
            await callout(path="/nowhere?" + config.sealed, body={"key": config.file})
        except HTTPError as error:
            error.add_note(config.env)
            raise ExceptionGroup("many", [error, ValueError(config.sealed * 600), OSError(config.file)])
- name: leakyFourth
  event: APIGW.OnFileUploadFailed
  script: |
    async def leakyFourth(event, handle):
        config = await get_service_config("keys")
        raise ValueError(event, config, config["sealed"])
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    key = new_key()
    monkeypatch.setenv("UPLOAD_GATEWAY_SECRETS_KEY", key)
    monkeypatch.setenv("LEAK_TEST_VALUE", FROM_ENV)
    write_plugin(tmp_path / "p", FROM_FILE, "key.pem")
    return write_plugin(tmp_path / "p", PLUGINS.replace("TOKEN", SecretKeys([key]).encrypt(SEALED)))


def leaks(what: str, content: bytes) -> list[str]:
    return [f"{what} holds {clear}" for clear in CLEAR if clear.encode() in content]


@pytest.mark.parametrize("style", ["text", "json"])
async def test_no_secret_reaches_a_log_an_answer_a_page_or_the_journal(
    gateway_process: StartProcess, folder: Path, style: str
) -> None:
    flags = ["--plugins", str(folder), "--auth", "token", "--tokens", f"me:{token_digest(TOKEN)}"]
    gateway = gateway_process(
        *flags, "--log-format", style, "--log-level", "debug", "--redact", "X-Mine"
    )
    me = f"X-Auth-Token: {TOKEN}"
    found: list[str] = []
    sent = (me, f"X-Mine: {HEADER}", f"Cookie: {HEADER}", "X-Gateway-Internal: v1.1.x")
    stored = await put(gateway, "/upload/stored", b"x", *sent)
    refused = await put(gateway, "/upload/refused", b"x", *sent)
    broken = await put(gateway, "/upload/broken", b"x", *sent, f"Content-MD5: {'A' * 22}==")
    assert (stored.status, refused.status, broken.status) == (201, 503, 400)
    await all_dead(gateway, me)
    pages = ["/-/events", f"/-/uploads/{stored.json['upload_id']}", "/-/metrics", "/-/ready", "/nowhere"]
    pages.append(f"/-/events/{(await get(gateway, '/-/events', me)).json['deliveries'][0]['event_id']}")
    for page in pages:
        answer = await get(gateway, page, me)
        found += leaks(page, answer.body + str(answer.headers).encode())
    for answer in (stored, refused, broken):
        found += leaks("an answer", answer.body + str(answer.headers).encode())
    gateway.signal(signal.SIGHUP)
    assert gateway.terminate() == 0
    log = gateway.log()
    found += leaks("the log", log.encode())
    found += leaks("stdout", "\n".join(gateway.printed).encode())
    for file in (gateway.directory / ".gateway").rglob("*"):
        found += leaks(file.name, file.read_bytes()) if file.is_file() else []
    assert found == []
    for sign in ("printed", "logged", "elsewhere", "caught", "a thread failed", "leakyThird", "many"):
        assert sign in log, sign
    assert log.count(REDACTED) > 10


async def all_dead(gateway: GatewayProcess, token: str) -> None:
    """Wait until every delivery has failed for good."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        rows = (await get(gateway, "/-/events", token)).json["deliveries"]
        if rows and all(row["state"] == "dead" for row in rows):
            return
        await asyncio.sleep(0.02)  # the page is the only public sign; its end is what is awaited
    raise AssertionError(f"not dead: {rows}")


def test_check_and_doctor_show_no_secret(folder: Path, tmp_path: Path) -> None:
    write_plugin(
        folder,
        """
- name: leakyTest
  event: APIGW.OnFileUploading
  script: |
    import os

    async def leakyTest(event, handle):
        raise ValueError(os.environ["LEAK_TEST_VALUE"])
  tests:
  - {name: fails, expect: {}}
""",
        "more.yaml",
    )
    flags = ["--directory", str(tmp_path), "--plugins", str(folder), "--port", "0"]
    for verb, code in (("check", 1), ("doctor", 0)):
        command = [sys.executable, "-m", "gateway", verb, *flags]
        done = subprocess.run(command, capture_output=True, check=False)
        assert done.returncode == code
        assert b"keys" in done.stdout + done.stderr
        assert leaks(verb, done.stdout + done.stderr) == []
