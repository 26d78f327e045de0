"""One client for each loop: its errors are refusals, its secrets masked. Against a real server."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading

import pytest

from gateway.errors import ConfigError, Refusal
from gateway.storage.s3 import client as module
from gateway.storage.s3.client import Clients, expires_in
from gateway.storage.s3.errors import as_refusals
from gateway.telemetry.redaction import Mask
from tests.support.ports import free_port
from tests.support.s3.servers import SECRET_KEY, SeaweedFS


def test_a_gateway_that_keeps_files_on_a_disk_loads_no_s3_library() -> None:
    script = (
        "import sys, gateway.server.app, gateway.storage.s3.client; print('botocore' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


@pytest.mark.slow
async def test_concurrent_callers_get_one_client_for_their_loop(
    s3_storage: str, clients: Clients
) -> None:
    found = await asyncio.gather(*(clients.client() for _ in range(5)))
    assert len(set(map(id, found))) == 1
    elsewhere: list[object] = []

    async def ask() -> None:
        elsewhere.append(await clients.client())
        await clients.close()

    thread = threading.Thread(target=lambda: asyncio.run(ask()))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert elsewhere
    assert elsewhere[0] is not found[0]
    await found[0].head_bucket(Bucket=s3_storage.split("/")[2])


@pytest.mark.slow
async def test_a_closed_client_is_replaced_by_a_new_one(s3_storage: str, clients: Clients) -> None:
    first = await clients.client()
    await clients.close()
    second = await clients.client()
    assert second is not first
    await second.head_bucket(Bucket=s3_storage.split("/")[2])


async def test_a_cancelled_caller_does_not_cancel_the_others(
    monkeypatch: pytest.MonkeyPatch, clients: Clients
) -> None:
    give_keys(monkeypatch)
    impatient = asyncio.ensure_future(clients.client())
    await asyncio.sleep(0)
    patient = asyncio.ensure_future(clients.client())
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient is not None


def give_keys(monkeypatch: pytest.MonkeyPatch, url: str = "http://127.0.0.1:1") -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDSOMEBODY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-mine")


async def test_without_credentials_the_log_says_how_to_give_some(
    clients: Clients, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Refusal) as refused:
        await clients.client()
    assert refused.value.code == "storage_unavailable"
    assert refused.value.headers["Retry-After"]
    assert "AWS_ACCESS_KEY_ID" in caplog.text
    assert "AWS" not in refused.value.message


async def test_credentials_that_come_later_are_found(
    monkeypatch: pytest.MonkeyPatch, clients: Clients
) -> None:
    with pytest.raises(Refusal):
        await clients.client()
    give_keys(monkeypatch)
    assert await clients.client() is not None


async def test_a_start_without_credentials_is_refused_before_the_port_opens() -> None:
    with pytest.raises(ConfigError, match="AWS_ACCESS_KEY_ID"):
        await asyncio.to_thread(Clients().prepare)


async def test_an_endpoint_that_is_no_url_is_named_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    give_keys(monkeypatch, "not a url")
    with pytest.raises(ConfigError, match="not a url"):
        await asyncio.to_thread(Clients().prepare)


async def test_the_secret_key_and_the_token_are_masked_from_the_first_request_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    give_keys(monkeypatch)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-token-of-mine")
    mask = Mask()
    clients = Clients(mask.add_secrets)
    await clients.client()
    await clients.close()
    assert mask("a-secret-of-mine, a-token-of-mine") == "[redacted], [redacted]"
    assert "secret" not in repr(clients)


async def test_temporary_credentials_have_an_expiry(
    monkeypatch: pytest.MonkeyPatch, clients: Clients
) -> None:
    give_keys(monkeypatch)
    assert await expires_in(await clients.client()) is None
    await clients.close()
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", "2099-01-01T00:00:00Z")
    left = await expires_in(await clients.client())
    assert left is not None
    assert left > 10 * 365 * 24 * 3600


async def test_an_unreachable_server_is_storage_unavailable(
    monkeypatch: pytest.MonkeyPatch, clients: Clients, caplog: pytest.LogCaptureFixture
) -> None:
    give_keys(monkeypatch, f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(module, "MAX_ATTEMPTS", 1)
    client = await clients.client()
    with pytest.raises(Refusal) as refused, as_refusals("looking"):
        await client.head_bucket(Bucket="nobody")
    assert refused.value.code == "storage_unavailable"
    assert "looking failed: the storage cannot be reached" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "secret", "code", "advice"),
    [
        ("AKIDNOBODY", SECRET_KEY, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID is not known"),
        ("AKIDTEST12", "a-wrong-secret", "SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY is wrong"),
    ],
)
async def test_wrong_credentials_are_for_the_operator_and_a_later_try_for_the_client(
    s3_storage: str,
    clients: Clients,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    key: str,
    secret: str,
    code: str,
    advice: str,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    client = await clients.client()
    with pytest.raises(Refusal) as refused, as_refusals("listing"):
        await client.list_objects_v2(Bucket=s3_storage.split("/")[2])
    assert refused.value.code == "storage_unavailable"
    assert code in caplog.text
    assert advice in caplog.text
    assert secret not in caplog.text


@pytest.mark.slow
async def test_what_is_missing_is_not_found_and_a_missing_bucket_is_the_operators(
    s3_storage: str, s3: SeaweedFS, clients: Clients, caplog: pytest.LogCaptureFixture
) -> None:
    client = await clients.client()
    place = {"Bucket": s3_storage.split("/")[2], "Key": "nothing"}
    for ask in (client.head_object, client.get_object):
        with pytest.raises(Refusal) as refused, as_refusals("reading"):
            await ask(**place)
        assert refused.value.code == "not_found"
    with pytest.raises(Refusal) as refused, as_refusals("listing"):
        await client.list_objects_v2(Bucket="no-such-bucket")
    assert refused.value.code == "storage_unavailable"
    assert "make the bucket" in caplog.text


async def test_debug_lines_of_the_library_stay_out_of_the_log(
    monkeypatch: pytest.MonkeyPatch, clients: Clients, caplog: pytest.LogCaptureFixture
) -> None:
    give_keys(monkeypatch)
    caplog.set_level(logging.DEBUG)
    client = await clients.client()
    await client.generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"})
    assert "CanonicalRequest" not in caplog.text
    assert not [one for one in caplog.records if "botocore" in one.name]


def test_a_defect_of_the_gateway_is_not_reported_as_one_of_the_storage() -> None:
    with pytest.raises(KeyError), as_refusals("reading"):
        raise KeyError("x")
