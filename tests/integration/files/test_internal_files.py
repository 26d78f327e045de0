"""`/-/files`: the version of an upload, as an attachment, for authorized callers."""

from __future__ import annotations

from pathlib import Path

import pytest
from yarl import URL

from gateway.server.app import Gateway
from gateway.telemetry.redaction import INTERNAL_HEADER
from tests.conftest import StartGateway
from tests.support.harness import get, put, raw_connection, request_head


async def test_a_file_is_sent_as_an_attachment(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway(auth="token")
    known = f"X-Auth-Token: {gateway.resources.base.shared.token}"
    stored = await put(gateway, "/upload/a%20%C3%BC.html", b"<script>", known)
    upload_id = stored.json["upload_id"]
    answer = await get(gateway, f"/-/files/{upload_id}", known)
    assert (answer.status, answer.body) == (200, b"<script>")
    disposition = answer.headers["Content-Disposition"]
    assert disposition == "attachment; filename=\"a _.html\"; filename*=UTF-8''a%20%C3%BC.html"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("HEAD", f"/-/files/{upload_id}", known))
        assert (await connection.answer(head=True)).headers["Content-Length"] == "8"


async def test_a_newer_file_is_never_sent_for_an_older_upload(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(auth="token")
    known = f"X-Auth-Token: {gateway.resources.base.shared.token}"
    upload_id = (await put(gateway, "/upload/a", b"old", known)).json["upload_id"]
    await put(gateway, "/upload/a", b"new", known)
    assert (await get(gateway, f"/-/files/{upload_id}", known)).json["error"] == "superseded"
    assert (await get(gateway, "/-/files/nobody-knows", known)).status == 404


async def test_removing_needs_authorization(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway(auth="token")
    known = f"X-Auth-Token: {gateway.resources.base.shared.token}"
    upload_id = (await put(gateway, "/upload/a", b"x", known)).json["upload_id"]
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("DELETE", f"/-/files/{upload_id}"))
        assert (await connection.answer()).status == 401
        await connection.send(request_head("DELETE", f"/-/files/{upload_id}", known))
        assert (await connection.answer()).status == 204
    assert not (tmp_path / "data/upload/a").exists()
    assert (await get(gateway, f"/-/files/{upload_id}", known)).status == 410


async def test_without_authorization_no_upload_is_sent_or_removed(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(auth="none")
    upload_id = (await put(gateway, "/upload/a")).json["upload_id"]
    assert (await get(gateway, f"/-/files/{upload_id}")).status == 403
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("DELETE", f"/-/files/{upload_id}"))
        assert (await connection.answer()).status == 403
    assert (tmp_path / "data/upload/a").exists()


def internal(gateway: Gateway, method: str, target: str) -> str:
    """Return the header with which another node of the installation would call."""
    call = gateway.resources.base.installation.credentials_for(
        method, URL(gateway.url + target, encoded=True)
    )
    assert call is not None
    return f"{INTERNAL_HEADER}: {call.credential}"


async def test_only_another_node_removes_a_file_by_its_path(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(auth="token")
    known = f"X-Auth-Token: {gateway.resources.base.shared.token}"
    await put(gateway, "/upload/a", b"x", known)
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("DELETE", "/-/objects/upload/a", known))
        assert (await connection.answer()).status == 403
    assert (tmp_path / "data/upload/a").exists()
    async with raw_connection(gateway) as connection:
        node = internal(gateway, "DELETE", "/-/objects/upload/a")
        await connection.send(request_head("DELETE", "/-/objects/upload/a", node))
        assert (await connection.answer()).status == 204
        await connection.send(request_head("DELETE", "/-/objects/upload/a", node))
        assert (await connection.answer()).status == 404
    assert not (tmp_path / "data/upload/a").exists()


@pytest.mark.parametrize("if_match", ['"another"', 'W/"another"', '"a", "b"'])
async def test_another_version_than_if_match_names_is_not_removed(
    start_gateway: StartGateway, tmp_path: Path, if_match: str
) -> None:
    gateway = await start_gateway(auth="none")
    await put(gateway, "/upload/a", b"x")
    node = internal(gateway, "DELETE", "/-/objects/upload/a")
    status = 412 if if_match == '"another"' else 400
    async with raw_connection(gateway) as connection:
        other = f"If-Match: {if_match}"
        await connection.send(request_head("DELETE", "/-/objects/upload/a", node, other))
        assert (await connection.answer()).status == status
        etag = (await gateway.resources.scripts.files.stat("/upload/a")).etag
        assert (tmp_path / "data/upload/a").exists()
        same = f'If-Match: "{etag}"'
        await connection.send(request_head("DELETE", "/-/objects/upload/a", node, same))
        assert (await connection.answer()).status == 204
