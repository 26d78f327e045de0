"""The id of a request: whose is kept, and what becomes of others."""

from __future__ import annotations

import ipaddress
import re

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.auth.request_ids import request_id
from gateway.auth.trusted_proxies import Proxies

PROXIES = Proxies([ipaddress.IPv4Network("10.0.0.0/8")])
OWN = re.compile(r"[0-9a-f]{16}")


def headers(*ids: str) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict([("Host", "x"), *(("x-request-id", each) for each in ids)]))


@pytest.mark.parametrize(
    "given", ["a", "0f8fad5b-d9cb-469f-a165-70867728950e", "A.b_c~d+e/f=g:h-1", "x" * 128]
)
def test_a_plain_id_of_a_trusted_proxy_is_kept(given: str) -> None:
    assert request_id(PROXIES, "10.0.0.1", headers(given)) == given


@pytest.mark.parametrize(
    "given", ["", " ", "a b", "a,b", "x" * 129, "<script>", 'a"b', "a{b}", "\u00e9", "a\x00", "%41"]
)
def test_any_other_is_replaced(given: str) -> None:
    assert OWN.fullmatch(request_id(PROXIES, "10.0.0.1", headers(given)))


@pytest.mark.parametrize("peer", ["192.0.2.1", None, "", "unix"])
def test_that_of_a_client_is_replaced(peer: str | None) -> None:
    assert OWN.fullmatch(request_id(PROXIES, peer, headers("theirs")))
    assert OWN.fullmatch(request_id(Proxies([]), "10.0.0.1", headers("theirs")))


def test_two_are_none() -> None:
    assert OWN.fullmatch(request_id(PROXIES, "10.0.0.1", headers("one", "two")))


def test_a_proxy_that_contradicts_itself_is_not_believed() -> None:
    lines = [("X-Request-Id", "a"), ("X-Forwarded-For", "192.0.2.1"), ("Forwarded", "for=192.0.2.2")]
    assert OWN.fullmatch(request_id(PROXIES, "10.0.0.1", CIMultiDict(lines)))


def test_without_one_each_request_gets_another() -> None:
    assert len({request_id(PROXIES, "10.0.0.1", headers()) for _ in range(100)}) == 100
