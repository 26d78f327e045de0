"""The door for stored files: the very file, as an attachment, for whoever may."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import StartGateway
from tests.support.harness import get, put, raw_connection, request_head


async def test_a_file_is_handed_over_as_an_attachment(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(auth="token")
    known = f"X-Auth-Token: {gateway.generated_token}"
    stored = await put(gateway, "/upload/a%20%C3%BC.html", b"<script>", known)
    upload_id = stored.json["upload_id"]
    answer = await get(gateway, f"/-/files/{upload_id}", known)
    assert (answer.status, answer.body) == (200, b"<script>")
    assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''a%20%C3%BC.html"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Type"] == "application/octet-stream"
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("HEAD", f"/-/files/{upload_id}", known))
        assert (await connection.answer(head=True)).headers["Content-Length"] == "8"


async def test_a_newer_file_is_never_handed_over_for_an_older_upload(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(auth="token")
    known = f"X-Auth-Token: {gateway.generated_token}"
    upload_id = (await put(gateway, "/upload/a", b"old", known)).json["upload_id"]
    await put(gateway, "/upload/a", b"new", known)
    assert (await get(gateway, f"/-/files/{upload_id}", known)).json["error"] == "superseded"
    assert (await get(gateway, "/-/files/nobody-knows", known)).status == 404


async def test_removing_takes_somebody_known(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway(auth="token")
    known = f"X-Auth-Token: {gateway.generated_token}"
    upload_id = (await put(gateway, "/upload/a", b"x", known)).json["upload_id"]
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("DELETE", f"/-/files/{upload_id}"))
        assert (await connection.answer()).status == 401
        await connection.send(request_head("DELETE", f"/-/files/{upload_id}", known))
        assert (await connection.answer()).status == 204
    assert not (tmp_path / "data/upload/a").exists()
    assert (await get(gateway, f"/-/files/{upload_id}", known)).status == 410


async def test_without_authorization_nobody_has_or_removes_others_files(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(auth="none")
    upload_id = (await put(gateway, "/upload/a")).json["upload_id"]
    assert (await get(gateway, f"/-/files/{upload_id}")).status == 403
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("DELETE", f"/-/files/{upload_id}"))
        assert (await connection.answer()).status == 403
    assert (tmp_path / "data/upload/a").exists()


async def test_only_our_own_kind_may_name_a_file_by_its_identity(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(auth="token")
    known = f"X-Auth-Token: {gateway.generated_token}"
    await put(gateway, "/upload/a", b"x", known)
    found = (tmp_path / "data/upload/a").stat()
    very = f"{found.st_dev}-{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"
    answer = await get(gateway, f"/-/files/unknown?path=/upload/a&is={very}", known)
    assert answer.status == 404
