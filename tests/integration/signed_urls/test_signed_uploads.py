"""Signed URLs over real sockets: a PUT is taken exactly as it was signed, and in no other way."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.auth.installation import read_installation_keys
from gateway.domain.grant import Grant
from gateway.server.app import Gateway
from gateway.signing.urls import UrlSigner
from tests.conftest import StartGateway, StartProcess
from tests.support.harness import (
    GatewayProcess,
    RawResponse,
    curl,
    files_below,
    get,
    put,
    raw_connection,
    request_head,
    wait_settled,
    write_plugin,
)

REWRITE = """
name: generous
event: APIGW.OnFileUploading
authorization: keep
script: |
  async def generous(event, handle):
      state["metadata"] = dict(event.get("metadata") or {})
      event["max_bytes"] = 10**9
      event["on_conflict"] = "replace"
"""
TALKATIVE = """
- name: up
  event: APIGW.OnFileUploading
  authorization: keep
  script: "async def up(event, handle): print(event)"
- name: done
  event: APIGW.OnFileUploaded
  script: "async def done(event, handle): print(event)"
- name: failed
  event: APIGW.OnFileUploadFailed
  script: "async def failed(event, handle): print(event)"
- name: down
  event: APIGW.OnFileDownloading
  authorization: keep
  script: "async def down(event, handle): print(event)"
- name: route
  upstreams: []
  proxy: {path: /v1/r, scheme: "http:", authorization: {auth: default}}
  target: {path: /v1/r, scheme: "http:"}
  request_script: |
    print(request)
    raise ValueError(request.params)
"""
WITNESS = """
name: witness
event: APIGW.OnFileUploaded
script: |
  async def witness(event, handle):
      with open("{log}", "a") as log:
          log.write(json.dumps({{"principal": event["principal"], "params": event["params"],
                                 "metadata": event["metadata"], "path": event["path"]}}) + "\\n")
"""


async def sign(gateway: Gateway, method: str, path: str, **terms: Any) -> str:
    """Return path and query of a URL as a script gets it."""
    url = await gateway.resources.plugins.services.sign_url(method, path, **terms)
    assert isinstance(url, str)
    base = gateway.url
    assert url.startswith(f"{base}/")
    return url.removeprefix(base)


def code(answer: RawResponse) -> str:
    return str(answer.json["error"])


async def chunked(gateway: Gateway | GatewayProcess, target: str, *pieces: bytes) -> RawResponse:
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", target, "Transfer-Encoding: chunked"))
        for piece in (*pieces, b""):
            await connection.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        return await connection.answer()


# -- what is allowed


@pytest.mark.parametrize("auth", ["none", "token"])
async def test_a_signed_put_needs_no_token(
    start_gateway: StartGateway, tmp_path: Path, auth: str
) -> None:
    gateway = await start_gateway(auth=auth)
    target = await sign(gateway, "PUT", "/upload/a b.bin", content_type="text/x-odd", max_length=10)
    assert target.startswith("/upload/a%20b.bin?")
    answer = await put(gateway, target, b"body", "Content-Type: text/x-odd")
    assert (answer.status, answer.json["mime"]) == (201, "text/x-odd")
    assert files_below(tmp_path / "data/upload") == {"a b.bin": b"body"}


@pytest.mark.parametrize("path", ["/uploads/event_1/ü;x.png", "/x", "/upload/%41"])
async def test_every_stored_path_has_an_endpoint(
    start_gateway: StartGateway, tmp_path: Path, path: str
) -> None:
    gateway = await start_gateway(auth="token")
    target = await sign(gateway, "PUT", path)
    answer = await put(gateway, target, b"body")
    assert (answer.status, answer.json["path"]) == (201, path)
    assert (tmp_path / "data" / path[1:]).read_bytes() == b"body"


async def test_a_custom_template_is_used_where_it_gives_that_very_path(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(file_upload_api_path="/v1/{user}/{filename}/file")
    assert (await sign(gateway, "PUT", "/upload/a.bin")).startswith("/-/objects/upload/a.bin?")
    gateway = await start_gateway(
        file_upload_api_path="/upload/{filename}", directory=f"{gateway.resources.settings.directory}2"
    )
    assert (await sign(gateway, "PUT", "/upload/a.bin")).startswith("/upload/a.bin?")
    assert (await sign(gateway, "PUT", "/upload/a/b.bin")).startswith("/-/objects/upload/a/b.bin?")


async def test_curl_uploads_to_a_signed_url(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway(auth="token")
    (tmp_path / "big").write_bytes(b"x" * 3_000_000)
    url = await gateway.resources.plugins.services.sign_url("PUT", "/in/big", length=3_000_000)
    done = await curl("-T", str(tmp_path / "big"), str(url))
    assert (done.status, done.uploaded) == (201, 3_000_000)


async def test_public_url_is_what_links_begin_with(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(public_url="https://files.example.org/base")
    url = str(await gateway.resources.plugins.services.sign_url("PUT", "/upload/x"))
    assert url.startswith("https://files.example.org/base/upload/x?X-Gateway-")


async def test_signed_metadata_is_the_files_and_the_event_tells_no_signature(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "plugins", WITNESS.format(log=tmp_path / "log"))
    gateway = await start_gateway(plugins=[str(folder)])
    said = {"title": "Küste & Meer", "event-id": "7"}
    target = await sign(gateway, "PUT", "/upload/x", metadata=said, once=True)
    answer = await put(gateway, target, b"x", "x-amz-meta-event-id: 7")
    assert answer.status == 201
    await wait_settled(gateway)
    told = (tmp_path / "log").read_text()
    assert '"metadata": {"title": "K\\u00fcste & Meer", "event-id": "7"}' in told
    assert '"principal": {"name": "signed url", "kind": "signed"}' in told
    assert '"X-Gateway-Signature": ["[redacted]"]' in told
    assert urlsplit(target).query.rpartition("=")[2] not in told


# -- what is not


WRONG: tuple[tuple[dict[str, Any], list[str], bytes], ...] = (
    ({"content_type": "image/png"}, ["Content-Type: image/jpeg"], b"x"),
    ({"content_type": "image/png"}, ["Content-Type: image/PNG"], b"x"),
    ({"content_type": "image/png"}, ["Content-Type: image/png; a=b"], b"x"),
    ({"content_type": "image/png"}, [], b"x"),
    ({"length": 3}, [], b"xx"),
    ({"length": 3}, [], b"xxxx"),
    ({"max_length": 3}, [], b"xxxx"),
    ({"metadata": {"a": "1"}}, ["X-Amz-Meta-A: 2"], b"x"),
    ({"metadata": {"a": "1"}}, ["x-amz-meta-b: 1"], b"x"),
    ({"metadata": {"a": "1"}}, ["x-amz-meta-a: 1", "x-amz-meta-a: 2"], b"x"),
    ({}, ["X-Amz-Meta-Title: mine"], b"x"),
)


@pytest.mark.parametrize("auth", ["none", "token"])
async def test_a_put_that_is_not_as_signed_is_refused(
    start_gateway: StartGateway, tmp_path: Path, auth: str
) -> None:
    gateway = await start_gateway(auth=auth)
    for terms, lines, body in WRONG:
        target = await sign(gateway, "PUT", "/upload/x", **terms)
        answer = await put(gateway, target, body, *lines)
        assert (answer.status, code(answer)) == (403, "not_granted"), (terms, lines)
    assert files_below(tmp_path / "data/upload") == {}


async def test_two_content_types_are_one_too_many(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    target = await sign(gateway, "PUT", "/upload/x", content_type="image/png")
    answer = await put(gateway, target, b"x", "Content-Type: image/png", "Content-Type: text/html")
    assert answer.status in {400, 403}


async def test_a_body_without_a_length_is_counted_against_the_greatest(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    target = await sign(gateway, "PUT", "/upload/x", max_length=100_000)
    answer = await chunked(gateway, target, *[b"y" * 10_000] * 11)
    assert (answer.status, code(answer)) == (413, "too_large")
    assert files_below(tmp_path / "data/upload") == {}
    assert (await chunked(gateway, target, *[b"y" * 10_000] * 10)).status == 201


async def test_an_exact_length_needs_a_length(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    target = await sign(gateway, "PUT", "/upload/x", length=3)
    assert code(await chunked(gateway, target, b"xxx")) == "not_granted"
    assert (await put(gateway, target, b"xxx")).status == 201


@pytest.mark.parametrize("auth", ["none", "token"])
async def test_a_bad_signature_is_refused_whoever_asks(
    start_gateway: StartGateway, tmp_path: Path, auth: str
) -> None:
    gateway = await start_gateway(auth=auth, tokens=["ann:" + "ab" * 32])
    target = await sign(gateway, "PUT", "/upload/x")
    for bad in (
        target.replace("/upload/x", "/upload/y"),
        target.replace("X-Gateway-Signature=", "X-Gateway-Signature=A"),
        target.replace("X-Gateway-Signature=", "x-gateway-signature="),
        target.partition("&X-Gateway-Signature")[0],
        f"{target}&X-Gateway-Max-Length=9",
        f"{target}&a=b",
        "/upload/x?X-Gateway-Signature=",
        "/upload/x?%78-gateway-Signature=",
    ):
        answer = await put(gateway, bad, b"x", "X-Auth-Token: whatever")
        assert (answer.status, code(answer)) == (403, "bad_signature"), bad
    assert files_below(tmp_path / "data/upload") == {}


async def test_a_refused_put_costs_the_client_no_byte_of_its_body(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    (tmp_path / "big").write_bytes(b"x" * 5_000_000)
    url = await gateway.resources.plugins.services.sign_url("PUT", "/upload/x", max_length=10)
    done = await curl("-H", "Expect: 100-continue", "-T", str(tmp_path / "big"), str(url))
    assert (done.status, done.uploaded) == (403, 0)


async def test_the_endpoint_of_stored_paths_needs_a_signature(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway()
    for target in ("/-/objects/x", "/-/objects/x?a=b", "/-/objects/upload/x"):
        answer = await put(gateway, target)
        assert (answer.status, code(answer)) == (403, "forbidden")
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [".gateway"]


@pytest.mark.parametrize("path", ["/../x", "/a//b", "/.gateway/journal-0.db", "/a/./b", "", "x\n"])
async def test_no_url_is_signed_for_a_path_that_nothing_is_stored_at(
    start_gateway: StartGateway, path: str
) -> None:
    gateway = await start_gateway()
    with pytest.raises(ValueError, match="path"):
        await gateway.resources.plugins.services.sign_url("PUT", path)


async def test_a_signature_for_a_protected_place_opens_nothing(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "data/plugins", REWRITE)
    gateway = await start_gateway(plugins=[str(folder)])
    target = await sign(gateway, "PUT", "/plugins/new.yaml")
    assert (await put(gateway, target, b"x")).status == 403


# -- handlers


async def test_no_handler_can_allow_more_than_was_signed(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "plugins", REWRITE)
    gateway = await start_gateway(plugins=[str(folder)], auth="token")
    small = await sign(gateway, "PUT", "/upload/x", max_length=100)
    assert (await chunked(gateway, small, b"x" * 101)).status == 413
    assert (await put(gateway, small, b"x" * 100)).status == 201
    fresh = await sign(gateway, "PUT", "/upload/x", overwrite=False)
    answer = await put(gateway, fresh, b"new")
    assert (answer.status, code(answer)) == (409, "conflict")


async def test_the_gateways_own_limit_holds_for_signed_urls_too(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_bytes="10")
    target = await sign(gateway, "PUT", "/upload/x", max_length=100)
    assert (await put(gateway, target, b"x" * 11)).status == 413


# -- what is written down


async def test_no_log_line_shows_a_signature(
    start_gateway: StartGateway, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "plugins", WITNESS.format(log=tmp_path / "log"))
    gateway = await start_gateway(plugins=[str(folder)])
    target = await sign(gateway, "PUT", "/upload/x", once=True, metadata={"secret-note": "hush-hush"})
    with caplog.at_level(logging.DEBUG):
        await put(gateway, target, b"x")
        await put(gateway, target.replace("/upload", "/-/objects/upload"), b"x")
        await wait_settled(gateway)
    signature = target.rpartition("=")[2]
    assert len(signature) == 43
    assert signature not in caplog.text
    stored = files_below(tmp_path / "data/.gateway")
    assert not [name for name, content in stored.items() if signature.encode() in content]


@pytest.mark.slow
async def test_whatever_scripts_print_no_signature_reaches_log_or_journal(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "plugins", TALKATIVE)
    gateway = gateway_process("--plugins", str(folder), "--downloads")
    signer = UrlSigner(read_installation_keys(tmp_path / "data/.gateway/installation.key"))
    soon = int(time.time()) + 60
    grants = [
        Grant("PUT", "/upload/x", soon, once="n" * 22, metadata={"title": "hush"}),
        Grant("PUT", "/upload/y", soon, max_length=3),
        Grant("GET", "/upload/x", soon),
        Grant("GET", "/-/objects/upload/x", soon),
        Grant("GET", "/v1/r", soon, query=(("a", "1"),)),
    ]
    targets = [signer.target(one) for one in grants]
    assert [(await put(gateway, target, b"long")).status for target in targets[:2]] == [201, 403]
    assert (await chunked(gateway, targets[1], b"long")).status == 413
    assert [(await get(gateway, target)).status for target in targets[2:]] == [200, 200, 500]
    await wait_settled(gateway)
    gateway.terminate()
    log, state = gateway.log(), files_below(tmp_path / "data/.gateway")
    assert log.count("[redacted]") > 5
    for target in targets:
        signature = target.rpartition("=")[2]
        assert signature not in log
        assert not [name for name, content in state.items() if signature.encode() in content]
