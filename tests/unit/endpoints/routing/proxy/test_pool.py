"""The addresses of upstreams."""

from __future__ import annotations

import pytest

from gateway.endpoints.routing.proxy.pool import address_of


@pytest.mark.parametrize(
    ("upstream", "host", "port", "addresses"),
    [
        ("127.0.0.1:81", "127.0.0.1", 81, [("127.0.0.1", 81)]),
        ("[::1]:81", "::1", 81, [("::1", 81, 0, 0)]),
        ("10.0.0.1", "10.0.0.1", 80, [("10.0.0.1", 80)]),
        ("localhost:81", "localhost", 81, []),
        ("xn--strae-oqa.example", "xn--strae-oqa.example", 80, []),
    ],
)
def test_an_address_needs_no_look_up_and_a_name_stays_as_it_is_on_the_wire(
    upstream: str, host: str, port: int, addresses: list[tuple[object, ...]]
) -> None:
    found_host, found_port, literal = address_of(upstream)
    assert (found_host, found_port) == (host, port)
    assert [info[4] for info in literal] == addresses
