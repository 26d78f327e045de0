"""`GET /-/doctor`: what the checks find about the running gateway."""

from __future__ import annotations

import asyncio
import sys

import pytest

from gateway.auth.tokens import token_digest
from gateway.endpoints.admin import doctor
from tests.conftest import StartGateway
from tests.support.harness import get, wait_until

SLOW = (sys.executable, "-c", "print('{}', flush=True); import time; time.sleep(600)")


async def test_the_checks_find_the_running_gateway_without_its_flags(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(auth="token", tokens=[f"alice:{token_digest('secret')}"])
    bearer = "Authorization: Bearer secret"
    assert (await get(gateway, "/-/doctor")).status == 401
    first, second = await asyncio.gather(
        get(gateway, "/-/doctor", bearer), get(gateway, "/-/doctor", bearer)
    )
    assert first.status == 200
    assert first.json == second.json, "two that ask at once get one result"
    assert first.json["complete"]
    texts = [finding["text"] for finding in first.json["findings"]]
    assert f"directory {gateway.resources.settings.directory} is writable" in texts
    assert any(f"a server answers 200 at {gateway.url}/-/health" in text for text in texts)
    assert "secret" not in str(first.json)
    assert token_digest("secret") not in str(first.json)
    assert (await get(gateway, "/-/doctor?refresh=true", bearer)).json["time"] == first.json["time"]


async def test_checks_that_hang_are_ended_and_what_they_found_is_told_as_not_complete(
    start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "TIMEOUT", 1.0)
    gateway = await start_gateway()
    endpoint = doctor.DoctorEndpoint(gateway.resources.settings, SLOW)
    gateway.endpoints.dispatcher.api.handlers.update(endpoint.handlers())
    answer = await get(gateway, "/-/doctor")
    assert (answer.json["complete"], answer.json["findings"]) == (False, [{}])


async def test_a_gateway_that_stops_waits_for_no_check(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    endpoint = doctor.DoctorEndpoint(gateway.resources.settings, SLOW)
    gateway.endpoints.dispatcher.api.handlers.update(endpoint.handlers())
    asking = asyncio.create_task(get(gateway, "/-/doctor"))
    await wait_until(lambda: endpoint._running is not None)
    endpoint.stop()
    await asyncio.gather(asking, return_exceptions=True)
    assert endpoint._running is None
