"""Several ledgers as one, also over a socket: complete, in order, each delivery once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.errors import EventEngineUnavailable
from gateway.events.combined_ledger import CombinedLedger
from gateway.events.journal import Journal
from gateway.events.protocols import DeliveryPage, Ledger, Selection, State, run_all
from gateway.events.remote_ledger import (
    RemoteLedger,
    encode_depth,
    encode_history,
    encode_page,
    socket_session,
)
from tests.conftest import StartGateway
from tests.support.records import claim_deliveries, delivery_states, publish_uploads, settle_run


@pytest.fixture
def journals(tmp_path: Path) -> Iterator[list[Journal]]:
    opened = [Journal(tmp_path / f"journal-{number}.db", full=False) for number in range(3)]
    for journal in opened:
        journal.open()
    yield opened
    for journal in opened:
        journal.close()


def together(journals: list[Journal]) -> CombinedLedger:
    return CombinedLedger({f"slot-{at}": journal.ledger for at, journal in enumerate(journals)})


def dead(journal: Journal, *names: str) -> None:
    publish_uploads(journal, *names)
    for delivery in claim_deliveries(journal, "h", len(names)):
        settle_run(journal, delivery, "dead")


async def pages(ledger: Ledger, limit: int, state: State | None = None) -> list[DeliveryPage]:
    found: list[DeliveryPage] = []
    after: str | None = None
    while not found or after is not None:
        found.append(await ledger.page(Selection(state), after, limit))
        after = found[-1].next
    return found


async def names(ledger: Ledger, limit: int, state: State | None = None) -> list[str | None]:
    return [row.upload_id for page in await pages(ledger, limit, state) for row in page.rows]


# -- pages


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
async def test_pages_of_several_come_in_order_of_birth_without_gap_or_overlap(
    journals: list[Journal], limit: int
) -> None:
    order = [0, 1, 1, 1, 2, 0, 1, 2, 2, 2, 2, 0, 0, 0, 1]
    everything = [f"u{number:02}" for number in range(len(order))]
    for name, at in zip(everything, order, strict=True):
        publish_uploads(journals[at], name)
    assert await names(together(journals), limit) == everything
    assert all(len(page.rows) == limit for page in (await pages(together(journals), limit))[:-2])


async def test_a_part_that_is_empty_or_comes_later_is_no_hindrance(journals: list[Journal]) -> None:
    publish_uploads(journals[0], "a", "b")
    parts: dict[str, Ledger] = {"slot-0": journals[0].ledger}
    whole = CombinedLedger(parts)
    first = await whole.page(Selection(), None, 1)
    publish_uploads(journals[1], "c")
    parts["slot-1"] = journals[1].ledger
    assert first.next is not None
    second = await whole.page(Selection(), first.next, 9)
    assert [row.upload_id for row in second.rows] == ["b", "c"]
    assert second.next is None
    assert await CombinedLedger({}).page(Selection(), None, 9) == DeliveryPage([], None)


@pytest.mark.parametrize("cursor", ["x", "e30x", "W10", "eyJhIjogMX0", "", "\x00", "ä"])
async def test_a_cursor_that_is_none_is_told(journals: list[Journal], cursor: str) -> None:
    with pytest.raises(ValueError, match="invalid cursor"):
        await together(journals).page(Selection(), cursor, 9)


# -- all else


async def test_depths_add_up_and_the_oldest_counts(journals: list[Journal]) -> None:
    publish_uploads(journals[0], "a")
    publish_uploads(journals[2], "b", "c")
    dead(journals[1], "d")
    told = await together(journals).depth()
    assert [(one.handler, one.state, one.count) for one in told] == [("h", "dead", 1), ("h", "ready", 3)]
    [row, *_] = (await journals[0].ledger.page(Selection(), None, 1)).rows
    assert told[1].oldest == row.created


async def test_a_history_is_that_of_whoever_knows_the_event(journals: list[Journal]) -> None:
    dead(journals[1], "a")
    history = await together(journals).history("e-a")
    assert history is not None
    assert [run.outcome for run in history.deliveries[0].runs] == ["dead"]
    assert await together(journals).history("e-unknown") is None


async def test_where_two_know_a_delivery_its_runs_are_one_story_and_the_later_part_tells_the_state(
    journals: list[Journal],
) -> None:
    for journal, outcome in ((journals[0], "retry"), (journals[1], "dead")):
        publish_uploads(journal, "a", handlers=("h", "i") if outcome == "retry" else ("h",))
        settle_run(journal, claim_deliveries(journal)[0], outcome)
    history = await together(journals).history("e-a")
    assert history is not None
    assert [(story.row.handler, story.row.state) for story in history.deliveries] == [
        ("h", "dead"),
        ("i", "ready"),
    ]
    assert [run.outcome for run in history.deliveries[0].runs] == ["retry", "dead"]


async def test_steering_reaches_every_part_and_counts_them_all(journals: list[Journal]) -> None:
    for at, journal in enumerate(journals):
        dead(journal, *(f"u{at}{number}" for number in range(at + 1)))
    whole, told = together(journals), list[int]()
    assert await run_all(whole, "retry", Selection("dead"), told.append) == 6
    assert told == [1, 3, 6]
    assert await run_all(whole, "drop", Selection("ready")) == 6
    assert await run_all(whole, "replay", Selection(handler="h")) == 0
    assert await run_all(CombinedLedger({}), "retry", Selection("dead")) == 0


async def test_a_pause_is_everywhere(journals: list[Journal]) -> None:
    await together(journals).pause("h")
    for journal in journals:
        assert await journal.ledger.paused() == {"h"}
    await journals[0].ledger.resume("h")
    assert await together(journals).paused() == {"h"}
    await together(journals).resume("h")
    assert await together(journals).paused() == frozenset()


async def test_where_some_parts_hold_handlers_back_they_alone_are_asked_to_and_tell(
    journals: list[Journal],
) -> None:
    named = {f"slot-{at}": journal.ledger for at, journal in enumerate(journals)}
    whole = CombinedLedger(named, pausing={"slot-2": journals[2].ledger})
    await whole.pause("h")
    assert [await journal.ledger.paused() for journal in journals] == [set(), set(), {"h"}]
    await journals[0].ledger.pause("left from before")
    assert await whole.paused() == {"h"}
    await whole.resume("h")
    await whole.resume("left from before")
    assert [await journal.ledger.paused() for journal in journals] == [set()] * 3


async def test_handlers_of_held_uploads_are_paused_in_the_journals_of_the_processes(
    journals: list[Journal],
) -> None:
    named = {
        name: journal.ledger
        for name, journal in zip(("slot-0", "slot-1", "nats"), journals, strict=True)
    }
    pausing = {"nats": journals[2].ledger}
    whole = CombinedLedger(named, pausing, ("slot-0", "slot-1"), held=lambda: {"judge"})
    await whole.pause("judge")
    await whole.pause("h")
    paused = [await journal.ledger.paused() for journal in journals]
    assert paused == [{"judge"}, {"judge"}, {"h"}]
    assert await whole.paused() == {"judge", "h"}
    await whole.resume("judge")
    assert await whole.paused() == {"h"}


async def test_a_part_that_cannot_be_asked_is_not_passed_over(journals: list[Journal]) -> None:
    journals[1].close()
    with pytest.raises(EventEngineUnavailable):
        await together(journals).page(Selection(), None, 9)
    with pytest.raises(EventEngineUnavailable):
        await run_all(together(journals), "retry", Selection("dead"))


# -- over HTTP


@pytest.fixture
async def remote(start_gateway: StartGateway) -> AsyncIterator[tuple[Journal, RemoteLedger]]:
    """A running gateway's journal, and its ledger as another process has it."""
    gateway = await start_gateway()
    with gateway.resources.base.directory.short_socket_path() as path:
        async with socket_session(path) as session:
            yield gateway.resources.journal, RemoteLedger(session, alone=True)


Remote = tuple[Journal, RemoteLedger]


async def test_a_remote_ledger_tells_what_the_ledger_itself_tells(remote: Remote) -> None:
    journal, ledger = remote
    dead(journal, "a", "ö")
    publish_uploads(journal, "b")
    for selection in (Selection(), Selection("dead", "h", 1.5, ("e-a", "e-ö")), Selection("done")):
        page, own = await ledger.page(selection, None, 9), await journal.ledger.page(selection, None, 9)
        assert encode_page(page) == encode_page(own)
    assert encode_depth(await ledger.depth()) == encode_depth(await journal.ledger.depth())
    history, own_history = await ledger.history("e-ö"), await journal.ledger.history("e-ö")
    assert history is not None
    assert own_history is not None
    assert encode_history(history) == encode_history(own_history)
    assert await names(ledger, 1) == ["a", "ö", "b"]


async def test_a_remote_ledger_steers(remote: Remote) -> None:
    journal, ledger = remote
    dead(journal, "a", "b")
    assert await run_all(ledger, "retry", Selection(events=("e-a",))) == 1
    assert await run_all(ledger, "drop", Selection("dead")) == 1
    assert delivery_states(journal) == {("e-a", "h"): "ready"}
    await ledger.pause("h")
    assert await ledger.paused() == await journal.ledger.paused() == {"h"}
    await ledger.resume("h")
    settle_run(journal, claim_deliveries(journal)[0], "done")
    assert await run_all(ledger, "replay", Selection(since=0.0)) == 1


@pytest.mark.parametrize(
    "event_id",
    ["?x=1", "e%2Da", "", "depth?", "depth", "retry", " e-a", "ä", "../uploads/a", "..", "a/b", "\0"],
)
async def test_an_id_that_is_none_is_unknown_and_no_other_page(remote: Remote, event_id: str) -> None:
    journal, ledger = remote
    publish_uploads(journal, "a")
    assert await ledger.history(event_id) is None


async def test_nonsense_is_told_as_such(remote: Remote) -> None:
    with pytest.raises(ValueError, match="everything"):
        await run_all(remote[1], "drop", Selection())
    with pytest.raises(ValueError, match="invalid cursor"):
        await remote[1].page(Selection(), "x", 9)


async def test_nobody_there_is_away(tmp_path: Path) -> None:
    async with socket_session(tmp_path / "nobody.sock") as session:
        with pytest.raises(EventEngineUnavailable, match="does not answer"):
            await RemoteLedger(session).depth()


# -- processes that do not answer


@pytest.fixture
async def lacking(journals: list[Journal]) -> CombinedLedger:
    """The ledger of three processes, of which 1 is closed and 2 is known to hang."""
    for name, at in (("a", 0), ("b", 1), ("c", 2), ("d", 0)):
        publish_uploads(journals[at], name)
    for journal in journals[:1]:
        for delivery in await journal.queue.claim("h", 9, 0.0):
            await journal.queue.dead_letter(delivery, "why", 0.0)
    await asyncio.to_thread(journals[1].close)
    parts = {f"slot-{at}": journal.ledger for at, journal in enumerate(journals)}
    return CombinedLedger(parts, processes=parts, unresponsive=lambda: ["slot-2"])


async def test_a_list_goes_on_without_processes_that_do_not_answer_and_names_them(
    lacking: CombinedLedger,
) -> None:
    listed = await pages(lacking, 1)
    assert [row.upload_id for page in listed for row in page.rows] == ["a", "d"]
    assert {page.unavailable for page in listed} == {("slot-1", "slot-2")}
    assert await lacking.paused() == frozenset()


async def test_an_event_of_a_process_that_answers_is_shown_and_no_other_is_called_unknown(
    lacking: CombinedLedger,
) -> None:
    assert (await lacking.history("e-a")) is not None
    with pytest.raises(EventEngineUnavailable, match="process 2 does not answer"):
        await lacking.history("e-c")


async def test_a_change_is_done_where_it_can_be_and_then_says_where_not(
    lacking: CombinedLedger, journals: list[Journal]
) -> None:
    with pytest.raises(EventEngineUnavailable, match="processes 1, 2 do not answer; the others"):
        await run_all(lacking, "retry", Selection("dead"))
    assert set(delivery_states(journals[0]).values()) == {"ready"}
    with pytest.raises(EventEngineUnavailable, match="process 2 does not answer"):
        await lacking.pause("h")
    assert await journals[0].ledger.paused() == {"h"}
    with pytest.raises(EventEngineUnavailable):
        await lacking.depth()
