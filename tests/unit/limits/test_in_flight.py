"""Requests in flight, counted by one process and by several."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from gateway.errors import Refusal
from gateway.limits import locks
from gateway.limits.in_flight import InFlightLease, InFlightTable


@pytest.fixture
def shared() -> Iterator[InFlightTable]:
    table = InFlightTable(processes=3)
    yield table
    table.close()


def fork(work: Callable[[], object]) -> int:
    """Run `work` in a process that ends after it; return its pid."""
    if pid := os.fork():
        return pid
    try:
        work()
    finally:
        os._exit(0)


def refusal_of(table: InFlightTable, name: str, client: str, limit: int) -> str:
    with pytest.raises(Refusal) as refused:
        table.acquire(0, name, client, limit)
    assert int(refused.value.headers["Retry-After"]) > 0
    return refused.value.code


def test_clients_that_hold_nothing_get_every_place_and_no_more() -> None:
    table = InFlightTable()
    leases = [table.acquire(0, "r", f"client {number}", 5) for number in range(5)]
    assert refusal_of(table, "r", "another", 5) == "overloaded"
    table.acquire(0, "other", "another", 5)
    leases[2].close()
    leases[2].close()  # twice gives one back
    table.acquire(0, "r", "another", 5)
    assert refusal_of(table, "r", "last", 5) == "overloaded"


def test_one_client_gets_half_of_the_places_and_others_the_rest() -> None:
    table = InFlightTable()
    for _ in range(5):
        table.acquire(0, "r", "greedy", 10)
    assert refusal_of(table, "r", "greedy", 10) == "too_many_requests"
    for number in range(5):
        table.acquire(0, "r", f"client {number}", 10)
    assert refusal_of(table, "r", "greedy", 10) == "overloaded"


def test_a_single_place_is_for_whom_it_is_free() -> None:
    table = InFlightTable()
    lease = table.acquire(0, "r", "one", 1)
    assert refusal_of(table, "r", "one", 1) == "overloaded"
    lease.close()
    table.acquire(0, "r", "one", 1)


def test_a_limit_that_a_reload_lowers_is_that_of_the_next_request() -> None:
    table = InFlightTable()
    leases = [table.acquire(0, "r", f"client {number}", 5) for number in range(4)]
    assert refusal_of(table, "r", "another", 3) == "overloaded"
    for lease in leases[:2]:
        lease.close()
    table.acquire(0, "r", "another", 3)


def test_processes_count_together(shared: InFlightTable) -> None:
    for slot in range(3):
        shared.acquire(slot, "r", f"client {slot}", 3)
    assert refusal_of(shared, "r", "another", 3) == "overloaded"
    shared.acquire(1, "s", "greedy", 4)
    shared.acquire(2, "s", "greedy", 4)
    assert refusal_of(shared, "s", "greedy", 4) == "too_many_requests"


def test_processes_that_count_at_once_never_admit_more_than_the_limit(
    shared: InFlightTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "LOCK_TIMEOUT", 60.0)  # however busy the machine is

    def work(slot: int) -> None:
        for turn in range(2000):
            try:
                lease = shared.acquire(slot, "r", f"{slot} {turn}", 2)
            except Refusal:
                continue
            if shared.count(shared._cell_of(hash("r"))) > 2:
                os._exit(1)
            lease.close()

    children = [fork(lambda slot=slot: work(slot)) for slot in (1, 2)]  # type: ignore[misc]
    work(0)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert shared.acquire(0, "r", "last", 1)


def test_what_a_killed_process_had_is_free_once_its_row_is_cleared(shared: InFlightTable) -> None:
    ready, told = os.pipe()

    def hold() -> None:
        for number in range(3):
            shared.acquire(1, "r", f"client {number}", 4)
        os.write(told, b"x")
        signal.pause()

    child = fork(hold)
    os.read(ready, 1)
    kept = shared.acquire(0, "r", "mine", 4)
    assert refusal_of(shared, "r", "another", 4) == "overloaded"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    shared.clear(1)
    for number in range(3):
        shared.acquire(1, "r", f"client {number}", 4)
    assert refusal_of(shared, "r", "another", 4) == "overloaded"
    kept.close()


def test_keys_that_nothing_uses_make_room_for_others() -> None:
    table, held = InFlightTable(max_keys=64), list[InFlightLease]()
    for number in range(1000):
        held.append(table.acquire(0, f"route {number}", "client", 1))
        assert refusal_of(table, f"route {number}", "another", 1) == "overloaded"
        if len(held) > 2:
            held.pop(0).close()


def test_many_requests_of_many_routes_and_clients_are_told_apart() -> None:
    table = InFlightTable()
    for route in range(20):
        for client in range(200):
            table.acquire(0, f"route {route}", f"client {client}", 200)
        assert refusal_of(table, f"route {route}", "another", 200) == "overloaded"
