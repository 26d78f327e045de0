"""What was found out about JetStream the hard way: each trap has its test."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from gateway.errors import ConfigError, EventEngineUnavailable
from gateway.events.nats import servers as places
from gateway.events.nats.engine import check_durability
from gateway.events.nats.ledger_rows import ReadRow
from gateway.events.nats.streams import DUPLICATE_WINDOW, MAX_TOKEN_LENGTH, StreamNames, name_of, token
from gateway.events.protocols import NewEvent, Selection, run_all
from gateway.events.relay import OutgoingDelivery
from gateway.settings import load
from tests.support.nats.fixtures import MakeEngine
from tests.support.nats.servers import SECONDS, Server, single

DAY = 86_400.0


def event(number: int, *handlers: str, size: int = 1) -> NewEvent:
    return NewEvent(
        f"e{number}", "APIGW.OnSomething", handlers or ("h",), {"x": "x" * size}, time.time()
    )


async def test_delayed_retries_do_not_hold_up_fresh_deliveries(
    server: Server, connect: MakeEngine
) -> None:
    nats = await connect(server.url)
    await nats.outbox.publish([event(n) for n in range(1200)])
    taken = 0
    while taken < 1200:  # more than the 1000 that a consumer has outstanding by default
        claimed = await nats.queue.claim("h", 200, SECONDS)
        await asyncio.gather(*(nats.queue.retry(d, 600, "later", 0.0) for d in claimed))
        taken += len(claimed)
    await nats.outbox.publish([event(5000)])
    [fresh] = await nats.queue.claim("h", 1, SECONDS)
    assert fresh.event_id == "e5000"
    assert {(d.state, d.count) for d in await nats.ledger.depth()} == {("delayed", 1200), ("running", 1)}


async def test_a_delivery_comes_as_often_as_it_takes(server: Server, connect: MakeEngine) -> None:
    nats = await connect(server.url)
    await nats.outbox.publish([event(1)])
    for attempt in range(1, 31):
        [delivery] = await nats.queue.claim("h", 1, SECONDS)
        assert delivery.attempt == attempt
        await nats.queue.retry(delivery, 0.0, "again", 0.0)


async def test_records_that_nobody_waits_for_are_all_there_when_somebody_looks(
    server: Server, connect: MakeEngine
) -> None:
    nats = await connect(server.url)
    await nats.outbox.publish([event(n) for n in range(700)])  # several batches, and a full window
    taken = 0
    while taken < 700:
        claimed = await nats.queue.claim("h", 700 - taken, SECONDS)
        await asyncio.gather(*(nats.queue.ack(delivery, 0.0) for delivery in claimed))
        taken += len(claimed)
    page = await nats.ledger.page(Selection("done"), None, 1000)
    assert len({row.event_id for row in page.rows}) == 700


async def test_a_record_that_cannot_be_written_holds_up_nothing(
    server: Server, connect: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    nats = await connect(server.url)
    await nats.outbox.publish([event(1), event(2)])
    await nats._connection.js.delete_stream("apigw-runs")
    for _ in range(2):
        [delivery] = await nats.queue.claim("h", 1, SECONDS)
        await nats.queue.ack(delivery, 0.0)
    await nats.queue.flush_run_log()
    assert "up to 1 entries of the log of runs are lost" in caplog.text
    assert await nats.queue.claim("h", 1, 0.0) == []


async def test_a_consumer_that_is_there_in_a_moment_is_waited_for(
    server: Server, connect: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.events.nats.pull_requests._RETRY_TIMEOUT", SECONDS)
    nats = await connect(server.url)
    queue, names = nats.queue, nats.queue._names
    asking = asyncio.create_task(queue._pulls.pull(names.queue, names.consumer("h"), 1, 0))
    await asyncio.wait([asking], timeout=0.2)
    assert not asking.done()
    await queue.ensure_consumer("h")
    assert await asking == []
    monkeypatch.setattr("gateway.events.nats.pull_requests._RETRY_TIMEOUT", 0.2)
    with pytest.raises(EventEngineUnavailable, match="does not answer"):
        await queue._pulls.pull(names.queue, names.consumer("never"), 1, 0)


async def test_closing_does_not_wait_for_a_claim_that_waits(server: Server, connect: MakeEngine) -> None:
    nats = await connect(server.url)
    waiting = asyncio.create_task(nats.queue.claim("h", 1, 60))
    await nats.queue.claim("i", 1, 0.1)
    async with asyncio.timeout(5):
        waiting.cancel()
        await asyncio.wait([waiting])
        await nats.close()


async def test_what_does_not_fit_into_a_full_stream_stays_outside(
    server: Server, connect: MakeEngine
) -> None:
    nats = await connect(server.url, events_max_bytes="128K")
    parcels = [OutgoingDelivery(event(n, size=4000), "h", f"k{n}") for n in range(100)]
    outcomes = await nats.outbox.send(parcels)
    fitted = outcomes.count(None)
    assert 10 < fitted < 40
    faults = [fault for fault in outcomes if fault is not None]
    assert {type(fault) for fault in faults} == {EventEngineUnavailable}
    assert "maximum bytes" in str(faults[0])
    # Nothing old was thrown away for something new.
    assert sum(d.count for d in await nats.ledger.depth()) == fitted
    for delivery in await nats.queue.claim("h", 5, SECONDS):
        await nats.queue.ack(delivery, 0.0)
    left = [parcel for parcel, fault in zip(parcels, outcomes, strict=True) if fault is not None]
    assert (await nats.outbox.send(left)).count(None) == 5


async def test_handing_back_into_a_full_stream_loses_nothing(
    server: Server, connect: MakeEngine
) -> None:
    nats = await connect(server.url, events_max_bytes="128K")
    with pytest.raises(EventEngineUnavailable):
        await nats.outbox.publish([event(n, size=4000) for n in range(100)])
    [delivery] = await nats.queue.claim("h", 1, SECONDS)
    await nats.queue.requeue([delivery])
    seen: set[str] = set()
    while delivery.event_id not in seen:
        again = await nats.queue.claim("h", 50, SECONDS)
        assert again
        seen |= {one.event_id for one in again}


async def test_an_event_that_never_fits_is_told_from_one_that_does_not_fit_now(
    server: Server, connect: MakeEngine
) -> None:
    nats = await connect(server.url)
    huge = OutgoingDelivery(event(1, size=2 << 20), "h", "k")
    [fault, good] = await nats.outbox.send([huge, OutgoingDelivery(event(2), "h", "k2")])
    assert isinstance(fault, ValueError)
    assert good is None


async def test_a_message_that_is_no_event_ends_dead_and_holds_up_nothing(
    server: Server, connect: MakeEngine
) -> None:
    nats = await connect(server.url)
    await nats._connection.js.publish("apigw.q.h.junk", b"no json")
    await nats.outbox.publish([event(1)])
    claimed = await nats.queue.claim("h", 5, SECONDS)
    assert [d.event_id for d in claimed] == ["e1"]
    [row] = (await nats.ledger.page(Selection(state="dead"), None, 5)).rows
    assert (row.handler, row.event_id) == ("h", "1")


async def test_retrying_all_that_is_dead_ends_though_the_handler_still_fails(
    server: Server, connect: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.events.nats.ledger.MAX_CHUNK", 2)
    nats = await connect(server.url)
    await nats.outbox.publish([event(n) for n in range(5)])
    retry = nats.ledger._retry

    async def fail(count: int) -> None:
        for delivery in await nats.queue.claim("h", count, SECONDS):
            await nats.queue.dead_letter(delivery, "away", 0.0)

    async def retry_and_fail(known: ReadRow) -> bool:
        done = await retry(known)
        await fail(1)
        return done

    await fail(5)
    monkeypatch.setattr(nats.ledger, "_retry", retry_and_fail)
    async with asyncio.timeout(SECONDS):
        assert await run_all(nats.ledger, "retry", Selection("dead")) == 5
    assert [(d.state, d.count) for d in await nats.ledger.depth()] == [("dead", 5)]


async def test_handlers_whose_names_mean_something_in_a_subject_are_kept_apart(
    server: Server, connect: MakeEngine
) -> None:
    nats = await connect(server.url)
    names = ["a.b", "a", "*", ">", "größe", "a b", "a/b", "=", "x" * 300]
    await nats.outbox.publish([event(1, *names)])
    for name in names:
        assert [d.handler for d in await nats.queue.claim(name, 5, SECONDS)] == [name]
    assert {d.handler for d in await nats.ledger.depth()} == set(names)
    assert await nats.queue.claim("a", 5, 0.1) == []


@pytest.mark.parametrize("name", ["plain_1-2", "a.b", "ü ß", "*", "a=b", "=2E", "~"])
def test_a_token_is_one_token_and_can_be_read_back(name: str) -> None:
    made = token(name)
    assert not set(made) & set(" .*>/\\\t")
    assert name_of(made) == name


def test_long_names_stay_apart() -> None:
    assert token("x" * 300) != token("x" * 301)
    assert len(token("x" * 300)) <= MAX_TOKEN_LENGTH


def test_two_installations_share_nothing() -> None:
    assert StreamNames("one").subject("h", "e") == "one.q.h.e"
    assert {StreamNames("one").queue, StreamNames("one").dead} & {
        StreamNames("two").queue,
        StreamNames("two").dead,
    } == set()


async def test_connecting_again_changes_nothing_and_never_makes_a_stream_smaller(
    server: Server, connect: MakeEngine
) -> None:
    nats = await connect(server.url)
    js = nats._connection.js
    config = (await js.stream_info("apigw-runs")).config
    await js.update_stream(config.evolve(max_bytes=2 << 30))
    await nats.outbox.publish([event(1)])
    await connect(server.url, "another", events_lease="7")
    assert (await js.stream_info("apigw-runs")).config.max_bytes == 2 << 30
    assert (await js.stream_info("apigw-queue")).config.duplicate_window == DUPLICATE_WINDOW
    assert len(await nats.queue.claim("h", 1, SECONDS)) == 1


async def test_connecting_again_does_not_shorten_how_long_an_operator_keeps_messages(
    server: Server, connect: MakeEngine
) -> None:
    js = (await connect(server.url))._connection.js
    for kept in (90 * DAY, 0.0):  # 0: for ever
        config = (await js.stream_info("apigw-runs")).config
        await js.update_stream(config.evolve(max_age=kept))
        await connect(server.url, f"another, {kept}")
        assert (await js.stream_info("apigw-runs")).config.max_age == kept


async def test_streams_that_are_there_are_used_though_the_server_refuses_them_more_copies(
    server: Server, connect: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    await connect(server.url, events_replicas="1")
    named_twice = f"{server.url},localhost:{server.port}"
    nats = await connect(named_twice)
    assert "apigw-queue cannot have 2 copies yet" in caplog.text
    await nats.outbox.publish([event(1)])
    assert len(await nats.queue.claim("h", 1, SECONDS)) == 1


async def test_what_is_dead_stays_until_somebody_decides(server: Server, connect: MakeEngine) -> None:
    js = (await connect(server.url))._connection.js
    config = (await js.stream_info("apigw-dead")).config
    assert not config.max_age
    # Earlier gateways made the stream with an end to its patience.
    await js.update_stream(config.evolve(max_age=30 * DAY))
    await connect(server.url, "another")
    assert not (await js.stream_info("apigw-dead")).config.max_age


async def test_streams_that_vanish_are_made_again(server: Server, connect: MakeEngine) -> None:
    nats = await connect(server.url)
    await nats.outbox.publish([event(1)])
    for name in ("apigw-queue", "apigw-dead", "apigw-runs"):
        await nats._connection.js.delete_stream(name)
    with pytest.raises(EventEngineUnavailable):
        await nats.outbox.publish([event(2)])
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                await nats.outbox.publish([event(2)])
                break
            except EventEngineUnavailable:
                await nats.wait_ready()
                await asyncio.sleep(0.01)
    assert [d.event_id for d in await nats.queue.claim("h", 5, SECONDS)] == ["e2"]


async def test_a_claim_survives_the_restart_of_the_server(server: Server, connect: MakeEngine) -> None:
    nats = await connect(server.url)
    waiting = asyncio.create_task(nats.queue.claim("h", 1, 60))
    await nats.queue.claim("i", 1, 0.1)
    server.kill()
    with pytest.raises(EventEngineUnavailable):
        async with asyncio.timeout(SECONDS):
            await waiting
    await asyncio.to_thread(server.start)
    async with asyncio.timeout(SECONDS):
        await nats.wait_ready()
    await nats.outbox.publish([event(1)])
    assert len(await nats.queue.claim("h", 1, SECONDS)) == 1


# -- whether it syncs


@pytest.mark.parametrize(("sync", "found"), [("always", True), ("2m", False)])
async def test_a_server_that_says_yes_too_early_is_found_out(
    sync: str, found: bool, tmp_path: Path, connect: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with single(tmp_path / "n", sync=sync) as one:
        nats = await connect(one.url)
        assert await check_durability(nats._connection, nats._servers) is None
        monkeypatch.setattr("gateway.events.nats.engine.MONITORING_PORT", one.monitor)
        assert await check_durability(nats._connection, nats._servers) is found


# -- who we are


async def test_a_user_and_password_come_from_a_file(tmp_path: Path, connect: MakeEngine) -> None:
    secret = tmp_path / "nats.secret"
    secret.write_text("gateway:pass:word\n")
    secret.chmod(0o600)
    extra = 'authorization { user: gateway, password: "pass:word" }'
    with single(tmp_path / "n", extra=extra) as one:
        nats = await connect(one.url, events_credentials=str(secret))
        await nats.outbox.publish([event(1)])
        refused = await connect(one.url, "stranger", wait=False)
        with pytest.raises(EventEngineUnavailable):
            await refused.outbox.publish([event(2)])
        assert "pass" not in nats.shown + repr(nats._servers)


@pytest.mark.parametrize(
    ("given", "urls"),
    [
        ("nats://a", ("nats://a:4222",)),
        ("nats://a:1,b", ("nats://a:1", "nats://b:4222")),
        ("tls://[::1]:5,[::2]", ("tls://[::1]:5", "tls://[::2]:4222")),
    ],
)
def test_servers_are_read_from_the_setting(given: str, urls: tuple[str, ...]) -> None:
    assert places.nats_servers(load({"events": given}, {})).urls == urls


@pytest.mark.parametrize("given", ["nats://", "http://a", "nats://u:p@a", "nats://a b", "redis"])
def test_what_is_no_place_is_refused_without_quoting_it(given: str) -> None:
    with pytest.raises(ConfigError, match=r"^--events: must") as told:
        load({"events": given}, {})
    assert "u:p" not in str(told.value)
