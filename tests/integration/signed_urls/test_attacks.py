"""Attacks on signed URLs over real sockets: whoever has one URL can do with it what it says, no more."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.auth.installation import audience
from gateway.auth.tokens import token_digest
from gateway.domain.grant import Grant
from gateway.server.app import Gateway
from gateway.signing.keys import CredentialSigner
from gateway.signing.urls import UrlSigner
from gateway.telemetry.redaction import INTERNAL_HEADER
from tests.conftest import StartGateway
from tests.integration.signed_urls.test_signed_uploads import chunked, code, sign
from tests.support.harness import (
    RawResponse,
    files_below,
    put,
    raw_connection,
    request_head,
    write_plugin,
)

ROUTES = """
- name: seen
  upstreams: []
  proxy: {path: "/v1/{name}", scheme: "http:", authorization: {auth: default}}
  target: {path: "/v1/{name}", scheme: "http:"}
  request_script: |
    return {"principal": request.principal, "method": request.method, "params": request.params}
"""


async def ask(gateway: Gateway, method: str, target: str, *lines: str) -> RawResponse:
    async with raw_connection(gateway) as connection:
        await connection.send(request_head(method, target, *lines))
        return await connection.answer(head=method == "HEAD")


async def refused(gateway: Gateway, method: str, target: str, *lines: str) -> bool:
    answer = await ask(gateway, method, target, *lines)
    return answer.status == 403 and (
        method == "HEAD" or code(answer) in {"bad_signature", "not_granted"}
    )


@pytest.fixture
async def gateway(start_gateway: StartGateway, tmp_path: Path) -> Gateway:
    """A gateway with a stored file and a route, which lets nobody in without a token."""
    folder = write_plugin(tmp_path / "plugins", ROUTES)
    started = await start_gateway(auth="token", downloads="true", plugins=[str(folder)])
    (tmp_path / "data/upload").mkdir()
    (tmp_path / "data/upload/x").write_bytes(b"stored")
    return started


def signer(gateway: Gateway) -> UrlSigner:
    return gateway.resources.base.installation.urls


# -- method


async def test_a_url_for_get_serves_head_and_no_other_method(gateway: Gateway, tmp_path: Path) -> None:
    for path in ("/upload/x", "/-/objects/upload/x"):
        target = signer(gateway).target(Grant("GET", path, int(time.time()) + 60))
        assert (await ask(gateway, "GET", target)).body == b"stored"
        assert (await ask(gateway, "HEAD", target)).headers["Content-Length"] == "6"
        for method in ("PUT", "POST", "DELETE", "PATCH", "get", "TRACE"):
            answer = await ask(gateway, method, target, "Content-Length: 0")
            assert answer.status in {400, 403, 405, 415}
    assert files_below(tmp_path / "data/upload") == {"x": b"stored"}


async def test_a_url_for_head_or_put_reads_nothing(gateway: Gateway) -> None:
    for method in ("HEAD", "PUT"):
        target = await sign(gateway, method, "/upload/x")
        assert await refused(gateway, "GET", target)
    assert (await ask(gateway, "HEAD", await sign(gateway, "HEAD", "/upload/x"))).status == 200


async def test_headers_that_name_another_method_are_ignored(gateway: Gateway) -> None:
    target = await sign(gateway, "GET", "/upload/x")
    overriding = ("X-HTTP-Method-Override: DELETE", "X-HTTP-Method: PUT", "X-Method-Override: PUT")
    assert (await ask(gateway, "GET", target, *overriding)).body == b"stored"
    answer = await ask(gateway, "POST", target, "X-HTTP-Method-Override: GET", "Content-Length: 0")
    assert answer.status == 415  # a POST brings a form


# -- path


SPELLED = (
    "/upload/y",
    "/upload/X",
    "/upload//x",
    "//upload/x",
    "/upload/./x",
    "/upload/z/../x",
    "/upload/%2e%2e/upload/x",
    "/upload%2Fx",
    "/upload/x%00",
    "/upload/x%2F",
    "/upload/x/",
    "/upload/x;v=1",
    "/upload/%2578",
    "/-/objects/upload/x",
    "/upload\\x",
)


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_no_spelling_leads_to_another_path(gateway: Gateway, tmp_path: Path, method: str) -> None:
    (tmp_path / "data/upload/y").write_bytes(b"other")
    query = (await sign(gateway, method, "/upload/x")).partition("?")[2]
    for spelled in SPELLED:
        answer = await ask(gateway, method, f"{spelled}?{query}", "Content-Length: 0")
        assert answer.status in {400, 403, 404}, spelled
        assert b"other" not in answer.body
    assert files_below(tmp_path / "data/upload") == {"x": b"stored", "y": b"other"}


async def test_the_host_is_not_signed_and_changes_nothing(gateway: Gateway) -> None:
    target = await sign(gateway, "GET", "/upload/x")
    assert (await ask(gateway, "GET", f"http://localhost{target}")).body == b"stored"
    assert await refused(gateway, "GET", f"http://localhost/upload{target}")
    assert (await ask(gateway, "GET", f"http://elsewhere.example{target}")).status == 400


async def test_headers_that_name_another_path_are_ignored(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "data/upload/y").write_bytes(b"other")
    target = await sign(gateway, "GET", "/upload/x")
    lines = ("X-Original-URL: /upload/y", "X-Rewrite-URL: /upload/y", "X-Forwarded-Path: /upload/y")
    assert (await ask(gateway, "GET", target, *lines)).body == b"stored"


async def test_a_url_for_one_name_of_a_file_opens_no_folder(gateway: Gateway) -> None:
    target = await sign(gateway, "GET", "/upload")
    assert (await ask(gateway, "GET", target)).status == 404


# -- query


ADDED = (
    "X-Gateway-Filename=evil.html",
    "X-Gateway-Cache-Control=max-age%3D9",
    "X-Gateway-Expires=9999999999",
    "x-gateway-expires=9999999999",
    "X-Gateway-Signature=x",
    "%58-Gateway-Signature=x",
    "X-Gateway-New=1",
    "download=1",
    "a",
    "",
    "&",
)


async def test_nothing_is_added_to_the_query(gateway: Gateway) -> None:
    target = await sign(gateway, "GET", "/upload/x")
    for added in ADDED:
        assert await refused(gateway, "GET", f"{target}&{added}"), added
        assert await refused(gateway, "GET", target.replace("?", f"?{added}&", 1)), added


async def test_a_query_of_a_route_is_signed_as_a_whole(gateway: Gateway) -> None:
    grant = Grant("GET", "/v1/a", int(time.time()) + 60, query=(("from", "1"), ("to", "2")))
    target = signer(gateway).target(grant)
    # The credentials themselves are none of the script's business.
    assert (await ask(gateway, "GET", target)).json["params"] == {"from": ["1"], "to": ["2"]}
    for old, new in (("to=2", "to=3"), ("&to=2", ""), ("to=2", "to=2&to=3"), ("from=1", "from=1;to=3")):
        assert old in target
        assert await refused(gateway, "GET", target.replace(old, new, 1))


# -- headers


async def test_fields_of_the_url_in_headers_count_for_nothing(gateway: Gateway, tmp_path: Path) -> None:
    query = (await sign(gateway, "PUT", "/upload/new")).partition("?")[2]
    lines = [
        f"{name}: {value}" for name, _, value in (field.partition("=") for field in query.split("&"))
    ]
    assert (await put(gateway, "/upload/new", b"x", *lines)).status == 401
    assert (await put(gateway, "/-/objects/upload/new", b"x", *lines)).status == 403
    assert files_below(tmp_path / "data/upload") == {"x": b"stored"}


SMUGGLED: tuple[list[str], ...] = (
    ["Content-Length: 3", "Content-Length: 30"],
    ["Content-Length: 3, 30"],
    ["Content-Length: +3"],
    ["Content-Length: 3", "Transfer-Encoding: chunked"],
    ["Transfer-Encoding: chunked"],
    ["Content-Length: 3", "Content-Type : image/png"],
    ["Content-Length: 3", "Content-Type: image/png", "Content-Type: text/html"],
    ["Content-Length: 3", "Content-Type: text/html", "Content-Type: image/png"],
    ["Content-Length: 3", "Content-Type: text/html,\r\n image/png"],
)


async def test_smuggled_lengths_and_types_are_refused(gateway: Gateway, tmp_path: Path) -> None:
    target = await sign(gateway, "PUT", "/upload/new", length=3, content_type="image/png")
    for lines in SMUGGLED:
        named = lines if any("Type" in line for line in lines) else [*lines, "Content-Type: image/png"]
        async with raw_connection(gateway) as connection:
            await connection.send(request_head("PUT", target, *named) + b"xxx")
            answer = await connection.answer()
        assert answer.status in {400, 403}, lines
    assert files_below(tmp_path / "data/upload") == {"x": b"stored"}


async def test_a_request_hidden_behind_a_signed_one_has_no_share_in_its_signature(
    gateway: Gateway, tmp_path: Path
) -> None:
    target = await sign(gateway, "PUT", "/upload/new", length=3)
    hidden = request_head("PUT", "/upload/hidden", "Content-Length: 1") + b"h"
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("PUT", target, "Content-Length: 3") + b"xxx" + hidden)
        statuses = [(await connection.answer()).status for _ in range(2)]
    assert statuses == [201, 401]
    assert files_below(tmp_path / "data/upload") == {"x": b"stored", "new": b"xxx"}


# -- who else asks


async def test_a_bad_signature_is_not_mended_by_a_good_token(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(auth="token", tokens=[f"ann:{token_digest('secret')}"])
    target = await sign(gateway, "PUT", "/upload/x", max_length=1)
    token = "X-Auth-Token: secret"
    assert (await put(gateway, f"{target}0", b"x", token)).status == 403
    assert (await put(gateway, target, b"xx", token)).status == 403
    assert (await put(gateway, "/upload/x", b"xx", token)).status == 201


async def test_a_signature_is_no_internal_credential_and_the_other_way_round(gateway: Gateway) -> None:
    own = audience(*gateway.address)
    keys = [(Path(gateway.resources.settings.state) / "installation.key").read_bytes().strip()]
    target = "/-/objects/upload/x"
    credential = CredentialSigner(keys).credential(own, "GET", target)
    assert (await ask(gateway, "GET", target, f"{INTERNAL_HEADER}: {credential}")).body == b"stored"
    _, expiry, mac = credential.split(".")
    url = await sign(gateway, "GET", "/upload/x")
    forged = url.rpartition("=")[0] + "=" + mac
    assert await refused(gateway, "GET", forged)
    signature = url.rpartition("=")[2]
    line = f"{INTERNAL_HEADER}: v1.{expiry}.{signature}"
    assert (await ask(gateway, "GET", "/upload/x", line)).status == 401
    assert (await ask(gateway, "GET", target, line)).status == 401


async def test_a_url_of_another_installation_is_refused(gateway: Gateway) -> None:
    theirs = UrlSigner([b"t" * 32]).target(Grant("GET", "/upload/x", int(time.time()) + 60))
    assert await refused(gateway, "GET", theirs)
    ours = await sign(gateway, "GET", "/upload/x")
    name = ours.partition("X-Gateway-Key=")[2].partition("&")[0]
    their_name = theirs.partition("X-Gateway-Key=")[2].partition("&")[0]
    assert await refused(gateway, "GET", theirs.replace(their_name, name))


async def test_a_url_for_a_file_opens_no_page_and_no_route(gateway: Gateway) -> None:
    query = (await sign(gateway, "GET", "/upload/x")).partition("?")[2]
    for path in ("/-/metrics", "/-/events", "/v1/a"):
        assert await refused(gateway, "GET", f"{path}?{query}")


# -- time and again


async def test_a_late_url_is_refused(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = await sign(gateway, "GET", "/upload/x"), await sign(gateway, "PUT", "/upload/x")
    now = time.time()
    monkeypatch.setattr(signer(gateway), "_clock", lambda: now + 901)
    for answer in (await ask(gateway, "GET", read), await put(gateway, write)):
        assert (answer.status, code(answer)) == (403, "expired")


async def test_a_replay_of_a_one_time_url_is_refused_under_every_spelling(
    gateway: Gateway, tmp_path: Path
) -> None:
    target = await sign(gateway, "PUT", "/upload/a", once=True)
    assert (await put(gateway, target, b"first")).status == 201
    path, _, query = target.partition("?")
    fields = query.split("&")
    for again in (
        target,
        path.replace("a", "%61") + "?" + query,
        f"{path}?{'&'.join(reversed(fields))}",
    ):
        answer = await put(gateway, again, b"second")
        assert answer.status == 403
    assert (tmp_path / "data/upload/a").read_bytes() == b"first"


async def test_many_replays_at_once_store_one_file(gateway: Gateway, tmp_path: Path) -> None:
    target = await sign(gateway, "PUT", "/upload/a", once=True)
    answers = await asyncio.gather(*(put(gateway, target, b"%d" % number) for number in range(30)))
    assert sorted(answer.status for answer in answers) == [201, *[403] * 29]


# -- endpoints that store no files


@pytest.mark.parametrize(
    "terms", [{"once": "n" * 22}, {"on_conflict": "reject"}, {"metadata": {"a": "b"}}]
)
async def test_a_route_takes_no_url_whose_terms_it_cannot_keep(
    gateway: Gateway, terms: dict[str, Any]
) -> None:
    target = signer(gateway).target(Grant("PUT", "/v1/a", int(time.time()) + 60, **terms))
    answer = await put(gateway, target, b"x")
    assert (answer.status, code(answer)) == (403, "not_granted")


async def test_a_route_takes_no_uncounted_body_where_a_length_was_signed(gateway: Gateway) -> None:
    target = signer(gateway).target(Grant("PUT", "/v1/a", int(time.time()) + 60, max_length=3))
    assert code(await chunked(gateway, target, b"xxxx")) == "not_granted"
    assert code(await put(gateway, target, b"xxxx")) == "not_granted"
    answer = await put(gateway, target, b"xxx")
    assert answer.json["principal"] == {"name": "signed url", "kind": "signed"}
