"""`gateway status`: one screen of facts about the running server of a directory."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from gateway.cli.events.formatting import printable, when
from gateway.cli.owner import needed_server, run_printing
from gateway.domain.units import format_size, unix_time
from gateway.settings import Settings

USAGE = "[--json] [flags]"
HELP = """\
Show one screen of facts about the running server of a directory: what it serves, its uploads, what
waits for handlers, and what needs attention. What is not known is said to be unknown.

Exit codes: 0; 2 if no server answers.
"""

_NAME_WIDTH: Final = 14
_UNITS: Final = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
_COLORS: Final[Mapping[str, str]] = {"bad": "31", "warn": "33", "good": "32"}

_MEASURES: Final = {"bytes_per_day": " a day", "files": " files", "requests": " requests"}

Json = dict[str, Any]
Line = tuple[str, str, str]
"""The name of a fact, its text, and how it is: `good`, `warn`, `bad`, or plain."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Print the facts. Raises `ConfigError` where no server answers."""
    return run_printing(_run(settings, as_json=args.json))


async def _run(settings: Settings, *, as_json: bool) -> int:
    async with needed_server(settings) as server:
        facts = await server.request("GET", "/-/status", {})
    if as_json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
        return 0
    colored = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for name, text, level in fact_lines(facts, time.time()):
        shown = printable(text)
        if colored and level in _COLORS:
            shown = f"\033[{_COLORS[level]}m{shown}\033[0m"
        print(f"{name:<{_NAME_WIDTH}}{shown}".rstrip())
    return 0


def fact_lines(facts: Json, now: float) -> Iterator[Line]:
    """Yield the lines of one screen: `now` is a Unix time."""
    up = duration(now - unix_time(facts["started"]))
    yield "gateway", f"{facts['version']} at {facts['url']}, up {up}", "good"
    yield "directory", facts["directory"], ""
    yield "storage", facts["storage"], ""
    yield from _disk_lines(facts.get("disk"))
    yield from _process_lines(facts)
    yield "authorization", facts["authorization"], ""
    yield "events", facts["events"], ""
    yield from _upload_lines(facts["uploads"])
    yield from _plugin_lines(facts.get("plugins"))
    for down in facts.get("upstreams_down", ()):
        yield "upstream", _upstream_text(down, facts["processes"]), "bad"
    yield from _delivery_lines(facts.get("deliveries"), now)
    for handler in facts.get("paused", ()):
        yield "paused", f"{handler}: resume with gateway events resume --handler {handler}", "warn"
    for quota in facts.get("quotas", ()):
        yield "quota", _quota_text(quota), "warn"
    for key in facts.get("keys", ()):
        left = duration(unix_time(key["expires"]) - now)
        yield "key", f"{key['name']} expires in {left} ({when(unix_time(key['expires']))})", "warn"
    for name, reason in facts.get("unknown", {}).items():
        yield "unknown", f"{name}: {reason}", "bad"


def _disk_lines(disk: Json | None) -> Iterator[Line]:
    if disk is not None:
        level = "" if disk["accepts_uploads"] else "bad"
        full = "" if disk["accepts_uploads"] else ": uploads are refused"
        yield "disk", f"{format_size(disk['free'])} free{full}", level


def _process_lines(facts: Json) -> Iterator[Line]:
    silent = facts["silent_processes"]
    if silent:
        text = f"{facts['processes']}, no answer of {', '.join(map(str, silent))}"
        yield "processes", text, "bad"
    else:
        yield "processes", str(facts["processes"]), ""


def _upload_lines(uploads: Mapping[str, int]) -> Iterator[Line]:
    names = {"in_flight": "in flight", "resumable": "resumable", "held": "held"}
    counts = [f"{uploads[key]} {name}" for key, name in names.items() if key in uploads]
    if counts:
        yield "uploads", ", ".join(counts), "warn" if uploads.get("held") else ""
    if ended := [f"{uploads[key]} {key}" for key in ("failed", "rejected") if uploads.get(key)]:
        yield "last hour", f"{', '.join(ended)}: gateway uploads list --since 1h", "warn"


def _plugin_lines(plugins: Json | None) -> Iterator[Line]:
    if plugins is None:
        return
    kinds = [
        f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in plugins.get("kinds", {}).items()
    ]
    yield "plugins", f"{', '.join(kinds) or 'none'} (set {plugins['set']})", ""
    for fault in plugins.get("faults", ()):
        yield "last reload", f"{when(unix_time(plugins['reloaded']))}: {fault}", "bad"


def _delivery_lines(deliveries: Sequence[Json] | None, now: float) -> Iterator[Line]:
    if deliveries is None:
        return
    if not deliveries:
        yield "handlers", "nothing waits", ""
    by_handler: dict[str, list[Json]] = {}
    for row in deliveries:
        by_handler.setdefault(row["handler"], []).append(row)
    for handler, rows in by_handler.items():
        counts = ", ".join(f"{row['count']} {row['state']}" for row in rows)
        oldest = duration(now - min(unix_time(row["oldest"]) for row in rows))
        dead = any(row["state"] == "dead" for row in rows)
        yield "handler", f"{handler}: {counts}, the oldest {oldest} old", "bad" if dead else ""


def _upstream_text(down: Json, processes: int) -> str:
    where = "" if processes == 1 else f" in {down['processes']} of {processes} processes"
    names, left = ", ".join(down["routes"]), down["route_count"] - len(down["routes"])
    more = f" and {left} more" if left else ""
    return f"{down['upstream']} is out{where}: requests or probes fail; routes {names}{more}"


def _quota_text(quota: Json) -> str:
    used, limit, what = quota["used"], quota["limit"], quota["what"]
    if what.startswith("bytes"):
        shown = f"{format_size(used)} of {format_size(limit)}"
    else:
        shown = f"{used} of {limit}"
    return f"{quota['rule']}: {shown}{_MEASURES.get(what, '')} ({100 * used // max(limit, 1)} %)"


def duration(seconds: float) -> str:
    """Return seconds as people say them, in two units: `3d 4h`, `12s`."""
    left, parts = max(int(seconds), 0), list[str]()
    for unit, length in _UNITS:
        if left >= length and len(parts) < 2:
            parts.append(f"{left // length}{unit}")
            left %= length
        elif parts:
            break
    return " ".join(parts) or "0s"
