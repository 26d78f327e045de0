"""Turns by client."""

from __future__ import annotations

import pytest

from gateway.limits import ClientTurns


@pytest.fixture
def turns() -> ClientTurns[str]:
    made: ClientTurns[str] = ClientTurns()
    for item in ("a1", "a2", "a3", "b1", "b2", "c1"):
        made.add(item[0], item)
    return made


def _take_all(turns: ClientTurns[str]) -> list[str]:
    return [item for _client, item in iter(turns.take, None)]


def test_clients_take_turns_each_with_its_items_in_their_order(turns: ClientTurns[str]) -> None:
    assert _take_all(turns) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_a_newcomer_waits_for_one_item_of_each_other_client(turns: ClientTurns[str]) -> None:
    assert turns.take() == ("a", "a1")
    turns.add("d", "d1")
    assert _take_all(turns) == ["b1", "c1", "a2", "d1", "b2", "a3"]


def test_a_client_that_may_not_go_delays_no_other_and_keeps_its_turn(turns: ClientTurns[str]) -> None:
    assert turns.take(lambda client, _item: client != "a") == ("b", "b1")
    assert turns.take(lambda _client, item: item == "x") is None
    assert _take_all(turns) == ["a1", "c1", "b2", "a2", "a3"]


def test_what_no_longer_waits_is_not_taken(turns: ClientTurns[str]) -> None:
    turns.remove("a", "a2")
    turns.remove("c", "c1")
    with pytest.raises(ValueError, match="not in"):
        turns.remove("c", "c1")
    assert _take_all(turns) == ["a1", "b1", "a3", "b2"]
