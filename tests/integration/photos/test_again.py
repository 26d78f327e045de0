"""plugins/photos when things come twice, or the gateway is killed in between."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from gateway.server.app import Gateway
from tests.conftest import StartGateway, StartProcess
from tests.integration.photos.conftest import PLUGIN, url_of
from tests.integration.photos.service import Client
from tests.support import PROJECT
from tests.support.harness import files_below, wait_settled
from tests.support.pictures import photo, picture

URLS = {"url", "thumbnailUrl", "originalUrl"}


async def replay(client: Client) -> int:
    where = f"{client.url}/-/events/replay"
    status, told = await client.ask("POST", where, json={"handler": "processPhoto"})
    assert status == 200
    return int(told["count"])


def lying(gateway: Gateway) -> dict[str, tuple[int, bytes]]:
    """What is stored: each file's inode and bytes."""
    root = gateway.resources.settings.directory
    found = files_below(root)
    return {
        name: ((root / name).stat().st_ino, content)
        for name, content in found.items()
        if not name.startswith(".gateway/")
    }


async def test_a_second_run_changes_nothing(start_gateway: StartGateway, session: ClientSession) -> None:
    gateway = await start_gateway(auth="none", plugins=[str(PLUGIN)])
    client = Client(session, url_of(gateway))
    ids = [await client.upload(picture()), await client.upload(b"I am no picture")]
    before = await client.looked_at(*ids)
    await wait_settled(gateway)
    stored = lying(gateway)
    assert await replay(client) == 2
    await wait_settled(gateway)
    assert _without_urls(await client.looked_at(*ids)) == _without_urls(before)
    assert lying(gateway) == stored
    assert len(stored) == 3

    assert (await client.ask("DELETE", f"{client.photos}/{ids[0]}"))[0] == 204
    assert await replay(client) == 2
    await wait_settled(gateway)
    assert await client.listed() == []
    assert lying(gateway) == {}


def _without_urls(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in one.items() if key not in URLS} for one in told]


async def test_another_object_under_uploads_is_left_alone(
    start_gateway: StartGateway, session: ClientSession
) -> None:
    gateway = await start_gateway(auth="none", plugins=[str(PLUGIN)])
    client = Client(session, url_of(gateway))
    said = {"photoid": "0" * 8, "eventid": "1234", "contenttype": "image/png"}
    other = "1d80868b-b05b-4ac7-ae52-bdb2dfb9b637"
    for path, metadata in (
        ("/uploads/readme.txt", {}),
        ("/uploads/event_1234/a.png", said),
        ("/uploads/event_9/x.png", {**said, "photoid": other}),
        ("/uploads/event_1234/b.png", {**said, "photoid": other, "contenttype": "text/html"}),
    ):
        url = str(await gateway.resources.plugins.services.sign_url("PUT", path, metadata=metadata))
        assert await client.put(url, picture()) == 201
    await wait_settled(gateway)
    assert await client.listed() == []
    assert len(lying(gateway)) == 4


async def test_rejected_photos_are_forgotten_after_a_while_and_good_ones_never(
    start_gateway: StartGateway, session: ClientSession
) -> None:
    from photo_process import tidy

    gateway = await start_gateway(auth="none", plugins=[str(PLUGIN)])
    client = Client(session, url_of(gateway))
    ids = [await client.upload(picture()), await client.upload(b"I am no picture")]
    await client.looked_at(*ids)
    await wait_settled(gateway)
    lent = gateway.resources.plugins.services
    assert await tidy(lent.records("photos"), lent.files, days=7) == 0
    assert len(await client.looked_at(*ids)) == 2
    assert await tidy(lent.records("photos"), lent.files, days=-1) == 1
    _, found = await client.ask("GET", f"{client.photos}?ids={','.join(ids)}")
    assert [one["id"] for one in found["photos"]] == ids[:1]
    assert len(lying(gateway)) == 3


def test_without_pillow_the_plugins_are_not_loaded_and_it_is_said_what_to_install(
    tmp_path: Path,
) -> None:
    missing = tmp_path / "PIL"
    missing.mkdir()
    (missing / "__init__.py").write_text("raise ImportError('there is no PIL here')")
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "check", "--plugins", str(PLUGIN)],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{PROJECT}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "pip install '.[photos]'" in done.stderr
    assert "process.yaml:" in done.stderr


@pytest.mark.slow
async def test_a_photo_is_looked_at_also_where_the_gateway_was_killed_right_behind_its_answer(
    gateway_process: StartProcess, session: ClientSession, tmp_path: Path
) -> None:
    flags = ("--auth", "none", "--plugins", str(PLUGIN))
    first = gateway_process(*flags)
    client = Client(session, first.url)
    photo_ids = [await client.upload(photo(), contentType="image/jpeg") for _ in range(3)]
    first.kill()
    second = gateway_process(*flags)
    client = Client(session, second.url)
    assert {one["state"] for one in await client.looked_at(*photo_ids)} == {"ready"}
    assert len(await client.listed()) == 3
