"""Hosts and ports: brackets around IPv6, loopback instead of all interfaces."""

from __future__ import annotations

import pytest

from gateway.domain.addresses import ALL_INTERFACES, connectable_host, host_name, host_port


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "127.0.0.1:8080"),
        ("files.example", "files.example:8080"),
        ("::1", "[::1]:8080"),
        ("2001:db8::1", "[2001:db8::1]:8080"),
    ],
)
def test_only_an_ipv6_address_stands_in_brackets(host: str, expected: str) -> None:
    assert host_port(host, 8080) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("0.0.0.0", "127.0.0.1"),
        ("::", "::1"),
        ("10.0.0.7", "10.0.0.7"),
        ("files.example", "files.example"),
    ],
)
def test_all_interfaces_are_reached_by_loopback_of_the_same_family(host: str, expected: str) -> None:
    assert connectable_host(host) == expected
    assert (host in ALL_INTERFACES) == (host != expected)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("Files.Example.:8080", "files.example"),
        ("files.example:", "files.example"),
        ("10.0.0.7:80", "10.0.0.7"),
        ("[2001:DB8:0::1]:80", "[2001:db8::1]"),
        ("", ""),
        ("files.example..", None),
        ("files.example:80:80", None),
        ("files.example:http", None),
        ("user@files.example", None),
        ("files%2eexample", None),
        ("[::1", None),
        ("[1.2.3.4]", None),
        ("2001:db8::1", None),
        ("a" * 254, None),
    ],
)
def test_the_name_in_a_host_field_has_one_spelling(field: str, expected: str | None) -> None:
    assert host_name(field) == expected
