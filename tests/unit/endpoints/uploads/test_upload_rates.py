"""Rates of uploads: counted over all processes, told in the headers of the draft, refused."""

from __future__ import annotations

import pytest

from gateway.domain.model import Upload
from gateway.domain.quotas import Quota, QuotaLimits
from gateway.domain.units import RequestRate
from gateway.endpoints.uploads.upload_rates import UploadRates
from gateway.errors import RecordsUnavailable, Refusal
from gateway.limits import FixedWindowCounters

RATE = QuotaLimits(requests=RequestRate(2, 60.0))
QUOTAS = [Quota(RATE, per="principal"), Quota(QuotaLimits(requests=RequestRate(9, 1.0)), prefix="/a ü/")]


def upload(path: str = "/x", name: str = "alice") -> Upload:
    return Upload("U", path, principal={"name": name, "kind": "token"}, remote="192.0.2.1")


async def test_each_client_has_its_own_window_and_is_told_what_is_left() -> None:
    refused: list[str] = []
    rates = UploadRates(QUOTAS, FixedWindowCounters(), refused.append)
    headers = await rates.count(upload("/a ü/x"))
    assert headers == {
        "RateLimit-Policy": '"per principal";q=2;w=60, "prefix /a %C3%BC/";q=9;w=1',
        "RateLimit": '"per principal";r=1;t=60, "prefix /a %C3%BC/";r=8;t=1',
    }
    assert (await rates.count(upload()))["RateLimit"] == '"per principal";r=0;t=60'
    with pytest.raises(
        Refusal, match=r"per principal alice \(token\): the limit of 2/m requests"
    ) as raised:
        await rates.count(upload())
    assert (raised.value.code, raised.value.headers["Retry-After"]) == ("too_many_requests", "60")
    assert refused == ["requests"]
    assert rates.count_now(upload(name="bob"))


async def test_an_upload_that_no_rate_covers_has_no_headers() -> None:
    rates = UploadRates([QUOTAS[1]], FixedWindowCounters(), print)
    assert await rates.count(upload()) == {}
    assert not rates.waits


async def test_counters_of_several_nodes_that_cannot_be_reached_refuse() -> None:
    async def count_shared(key: str, rate: RequestRate) -> tuple[int, float]:
        raise RecordsUnavailable("gone")

    rates = UploadRates(QUOTAS, FixedWindowCounters(), print, count_shared)
    assert rates.waits
    with pytest.raises(Refusal) as raised:
        await rates.count(upload())
    assert raised.value.code == "records_unavailable"
