"""DELETE over real sockets: what is removed, what stays, and who may."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from urllib.parse import quote

import pytest

from gateway.server.app import Gateway
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
from tests.support.hostile_paths import BAD_NAMES
from tests.support.recorders import recording_events


async def delete(gateway: Gateway | GatewayProcess, target: str, *lines: str) -> RawResponse:
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("DELETE", target, *lines))
        return await connection.answer()


async def test_off_is_off_and_allow_tells_it(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    await put(gateway, "/upload/x", b"x")
    answer = await delete(gateway, "/upload/x")
    assert (answer.status, answer.headers["Allow"]) == (405, "PUT, POST")
    assert (await delete(gateway, "/upload/")).status == 405
    assert b"x" in files_below(gateway.resources.settings.directory / "upload").values()


@pytest.mark.parametrize("resumable", [True, False])
async def test_who_ends_a_partial_upload_never_removes_the_file_of_its_name(
    start_gateway: StartGateway, resumable: bool
) -> None:
    gateway = await start_gateway(deletes=True, resumable=resumable)
    await put(gateway, "/upload/x", b"x")
    reference = "01ARZ3NDEKTSV4RRFFQ69G5FAV-0.secret"
    for query in (f"?upload={reference}", f"?%75pload={reference}", "?upload="):
        assert (await delete(gateway, f"/upload/x{query}")).status == 404
    assert (await delete(gateway, "/upload/x", "Tus-Resumable: 1.0.0")).status == 404
    assert b"x" in files_below(gateway.resources.settings.directory / "upload").values()


async def test_curl_removes_a_file(start_gateway: StartGateway, tmp_path: Path) -> None:
    with recording_events() as recorder:
        plugins = recorder.write_handler(tmp_path / "p", "APIGW.OnFileDeleted", "gone")
        gateway = await start_gateway(deletes=True, downloads=True, plugins=plugins)
        target = f"/upload/a/{quote('Grüße 😀.txt')}"
        await put(gateway, target, b"hello")
        url = gateway.url + target
        done = await curl("-X", "DELETE", url)
        assert (done.status, done.body) == (204, "")
        assert (await curl(url)).status == 404
        assert (await curl("-X", "DELETE", url)).status == 404
        _, event = await recorder.next_event()
        assert event["path"] == "/upload/a/Grüße 😀.txt"
        assert event["filepath"] is None
        assert "headers" not in event
    other = await curl("-X", "PATCH", url)
    assert other.status == 405


async def test_if_match_compares(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(deletes=True, downloads=True)
    await put(gateway, "/upload/x", b"x")
    etag = (await get(gateway, "/upload/x")).headers["ETag"]
    for lines, status in (
        (['If-Match: "other"'], 412),
        ([f"If-Match: W/{etag}"], 412),
        (["If-Match: x"], 400),
        (["If-Match: "], 400),
        (["If-None-Match: *"], 412),
        (["If-Unmodified-Since: Sun, 29 Nov 2026 00:00:00 GMT"], 412),
        (['If-Match: "a", "b,c"'], 412),
    ):
        assert (await delete(gateway, "/upload/x", *lines)).status == status, lines
    assert (await delete(gateway, "/upload/x", 'If-Match: "a"', f"If-Match: {etag}")).status == 204
    await put(gateway, "/upload/y", b"y")
    assert (await delete(gateway, "/upload/y", "If-Match: *")).status == 204
    assert (await delete(gateway, "/upload/y", "If-Match: *")).status == 404


async def test_no_path_leads_out_and_folders_stay(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway(deletes=True)
    upload = gateway.resources.settings.directory / "upload"
    await put(gateway, "/upload/folder/x", b"x")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    (upload / "link").symlink_to(tmp_path / "outside")
    (upload / "file").symlink_to(tmp_path / "outside" / "secret")
    os.mkfifo(upload / "pipe")
    for name in (*BAD_NAMES.split(" "), "../.gateway/journal-0.db", "link/secret", "file", "pipe"):
        assert (await delete(gateway, f"/upload/{name}")).status in {400, 404, 409}, name
    for name in ("folder", "folder/", "", "link/", "folder/x/"):
        assert (await delete(gateway, f"/upload/{name}")).status in {404, 409}, name
    assert (tmp_path / "outside" / "secret").read_bytes() == b"secret"
    assert (upload / "link").is_symlink()
    assert (upload / "file").is_symlink()
    assert (upload / "folder" / "x").read_bytes() == b"x"


async def test_protected_places_stay(start_gateway: StartGateway, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path / "data" / "upload" / "plugins", "name: c\nconfig: {}\n", "p.yaml")
    gateway = await start_gateway(deletes=True, plugins=[str(plugin)])
    assert (await delete(gateway, "/upload/plugins/p.yaml")).status == 403
    assert (plugin / "p.yaml").exists()


# -- who may


DECIDING = """
name: decide
event: APIGW.OnFileDeleting
timeout: 1
script: |
  import time
  async def decide(event, handle):
      name = event["path"].rpartition("/")[2]
      if name == "kept":
          await handle.terminate(code=403, output={"reason": "kept"})
      if name == "fails":
          raise ValueError(name)
      if name == "blocks":
          time.sleep(30)
      if name == "out":
          event["path"] = "/upload/../.gateway/journal-0.db"
      if name == "alias":
          event["path"] = "upload/real"
"""


async def test_a_token_is_asked_for(start_gateway: StartGateway) -> None:
    digest = hashlib.sha256(b"T").hexdigest()
    gateway = await start_gateway(deletes=True, auth="token", tokens=[f"me:{digest}"])
    await put(gateway, "/upload/x", b"x", "X-Auth-Token: T")
    assert (await delete(gateway, "/upload/x")).status == 401
    assert (await delete(gateway, "/upload/none")).status == 401
    assert (await delete(gateway, "/upload/x", "X-Auth-Token: T")).status == 204


async def test_handlers_decide_instead_and_fail_closed(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "p", DECIDING)
    digest = hashlib.sha256(b"T").hexdigest()
    gateway = await start_gateway(
        deletes=True, auth="token", tokens=[f"me:{digest}"], plugins=[str(folder)]
    )
    for name in ("kept", "fails", "blocks", "real", "plain"):
        await put(gateway, f"/upload/{name}", name.encode(), "X-Auth-Token: T")
    refused = await delete(gateway, "/upload/kept")
    assert (refused.status, refused.json) == (403, {"reason": "kept"})
    for name in ("fails", "blocks", "out"):
        failed = await delete(gateway, f"/upload/{name}")
        assert (failed.status, failed.json["error"]) == (503, "hook_failed"), name
    assert (await delete(gateway, "/upload/alias")).status == 204
    assert (await delete(gateway, "/upload/plain")).status == 204
    left = files_below(gateway.resources.settings.directory / "upload")
    assert set(left) == {"kept", "fails", "blocks"}


async def test_a_handler_that_keeps_the_authorization_does_not_replace_it(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    folder = write_plugin(tmp_path / "p", DECIDING + "authorization: keep\n")
    gateway = await start_gateway(deletes=True, auth="token", plugins=[str(folder)])
    assert (await delete(gateway, "/upload/x")).status == 401


# -- races


async def test_a_file_that_is_replaced_all_the_time_is_removed_in_whole_versions(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    """Every version that an event names was there, and no answered upload is lost without one."""
    with recording_events() as recorder:
        plugins = recorder.write_handler(tmp_path / "p", "APIGW.OnFileDeleted", "gone")
        gateway = await start_gateway(deletes=True, downloads=True, plugins=plugins)

        async def replace() -> int:
            answers = [await put(gateway, "/upload/x", b"x" * number) for number in range(1, 40)]
            return sum(answer.status == 201 for answer in answers)  # it was not there: it was removed

        async def remove() -> int:
            answers = [await delete(gateway, "/upload/x") for _ in range(40)]
            assert {answer.status for answer in answers} <= {204, 404}
            return sum(answer.status == 204 for answer in answers)

        created, first, second = await asyncio.gather(replace(), remove(), remove())
        last = (await get(gateway, "/upload/x")).status == 200
        removed = first + second
        assert created - removed == (1 if last else 0)
        etags = {(await recorder.next_event())[1]["etag"] for _ in range(removed)}
        assert len(etags) == removed
        await wait_settled(gateway)
        assert recorder.is_empty()


@pytest.mark.slow
async def test_three_processes_remove_each_file_once(
    gateway_process: StartProcess, tmp_path: Path
) -> None:
    with recording_events() as recorder:
        (plugins,) = recorder.write_handler(tmp_path / "p", "APIGW.OnFileDeleted", "gone")
        gateway = gateway_process("--deletes", "--processes", "3", "--plugins", plugins)
        names = [f"/upload/{number}" for number in range(30)]
        for name in names:
            assert (await put(gateway, name, b"x")).status == 201
        answers = await asyncio.gather(*(delete(gateway, name) for name in names for _ in range(3)))
        statuses = [answer.status for answer in answers]
        assert statuses.count(204) == 30
        assert statuses.count(404) == 60
        paths = [(await recorder.next_event())[1]["path"] for _ in names]
        assert sorted(paths) == sorted(names)
        await wait_settled(gateway)
        assert recorder.is_empty()
    assert files_below(tmp_path / "data/upload") == {}


async def test_a_failing_handler_of_a_deletion_is_retried_and_dead_and_replayed(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    marker = tmp_path / "works"
    folder = write_plugin(
        tmp_path / "p",
        f"""
name: gone
event: APIGW.OnFileDeleted
retry: {{attempts: 2, backoff: 0.001}}
script: |
  import os
  async def gone(event, handle):
      if not os.path.exists("{marker}"):
          raise RuntimeError("no luck")
""",
    )
    gateway = await start_gateway(deletes=True, plugins=[str(folder)])
    await put(gateway, "/upload/x", b"x")
    assert (await delete(gateway, "/upload/x")).status == 204
    await wait_settled(gateway)
    (row,) = (await get(gateway, "/-/events?state=dead")).json["deliveries"]
    assert (row["event"], row["path"], row["attempt"]) == ("APIGW.OnFileDeleted", "/upload/x", 2)
    marker.touch()
    done = await curl(
        "-H",
        "Content-Type: application/json",
        "-d",
        '{"state": "dead"}',
        f"{gateway.url}/-/events/retry",
    )
    assert done.status == 200
    await wait_settled(gateway)
    (row,) = (await get(gateway, "/-/events")).json["deliveries"]
    assert row["state"] == "done"
