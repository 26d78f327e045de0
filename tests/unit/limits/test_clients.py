"""Whom a request counts for."""

from __future__ import annotations

from gateway.limits import client_key


def test_a_principal_counts_for_itself_from_any_address() -> None:
    principal = {"kind": "token", "name": "ci"}
    assert client_key(principal, "192.0.2.1") == client_key(principal, "192.0.2.2")
    assert client_key(principal, "192.0.2.1") != client_key({"kind": "jwt", "name": "ci"}, "192.0.2.1")


def test_an_unknown_client_counts_by_its_address() -> None:
    assert client_key(None, "192.0.2.1") == "address 192.0.2.1"
    assert client_key(None, "::ffff:192.0.2.1") == "address 192.0.2.1"


def test_all_addresses_that_one_ipv6_client_can_use_count_together() -> None:
    assert client_key(None, "2001:db8::1") == client_key(None, "2001:db8::ffff:2")
    assert client_key(None, "2001:db8::1") != client_key(None, "2001:db8:0:1::1")


def test_the_holders_of_signed_urls_count_by_address() -> None:
    signed = {"kind": "signed", "name": "signed"}
    assert client_key(signed, "192.0.2.1") == "address 192.0.2.1"
