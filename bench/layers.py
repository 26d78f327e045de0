"""Where the microseconds of a small request go: `scripts/bench --profile`, or `python -m bench.layers`.

Processor time for one request in one process, without sockets: of each thread, and of the layers in it.
It is the least of many batches, with caches that are warm and no client beside, so it is less than a
server under load takes (`bench.threads`), and comparable between runs, to about 10 %.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import uvloop

from bench import in_process
from bench.contestants import HANDLERS, PROXY
from bench.in_process import BODY, JSON_BODY, Connect, Load, drive, thread_label
from bench.meter import Meter, Spent
from bench.nginx import NginxUpstream
from bench.samples import NotInstalledError
from bench.thread_names import name_threads

LAYERS: Final[Mapping[str, Sequence[str]]] = {
    "parse (aiohttp's C parser)": ["aiohttp.web_protocol:RequestHandler.data_received"],
    "connection": [
        "gateway.http.short_path:ShortPathConnection.data_received",
        "gateway.http.short_path:ShortPathConnection.begin_request",
        "gateway.http.short_path:ShortPathConnection.end_request",
    ],
    "dispatch": [
        "gateway.http.short_path:ShortPathConnection._offer",
        "gateway.endpoints.dispatcher:Dispatcher._offer",
        "gateway.endpoints.short_path:ShortExchange.begin",
    ],
    "authenticate": ["gateway.auth.authenticator:Auth.authenticate_now"],
    "describe an upload": ["gateway.endpoints.uploads.admission:Admission.describe"],
    "authorize and accept an upload": [
        "gateway.endpoints.uploads.handler:UploadHandler.take_short",
        "gateway.endpoints.uploads.short_put:ShortUploads.take",
        "gateway.endpoints.uploads.admission:Admission.authorize",
        "gateway.endpoints.uploads.admission:Admission.accept",
    ],
    "hooks, to and from the thread": [
        "gateway.plugins.hooks:Hooks.submit_admission",
        "gateway.plugins.admission_chain:AdmissionChain._take_result",
        "gateway.plugins.scripting.executor:ScriptExecutor.submit",
        "gateway.plugins.scripting.executor_thread:ExecutorThread._deliver_results",
    ],
    "commit, to and from the thread": [
        "gateway.commit.local_writer:LocalWriter.submit",
        "gateway.commit.committer:Committer._send",
        "gateway.commit.committer:_call_all",
    ],
    "deliver an event": [
        "gateway.events.runner:Runner.receive",
        "gateway.plugins.hooks:Hooks.submit_delivery",
        "gateway.plugins.delivery_runs:DeliveryRun._take_result",
    ],
    "serve a download": ["gateway.endpoints.downloads.handler:DownloadHandler.take_short"],
    "read a file in memory": ["gateway.storage.local.cached_read:CachedReader.read"],
    "forward to an upstream": [
        "gateway.endpoints.routing.handler:Routing.take_short",
        "gateway.endpoints.routing.short_path.short_route:ShortRoutes.take",
        "gateway.endpoints.routing.short_path.short_route:ShortForward.start",
    ],
    "send to an upstream": ["gateway.endpoints.routing.proxy.connection:UpstreamConnection.send"],
    "response of an upstream": [
        "gateway.endpoints.routing.proxy.connection:UpstreamConnection.data_received",
        "gateway.endpoints.routing.short_path.short_route:ShortForward._answer",
    ],
    "respond, count, log": ["gateway.endpoints.short_path:ShortExchange.respond"],
    "run a script": ["gateway.plugins.scripting.executor_thread:ExecutorThread._start_submitted"],
    "stage": ["gateway.commit.batch:BatchCommitter._stage_all"],
    "finalize": ["gateway.commit.batch:BatchCommitter._finalize_all"],
    "record": ["gateway.commit.batch:BatchCommitter._record"],
    "publish": ["gateway.commit.batch:BatchCommitter._publish_all"],
    "answer and release": [
        "gateway.commit.batch:BatchCommitter._sync_folders",
    ],
    "transaction": ["gateway.domain.sqlite_writer:_transaction"],
}
"""The functions of each layer, in the order in which a request meets them. Only plain functions."""

MANY: Final = (1, 16, 64)
"""Requests at once."""

REQUESTS: Final = 320
"""In a batch."""

BATCHES: Final = 12

MIN_SHOWN: Final = 0.05e-6
"""Seconds below which a row is left out."""

Started = Callable[[Path], AbstractAsyncContextManager[Connect]]


@dataclass(frozen=True)
class Scenario:
    """A server and the request that it gets."""

    title: str
    start: Started
    method: str
    target: str
    body: bytes = b""
    layered: bool = True


Column = dict[tuple[str, str], float]
"""Seconds for a request, by thread and layer; the layer "" is the whole thread."""


def scenarios(upstream_port: int | None) -> list[Scenario]:
    """Return what is measured; without an upstream nothing is proxied."""
    put, get = ("PUT", "/upload/a-{}", BODY), ("GET", "/upload/a-{}")
    listed = [
        Scenario("bare aiohttp: PUT", in_process.bare, *put, layered=False),
        Scenario("PUT", _gateway(), *put),
        Scenario("PUT, --digest sha256", _gateway(digest="sha256"), *put),
        Scenario("PUT, --short-path off", _gateway(short_path=False), *put, layered=False),
        Scenario("PUT, OnFileUploading", _gateway("uploading"), *put),
        Scenario("PUT, both hooks", _gateway("uploading", "uploaded"), *put),
        Scenario("bare aiohttp: GET", in_process.bare, *get, layered=False),
        Scenario("GET", _gateway(), *get),
        Scenario("GET, --short-path off", _gateway(short_path=False), *get, layered=False),
    ]
    if upstream_port is not None:
        post = ("POST", "/proxy/json/", JSON_BODY)
        text = PROXY.format(port=upstream_port)
        off = "POST to an upstream, --short-path off"
        listed += [
            Scenario("POST to an upstream", _gateway(proxy=text), *post),
            Scenario(off, _gateway(proxy=text, short_path=False), *post, layered=False),
        ]
    return listed


def _gateway(*handlers: str, proxy: str = "", short_path: bool = True, digest: str = "none") -> Started:
    @asynccontextmanager
    async def start(folder: Path) -> AsyncIterator[Connect]:
        plugins = folder / "plugins"
        plugins.mkdir(parents=True)
        for name in handlers:
            (plugins / f"{name}.yaml").write_text(HANDLERS[name])
        if proxy:
            (plugins / "proxy.yaml").write_text(proxy)
        wanted = [plugins] if handlers or proxy else []
        given = {"short_path": short_path, "digest": digest}
        async with in_process.gateway(folder / "data", wanted, given) as connect:
            yield connect

    return start


async def _store(folder: Path, scenario: Scenario, load: Load) -> None:
    """Store the files that are going to be fetched."""
    for landed in (folder, folder / "data" / "upload"):
        landed.mkdir(parents=True, exist_ok=True)
        for number in range(load.at_once if scenario.method == "GET" else 0):
            (landed / f"a-{number}").write_bytes(BODY)


def _begin() -> None:
    """Begin a batch without a meter."""


async def measure(
    scenario: Scenario, folder: Path, load: Load, meter: Meter | None = None
) -> tuple[dict[str, float], dict[tuple[str, str], Spent]]:
    """Return what the threads, and with a meter the layers, took in the batch that took least."""
    best: dict[str, float] = {}
    layers: dict[tuple[str, str], Spent] = {}
    async with scenario.start(folder) as connect:
        await _store(folder, scenario, load)
        request = scenario.method, scenario.target, scenario.body
        begin = meter.reset if meter else _begin
        async for threads in drive(connect, *request, load, begin):
            counted = meter.per_request(load.requests) if meter else {}
            if not best or sum(threads.values()) < sum(best.values()):
                best = threads
                layers = {(thread_label(name), layer): s for (name, layer), s in counted.items()}
    return best, layers


async def measure_layers(scenario: Scenario, folder: Path, load: Load, meter: Meter) -> Column:
    """Return the seconds of the threads, and of the layers from a second start of the same server."""
    threads, _ = await measure(scenario, folder / "plain", load)
    column: Column = {(name, ""): seconds for name, seconds in threads.items()}
    if not scenario.layered:
        return column
    with meter.measuring(LAYERS):
        measured, layers = await measure(scenario, folder / "layers", load, meter)
    return column | meter.net_seconds(layers, measured, threads)


def rows(columns: Sequence[Column]) -> list[tuple[str, list[float]]]:
    """Return indented names and seconds, column by column: all, each thread, the layers in it."""
    totals = [sum(s for (_, layer), s in column.items() if not layer) for column in columns]
    lines = [("all threads", totals)]
    threads = dict.fromkeys(name for column in columns for name, layer in column if not layer)
    for thread in sorted(threads, key=lambda name: -max(c.get((name, ""), 0.0) for c in columns)):
        whole = [column.get((thread, ""), 0.0) for column in columns]
        if max(whole) < MIN_SHOWN:
            continue
        lines.append((f"  {thread}", whole))
        inner = [
            (layer, [column.get((thread, layer), 0.0) for column in columns])
            for layer in LAYERS
            if any((thread, layer) in column for column in columns)
        ]
        lines += [(f"    {layer}", seconds) for layer, seconds in inner]
        if inner:
            counted = [sum(seconds[n] for _, seconds in inner) for n in range(len(columns))]
            rest = [max(0.0, all_ - part) for all_, part in zip(whole, counted, strict=True)]
            lines.append(("    all else", rest))
    return lines


def table(title: str, columns: Mapping[int, Column]) -> str:
    """Return a scenario's rows in microseconds under the number of requests at once."""
    head = f"{title:<40}" + "".join(f"{number:>9}" for number in columns)
    body = [
        f"{name:<40}" + "".join(f"{second * 1e6:9.1f}" for second in seconds)
        for name, seconds in rows(list(columns.values()))
    ]
    return "\n".join([head, *body])


async def play(folder: Path, load: Load, many: Sequence[int], upstream_port: int | None) -> None:
    """Measure all scenarios and print a table of each."""
    print("Microseconds of processor time for a request of 4 KiB, by the number of requests at once\n")
    meter = Meter()
    for place, scenario in enumerate(scenarios(upstream_port)):
        columns = {}
        for number in many:
            sized = replace(load, at_once=number, rounds=max(1, load.rounds // number))
            home = folder / f"{place}-{number}"
            columns[number] = await measure_layers(scenario, home, sized, meter)
        print(f"{table(scenario.title, columns)}\n", flush=True)
    for name in sorted(set(meter.missing)):
        print(f"not measured, there is no such function: {name}")


def main(words: Sequence[str] | None = None) -> None:
    """Run in memory, if there is such a folder."""
    parser = argparse.ArgumentParser("bench.layers", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer batches")
    wish = parser.parse_args(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the upstream is stopped first
    logging.getLogger().setLevel(logging.WARNING)
    name_threads()
    load = Load(1, REQUESTS, 4 if wish.quick else BATCHES)
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="gateway-bench-", dir=memory) as folder:
        uvloop.run(_play_beside_upstream(Path(folder), load))


async def _play_beside_upstream(folder: Path, load: Load) -> None:
    async with AsyncExitStack() as stack:
        port = None
        try:
            (folder / "upstream").mkdir()
            port = stack.enter_context(NginxUpstream(folder / "upstream")).port
        except NotInstalledError as error:
            print(f"nothing is proxied: {error}")
        await play(folder, load, MANY, port)


if __name__ == "__main__":
    main()
