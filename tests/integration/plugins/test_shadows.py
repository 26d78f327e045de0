"""Shadows in a gateway: beside every kind of decision, on both paths, with the files they read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.auth.tokens import token_digest
from gateway.domain.model import DELETING, DOWNLOADING, LISTING, RECEIVED, UPLOADING
from gateway.server.app import Gateway
from tests.conftest import StartGateway
from tests.support.harness import files_below, get, put, raw_connection, request_head, wait_until
from tests.support.recorders import write_handler
from tests.support.webhook_receiver import WebhookReceiver, answer

pytestmark = pytest.mark.both_paths

SHADOW = "shadow: true\n"
KEY = "Authorization: Bearer secret-of-the-token"
READING = """
async with files.open(event) as file:
    content = await file.read()
with open(event["filepath"], "rb") as file:
    assert file.read() == content
assert event["bytes"] == len(content)
if content.startswith(b"bad"):
    handle.terminate(422, "bad")
event["metadata"]["seen"] = "yes"
"""


async def counted(gateway: Gateway, total: int, *lines: str) -> dict[str, int]:
    """Return what became of the shadows, by handler and kind, once there are `total`."""
    found: dict[str, int] = {}

    async def all_ended() -> bool:
        text = (await get(gateway, "/-/metrics", *lines)).body.decode()
        pattern = r'^gateway_shadow_(\w+)_total\{handler="(\w+)"\} (\d+)'
        rows = re.findall(pattern, text, re.MULTILINE)
        found.update({f"{name} {kind}": int(count) for kind, name, count in rows})
        return sum(found.values()) >= total

    await wait_until(all_ended)
    return found


async def test_a_shadow_changes_no_answer_and_is_compared_with_the_default_authorization(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    body = "if event['path'].endswith('x'): handle.terminate(401)\nevent['path'] = '/upload/moved'"
    plugins = write_handler(tmp_path / "p", body, name="z", more=SHADOW)
    digest = token_digest("secret-of-the-token")
    gateway = await start_gateway(plugins=plugins, auth="token", tokens=[f"a:{digest}"])
    assert (await put(gateway, "/upload/x", b"a", KEY)).status == 201
    assert (await put(gateway, "/upload/x", b"a")).status == 401
    assert (await put(gateway, "/upload/y", b"a", KEY)).status == 201
    assert sorted(files_below(tmp_path / "data/upload")) == ["x", "y"]
    assert await counted(gateway, 3, KEY) == {"z differences": 2, "z agreements": 1}


async def test_shadows_of_other_requests_change_nothing(
    start_gateway: StartGateway, tmp_path: Path
) -> None:
    folder = tmp_path / "p"
    for name, event in (("d", DOWNLOADING), ("l", LISTING), ("r", DELETING)):
        write_handler(folder, "handle.terminate(403)", name=name, event=event, more=SHADOW)
    gateway = await start_gateway(plugins=[str(folder)], listing=True, deletes=True, downloads=True)
    assert (await put(gateway, "/upload/x", b"abc")).status == 201
    assert (await get(gateway, "/upload/x")).body == b"abc"
    assert (await get(gateway, "/upload/")).status == 200
    async with raw_connection(gateway) as connection:
        await connection.send(request_head("DELETE", "/upload/x"))
        assert (await connection.answer()).status == 204
    assert await counted(gateway, 3) == dict.fromkeys(
        ("d differences", "l differences", "r differences"), 1
    )


@pytest.mark.parametrize("real", ["none", "waits", "holds"])
async def test_a_shadow_reads_the_whole_file_whatever_becomes_of_it_meanwhile(
    start_gateway: StartGateway, tmp_path: Path, real: str
) -> None:
    folder = tmp_path / "p"
    slow = "await asyncio.sleep(0.3)" + READING
    write_handler(folder, slow, name="z", event=RECEIVED, more=SHADOW)
    if real != "none":
        more = "hold: true\n" if real == "holds" else ""
        write_handler(folder, READING, name="a", event=RECEIVED, more=more)
    gateway = await start_gateway(plugins=[str(folder)])
    for name, content in (("good", b"good"), ("bad", b"bad"), ("large", b"good" * 400_000)):
        status = (await put(gateway, f"/upload/{name}", content)).status
        if real == "none":
            assert status == 201
        else:
            waiting = 422 if name == "bad" else 201
            assert status == (202 if real == "holds" else waiting)
    outcome = await counted(gateway, 3)
    # Without a real handler nobody refuses the bad file, and nobody adds metadata.
    assert outcome == ({"z differences": 3} if real == "none" else {"z agreements": 3})
    stored = files_below(tmp_path / "data/upload")
    assert set(stored) == {"good", "large"} | ({"bad"} if real == "none" else set())
    assert not gateway.resources.scripts.files.private._loans


async def test_a_deciding_webhook_is_tried_as_a_shadow(
    start_gateway: StartGateway, tmp_path: Path, receiver: WebhookReceiver
) -> None:
    receiver.answers = [answer(403, b"no")]
    (tmp_path / "p").mkdir()
    (tmp_path / "p/gate.yaml").write_text(
        f"name: gate\nshadow: true\nwebhook:\n  url: {receiver.url}\n  events: [{UPLOADING}]\n"
        "  decide: true\n"
    )
    gateway = await start_gateway(plugins=[str(tmp_path / "p")])
    assert (await put(gateway, "/upload/x", b"a")).status == 201
    assert (await receiver.next()).message["data"]["path"] == "/upload/x"
    assert await counted(gateway, 1) == {"gate differences": 1}
