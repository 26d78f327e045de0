"""The addresses of upstreams: when a name is looked up, and in which order they are tried."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import pytest
from aiohappyeyeballs import AddrInfoType

from gateway.endpoints.routing.proxy import addresses
from gateway.endpoints.routing.proxy.addresses import UpstreamAddresses, split_authority

TWO: list[AddrInfoType] = [
    (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 81)) for address in ("10.0.0.1", "10.0.0.2")
]


class Names:
    """Answers look-ups once it may; `asked` counts them."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.error: OSError | None = None

    async def resolve(self, host: str, port: int) -> Sequence[AddrInfoType]:
        assert (host, port) == ("api", 81)
        self.asked += 1
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return TWO


async def test_connections_that_are_opened_together_ask_once() -> None:
    names = Names()
    names.may_answer.clear()
    found = UpstreamAddresses(names.resolve)
    waiting = [asyncio.create_task(found.find("api:81")) for _ in range(9)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    names.may_answer.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert [set(result) for result in results[1:] if isinstance(result, tuple)] == [set(TWO)] * 8
    assert names.asked == 1


async def test_each_connection_tries_another_address_first() -> None:
    found = UpstreamAddresses(Names().resolve)
    firsts = [(await found.find("api:81"))[0] for _ in range(4)]
    assert firsts == TWO * 2


async def test_a_name_is_asked_for_again_after_a_failure_and_once_it_is_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(addresses, "ADDRESS_TTL", 0.0)
    names = Names()
    found = UpstreamAddresses(names.resolve)
    names.error = socket.gaierror("unknown")
    with pytest.raises(socket.gaierror):
        await found.find("api:81")
    names.error = None
    await asyncio.sleep(0)
    await found.find("api:81")
    assert names.asked == 2
    while found._names:
        await asyncio.sleep(0)
    await found.find("api:81")
    assert names.asked == 3
    found.forget("api:81")
    await found.find("api:81")
    assert names.asked == 4


@pytest.mark.parametrize(
    ("upstream", "host", "port", "literal"),
    [
        ("127.0.0.1:81", "127.0.0.1", 81, [("127.0.0.1", 81)]),
        ("[::1]:81", "::1", 81, [("::1", 81, 0, 0)]),
        ("10.0.0.1", "10.0.0.1", 80, [("10.0.0.1", 80)]),
        ("localhost:81", "localhost", 81, []),
        ("xn--strae-oqa.example", "xn--strae-oqa.example", 80, []),
    ],
)
def test_an_address_needs_no_look_up_and_a_name_stays_as_it_is_on_the_wire(
    upstream: str, host: str, port: int, literal: list[tuple[object, ...]]
) -> None:
    found_host, found_port, found = split_authority(upstream)
    assert (found_host, found_port) == (host, port)
    assert [info[4] for info in found] == literal
