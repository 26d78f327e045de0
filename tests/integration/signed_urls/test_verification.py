"""How often a signature is verified: an HMAC over the whole request is the cost of a signed URL."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gateway.domain.grant import Grant
from gateway.signing.urls import UrlSigner
from tests.conftest import StartGateway
from tests.support.harness import raw_connection, request_head, write_plugin

ROUTE = """
- name: seen
  authorities: [0.0.0.0]
  proxy: {path: "/v1/{name}", scheme: "http:", authorization: {auth_mode: axis}}
  target: {path: "/v1/{name}", scheme: "http:"}
  request_forbidden_process: "return {}"
"""


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/upload/y", 201),
        ("PUT", "/-/objects/upload/y", 201),
        ("GET", "/upload/x", 200),
        ("GET", "/-/objects/upload/x", 200),
        ("HEAD", "/upload/x", 200),
        ("GET", "/v1/a", 200),
        ("GET", "/-/metrics", 200),
    ],
)
async def test_a_signature_is_verified_once_a_request(
    start_gateway: StartGateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    status: int,
) -> None:
    folder = write_plugin(tmp_path / "plugins", ROUTE)
    gateway = await start_gateway(auth="token", downloads="true", plugins=[str(folder)])
    (tmp_path / "data/upload").mkdir()
    (tmp_path / "data/upload/x").write_bytes(b"stored")
    target = gateway.resources.base.installation.urls.target(Grant(method, path, int(time.time()) + 60))
    calls, verify = [], UrlSigner.verify

    def count(self: UrlSigner, method: str, raw_path: str, raw_query: str) -> Grant:
        calls.append((method, f"{raw_path}?{raw_query}"))
        return verify(self, method, raw_path, raw_query)

    monkeypatch.setattr(UrlSigner, "verify", count)
    async with raw_connection(gateway) as connection:
        await connection.send(request_head(method, target, "Content-Length: 0"))
        assert (await connection.answer(head=method == "HEAD")).status == status
    assert calls == [(method, target)]
