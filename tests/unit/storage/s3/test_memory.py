"""The memory of the parts of uploads: who gets it, and who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from gateway.errors import Refusal
from gateway.storage.s3.memory import MemoryBudget

PART = 8
LONG = 60.0


@pytest.fixture
def memory() -> MemoryBudget:
    return MemoryBudget(16 * PART)


Ask = Callable[[str], Coroutine[Any, Any, None]]


@pytest.fixture
def served(memory: MemoryBudget) -> list[str]:
    return []


@pytest.fixture
def ask(memory: MemoryBudget, served: list[str]) -> Ask:
    async def reserve(client: str) -> None:
        await memory.reserve(client, PART, LONG)
        served.append(client)

    return reserve


async def _all_waiting(*asking: Coroutine[Any, Any, None]) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(ask) for ask in asking]
    for _ in range(3):
        await asyncio.sleep(0)  # each has asked, and what was given to it has come
    return tasks


async def test_a_single_client_gets_half_and_one_that_holds_nothing_is_served_at_once(
    memory: MemoryBudget, ask: Ask, served: list[str]
) -> None:
    waiting = await _all_waiting(*(ask("greedy") for _ in range(20)))
    assert served == ["greedy"] * 8
    await asyncio.gather(*await _all_waiting(ask("other")))
    assert not waiting[-1].done()
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert memory.left == 7 * PART


async def test_what_is_given_back_goes_to_clients_in_turn(
    memory: MemoryBudget, ask: Ask, served: list[str]
) -> None:
    clients = [f"client {number}" for number in range(16)]
    await asyncio.gather(*(ask(client) for client in clients))
    served.clear()
    waiting = await _all_waiting(ask("a"), ask("a"), ask("a"), ask("b"), ask("c"))
    assert served == []
    for client in clients:
        memory.release(client, PART)
    await asyncio.gather(*waiting)
    assert served == ["a", "b", "c", "a", "a"]


async def test_parts_of_bodies_with_a_length_leave_half_and_get_a_share_of_the_rest(
    memory: MemoryBudget,
) -> None:
    assert [memory.try_reserve("greedy", PART) for _ in range(5)] == [True] * 4 + [False]
    assert memory.try_reserve("other", PART)
    others = [f"client {number}" for number in range(20)]
    assert [memory.try_reserve(client, PART) for client in others].count(True) == 3
    assert memory.left == 8 * PART


@pytest.mark.parametrize(
    ("client", "status", "message"),
    [
        ("greedy", 429, "uploads of this client hold 0 of the 0 MiB"),
        ("other", 503, "too many uploads of unknown length"),
    ],
)
async def test_who_gets_no_memory_is_told_why(
    memory: MemoryBudget, client: str, status: int, message: str
) -> None:
    for holder in ["greedy", *(f"client {number}" for number in range(15))]:
        await memory.reserve(holder, PART, LONG)
    with pytest.raises(Refusal, match=message) as refused:
        await memory.reserve(client, PART, 0)
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (status, "2")
    memory.release("greedy", PART)
    assert memory.left == PART
