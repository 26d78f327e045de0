"""The address in the answer to an upload: what was stored is fetched there, whatever its path became."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.auth.tokens import token_digest
from tests.conftest import StartGateway, StartProcess
from tests.support.harness import curl, get, put, raw_connection, request_head, write_plugin

BY_OWNER = """
name: byOwner
event: APIGW.OnFileUploading
authorization: keep
script: |
  async def byOwner(event, handle):
      event["path"] = "/archive/of today/" + event["path"].rsplit("/", 1)[1]
      event["on_conflict"] = "rename"
"""
ONLY_DRAFTS = """
name: noSecrets
event: APIGW.OnFileDownloading
authorization: keep
script: |
  async def noSecrets(event, handle):
      if "secret" in event["path"]:
          await handle.terminate(code=404, output="no such file")
"""
CONTENT = os.urandom(200_000)
ALICE = ("--auth", "token", "--tokens", f"alice:{token_digest('secret-alice')}")
BEARER = ("-H", "Authorization: Bearer secret-alice")


def address_in(text: str) -> str:
    return text.partition('"url": "')[2].partition('"')[0]


@pytest.mark.both_paths
async def test_what_a_handler_stored_elsewhere_is_fetched_at_its_address(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    plugins = write_plugin(tmp_path / "plugins", BY_OWNER)
    gateway = gateway_process("--plugins", str(plugins), "--downloads", *ALICE)
    for content, name in ((b"small", "a%20b.txt"), (CONTENT, "a%20b-1.txt")):
        uploaded = await curl("-T", "-", *BEARER, f"{gateway.url}/upload/a%20b.txt", stdin=content)
        assert uploaded.status == 201
        address = address_in(uploaded.body)
        assert address == f"{gateway.url}/-/objects/archive/of%20today/{name}"
        target = tmp_path / "fetched"
        assert (await curl("-o", str(target), *BEARER, address)).status == 200
        assert target.read_bytes() == content
        assert (await curl("-I", *BEARER, address)).status == 200
        assert (await curl(address)).status == 401


async def test_a_stored_object_is_fetched_at_its_address(
    start_gateway: StartGateway, s3_storage: str, tmp_path: Path
) -> None:
    plugins = write_plugin(tmp_path / "plugins", BY_OWNER)
    gateway = await start_gateway(
        auth="none", downloads=True, plugins=[str(plugins)], storage=s3_storage
    )
    for name in ("x.bin", "x-1.bin"):
        uploaded = await curl("-T", "-", f"{gateway.url}/upload/x.bin", stdin=CONTENT)
        address = address_in(uploaded.body)
        assert address == f"{gateway.url}/-/objects/archive/of%20today/{name}"
        target = tmp_path / "fetched"
        assert (await curl("-o", str(target), address)).status == 200
        assert target.read_bytes() == CONTENT


async def test_the_address_is_the_upload_path_where_that_leads_to_the_file(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    template, stored = "/files/{team}/{filename}", "/by-team/{team}/{filename}"
    gateway = await start_gateway(
        auth="none", downloads=True, file_upload_api_path=template, stored_path=stored
    )
    uploaded = await put(gateway, "/files/red/a%3Fb", b"x")
    assert uploaded.json["url"] == f"{gateway.url}/files/red/a%3Fb"
    assert (await get(gateway, "/files/red/a%3Fb")).body == b"x"


async def test_a_path_that_lost_a_variable_has_its_address_below_objects(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(
        auth="none", downloads=True, file_upload_api_path="/files/{team}/{filename}"
    )
    uploaded = await put(gateway, "/files/red/a", b"x")
    assert uploaded.json["url"] == f"{gateway.url}/-/objects/upload/a"
    assert (await get(gateway, "/-/objects/upload/a")).body == b"x"


@pytest.mark.both_paths
async def test_the_address_begins_with_what_the_operator_named_never_with_what_a_client_sent(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(auth="none", public_url="https://files.example/in")
    sent = ("X-Forwarded-Host: evil.example", "Forwarded: host=evil.example")
    uploaded = await put(gateway, "/upload/a", b"x", *sent)
    assert uploaded.json["url"] == "https://files.example/in/upload/a"
    named = await start_gateway(
        auth="none", advertise="10.0.0.7:9000", directory=gateway_folder(gateway)
    )
    assert (await put(named, "/upload/a", b"x")).json["url"] == "http://10.0.0.7:9000/upload/a"


def gateway_folder(gateway: object) -> str:
    folder = getattr(gateway, "resources").settings.directory  # noqa: B009 - a folder beside it
    return f"{folder}-2"


async def test_handlers_decide_about_objects_as_about_upload_paths(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    plugins = write_plugin(tmp_path / "plugins", ONLY_DRAFTS)
    gateway = await start_gateway(auth="none", downloads=True, plugins=[str(plugins)])
    for name in ("draft", "secret"):
        assert (await put(gateway, f"/upload/{name}", b"x")).status == 201
    for base in ("/upload", "/-/objects/upload"):
        assert (await get(gateway, f"{base}/draft")).status == 200
        assert (await get(gateway, f"{base}/secret")).status == 404


async def test_without_downloads_objects_stay_closed(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(auth="none")
    assert (await put(gateway, "/upload/a", b"x")).status == 201
    assert (await get(gateway, "/-/objects/upload/a")).status == 403


async def test_places_of_the_gateway_are_not_served(start_gateway: StartGateway, tmp_path: Path) -> None:
    plugins = write_plugin(tmp_path / "data" / "plugins", BY_OWNER)
    gateway = await start_gateway(auth="none", downloads=True, plugins=[str(plugins)])
    assert (await get(gateway, "/-/objects/plugins/plugin.yaml")).status == 403
    assert (await get(gateway, "/-/objects/.gateway/installation.key")).status == 400


async def test_pages_of_other_origins_read_no_object_without_a_signature(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(auth="none", downloads=True)
    assert (await put(gateway, "/upload/a", b"x")).status == 201
    origin = "Origin: https://other.example"
    answer = await get(gateway, "/-/objects/upload/a", origin)
    assert "Access-Control-Allow-Origin" not in answer.headers
    async with raw_connection(gateway) as connection:
        ask = "Access-Control-Request-Method: DELETE"
        await connection.send(request_head("OPTIONS", "/-/objects/upload/a", origin, ask))
        assert "Access-Control-Allow-Origin" not in (await connection.answer()).headers
