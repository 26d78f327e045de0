"""The page of plugins/photos while the gateway is away: what was sent stays sent, nothing is clicked."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.integration.photos.browser import visiting
from tests.integration.photos.conftest import PLUGIN
from tests.integration.photos.scenes import scene
from tests.support.cutting_relay import cutting_relay
from tests.support.harness import GatewayProcess, files_below, get, wait_until

pytestmark = pytest.mark.slow

SIZE = 6_000_000
LARGE = ("Lanterns.jpg", "image/jpeg", scene(4).ljust(SIZE, b"\0"))


async def kept_bytes(gateway: GatewayProcess) -> int:
    """The offset, durable, of the one upload that waits to go on; 0 while there is none."""
    waiting = (await get(gateway, "/-/uploads?state=waiting")).json["uploads"]
    return sum(upload["offset"] for upload in waiting)


async def test_an_upload_goes_on_by_itself_after_a_killed_gateway(tmp_path: Path) -> None:
    async with cutting_relay([2_000_000]) as relay, visiting() as visit:
        flags = ["--plugins", str(PLUGIN), "--public-url", relay.url]
        gateway = await asyncio.to_thread(GatewayProcess, tmp_path / "data", flags)
        try:
            relay.target, relay.refuses_after_cut = gateway.address, True
            await visit.open(relay.url)
            await visit.choose(LARGE)
            await relay.cut.wait()
            kept = await wait_until(lambda: kept_bytes(gateway))  # what has come is stored after the cut
            assert kept < SIZE
            gateway.kill()
            await expect(visit("#jobs .state")).to_contain_text("Interrupted at ")
            await expect(visit.page.get_by_role("button", name="Cancel Lanterns.jpg")).to_be_visible()
            gateway = await asyncio.to_thread(GatewayProcess, tmp_path / "data", flags)
            assert await kept_bytes(gateway) == kept
            relay.target = gateway.address
            await visit.shows(1)
            assert [len(body) for body in files_below(gateway.directory / "uploads").values()] == [
                6_000_000
            ]
        finally:
            gateway.kill()


async def test_all_that_failed_is_tried_again_with_one_button(tmp_path: Path) -> None:
    """A full disk refuses both for good, as far as the page can know."""
    full = ["--min-free-bytes", str(1 << 60)]
    async with cutting_relay() as relay, visiting() as visit:
        flags = ["--plugins", str(PLUGIN), "--public-url", relay.url]
        gateway = await asyncio.to_thread(GatewayProcess, tmp_path / "data", [*flags, *full])
        try:
            relay.target = gateway.address
            await visit.open(relay.url)
            await visit.choose(("one.jpg", "image/jpeg", scene(0)), ("two.jpg", "image/jpeg", scene(1)))
            await expect(visit("#jobs .failed")).to_have_count(2)
            await expect(visit("#summary")).to_have_text("2 not stored")
            gateway.kill()
            gateway = await asyncio.to_thread(GatewayProcess, tmp_path / "data", flags)
            relay.target = gateway.address
            await visit.page.get_by_role("button", name="Retry all").click()
            await visit.shows(2)
            await expect(visit("#uploads")).to_be_hidden()
        finally:
            gateway.kill()
