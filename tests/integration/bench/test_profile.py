"""The profile of the bench: it names functions that exist, and counts what layers and threads take."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import layers, threads
from bench.in_process import BODY, Load, bare, drive
from bench.layers import LAYERS, Scenario, measure_layers, rows, scenarios, table
from bench.meter import Meter, Spent
from bench.samples import Sample
from bench.thread_names import name_threads
from bench.threads import Account


def spend(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


@pytest.fixture
def named_threads() -> Iterator[None]:
    name_threads()
    yield
    threading.setprofile(None)


# -- the meter


def test_every_layer_names_plain_functions_that_exist() -> None:
    meter = Meter()
    with meter.measuring(LAYERS):
        pass
    assert meter.missing == [], "put the new names into LAYERS of bench/layers.py"


def test_a_name_that_does_not_exist_is_noted_and_the_others_are_measured() -> None:
    meter = Meter()
    names = ["gateway.domain.units:iso_time", "gateway.domain.units:Gone.method", "gateway.gone:f"]
    from gateway.domain import units

    original = units.iso_time
    with meter.measuring({"path": names}):
        assert units.iso_time(0).startswith("1970")
    assert units.iso_time is original
    assert meter.missing == names[1:]
    assert meter.spent[threading.current_thread().name, "path"].calls == 1


def test_the_time_of_a_layer_is_without_that_of_the_layers_in_it() -> None:
    meter = Meter()
    inner = meter.wrap("inner", lambda: spend(0.02))

    def work() -> None:
        spend(0.01)
        inner()
        inner()

    meter.wrap("outer", work)()
    counted = meter.per_request(1)
    thread = threading.current_thread().name
    assert counted[thread, "inner"].seconds >= 0.04
    assert 0.01 <= counted[thread, "outer"].seconds < counted[thread, "inner"].seconds
    assert (counted[thread, "outer"].calls, counted[thread, "outer"].inner_calls) == (1, 2)
    assert meter.spent == {}


def test_what_measuring_costs_is_subtracted() -> None:
    meter = Meter(inside=1.0, outside=2.0)
    counted = {("loop", "outer"): Spent(22.0, 1, 2), ("loop", "inner"): Spent(12.0, 2, 0)}
    # Nine seconds of wrappers around eleven of work: then all ran twice as slowly as without them.
    net = meter.net_seconds(counted, {"loop": 40.0}, {"loop": 11.0})
    assert net == {("loop", "outer"): 6.0, ("loop", "inner"): 4.0}
    assert meter.net_seconds(counted, {}, {})["loop", "outer"] == 17.0


def test_a_layer_is_counted_also_where_it_raises() -> None:
    meter = Meter()

    def broken() -> None:
        raise KeyError("broken")

    with pytest.raises(KeyError):
        meter.wrap("broken", broken)()
    assert meter.spent[threading.current_thread().name, "broken"].calls == 1


# -- in one process


@pytest.mark.usefixtures("named_threads")
async def test_a_small_upload_is_measured_by_thread_and_by_layer(tmp_path: Path) -> None:
    [put] = [scenario for scenario in scenarios(None) if scenario.title == "PUT"]
    column = await measure_layers(put, tmp_path, Load(2, 2, 1), Meter())
    assert min(column[thread, ""] for thread in ("loop", "committer")) > 0
    assert column["loop", "parse (aiohttp's C parser)"] > 0
    assert column["committer", "publish"] > 0


async def test_a_download_is_measured(tmp_path: Path) -> None:
    [get] = [scenario for scenario in scenarios(None) if scenario.title == "GET, --short-path off"]
    assert (await measure_layers(get, tmp_path, Load(2, 2, 1), Meter()))["loop", ""] > 0


async def test_a_response_other_than_2xx_gives_no_figure(tmp_path: Path) -> None:
    async with bare(tmp_path) as connect:
        with pytest.raises(RuntimeError, match="not answered 2xx"):
            async for _ in drive(connect, "PUT", "/nowhere", BODY, Load(2, 1, 1)):
                pass


def test_rows_are_threads_with_their_layers_and_what_is_left() -> None:
    column = {
        ("loop", ""): 50e-6,
        ("loop", "dispatch"): 20e-6,
        ("committer", ""): 80e-6,
        ("idle", ""): 0.0,
    }
    assert [name for name, _ in rows([column])] == [
        "all threads",
        "  committer",
        "  loop",
        "    dispatch",
        "    all else",
    ]
    printed = table("PUT", {16: column})
    assert re.search(r"^PUT +16$", printed, re.MULTILINE)
    assert re.search(r"^all threads +130\.0$", printed, re.MULTILINE)
    assert re.search(r"^    all else +30\.0$", printed, re.MULTILINE)


def test_without_an_upstream_nothing_is_proxied() -> None:
    def proxied(listed: list[Scenario]) -> list[str]:
        return [scenario.title for scenario in listed if scenario.method == "POST"]

    assert proxied(layers.scenarios(None)) == []
    assert len(proxied(layers.scenarios(1))) == 2


# -- under load


def test_what_a_thread_takes_is_the_difference_of_two_readings() -> None:
    before = {(1, "loop"): Account(1.0, 10), (2, "read"): Account(0.5, 5)}
    after = {(1, "loop"): Account(1.5, 30), (2, "read"): Account(0.6, 6), (3, "read"): Account(0.1, 1)}
    taken = threads.by_thread(before, after)
    assert taken["loop"] == Account(0.5, 20)
    assert taken["read"].seconds == pytest.approx(0.2)
    assert taken["read"].waits == 2
    printed = threads.line("GET", 16, Sample(2, 1000), taken | {"pool": Account(0.1, 0)})
    assert printed.split() == ["GET", "16", "500", "800", "0.0", "500", "0", "0", "0", "0", "200", "100"]
    assert len(threads.HEADING.splitlines()[-1]) == len(printed)


def test_the_threads_of_a_gateway_have_their_names(tmp_path: Path) -> None:
    with threads.NamedGateway(tmp_path, "none") as gateway:
        names = {name for _, name in threads.accounts(gateway.server.pid)}
        assert {"loop", "committer"} <= names
