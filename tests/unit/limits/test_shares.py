"""Fair shares of a bound."""

from __future__ import annotations

import pytest

from gateway.errors import Refusal
from gateway.limits import FairShare, Lease


def _take_all(share: FairShare, client: str) -> list[Lease]:
    leases = []
    while share.would_fit(client):
        leases.append(share.acquire(client))
    return leases


def test_a_single_client_gets_half_of_a_bound() -> None:
    share = FairShare("downloads", 1000)
    assert len(_take_all(share, "a")) == 500


def test_a_client_that_holds_nothing_is_served_while_others_take_all_they_can() -> None:
    share = FairShare("downloads", 64)
    for client in ("a", "b", "c"):
        _take_all(share, client)
    with share.acquire("newcomer"):
        assert share.held_by("newcomer") == 1
    assert share.held_by("newcomer") == 0


def test_what_is_given_back_can_be_taken_by_another_client() -> None:
    share = FairShare("downloads", 4)
    leases = _take_all(share, "a") + _take_all(share, "b")
    for lease in leases:
        lease.close()
        lease.close()
    assert share.used == 0
    assert len(_take_all(share, "b")) == 2


def test_a_client_that_holds_its_share_is_told_so_and_when_to_come_back() -> None:
    share = FairShare("downloads", 10)
    _take_all(share, "a")
    with pytest.raises(Refusal, match="this client holds 5 of at most 10 downloads") as caught:
        share.acquire("a")
    assert (caught.value.status, caught.value.headers["Retry-After"]) == (429, "2")


def test_a_full_bound_is_an_overload_for_those_that_hold_nothing() -> None:
    share = FairShare("connections", 1)
    with share.acquire("a"), pytest.raises(Refusal, match="at its limit of 1 connections") as caught:
        share.acquire("b")
    assert caught.value.status == 503


def test_a_refused_extension_keeps_what_is_held() -> None:
    share = FairShare("bytes", 100)
    with share.acquire("a", 40) as lease:
        with pytest.raises(Refusal):
            lease.extend(40)
        assert share.held_by("a") == 40
    assert share.used == 0
