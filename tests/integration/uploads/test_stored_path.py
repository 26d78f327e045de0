"""Where files go, by the variables of the upload path."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import StartGateway
from tests.support.harness import files_below, get, put
from tests.support.recorders import captured_log

TENANTS = "/files/{team}/{filepath}"


async def test_two_tenants_keep_their_files_apart_with_a_stored_path(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    gateway = await start_gateway(
        file_upload_api_path=TENANTS, stored_path="/upload/{team}/{filepath}", downloads="true"
    )
    for team in ("red", "blue"):
        answer = await put(gateway, f"/files/{team}/a.txt", team.encode())
        assert (answer.status, answer.json["path"]) == (201, f"/upload/{team}/a.txt")
    assert files_below(tmp_path / "data/upload") == {"red/a.txt": b"red", "blue/a.txt": b"blue"}
    assert (await get(gateway, "/files/red/a.txt")).body == b"red"
    assert (await get(gateway, "/files/blue/?format=zip")).status == 200
    assert (await get(gateway, "/files/green/?format=zip")).status == 404


async def test_the_start_warns_where_one_tenant_replaces_the_file_of_another(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(file_upload_api_path=TENANTS)
    assert (await put(gateway, "/files/red/a.txt", b"red")).status == 201
    assert (await put(gateway, "/files/blue/a.txt", b"blue")).status == 200
    with captured_log() as lines:
        gateway.log_description()
    [line] = [line for line in lines if line.get("event") == "stored_path.shared"]
    assert line["level"] == "warning"
