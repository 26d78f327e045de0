"""The verb `events`: see and steer the events of a directory, whether it is being served or not.

The rule: every message says what happened; nothing that changes many deliveries is guessed at. May
import `events`, `storage` and below.

    asking     what was asked for, checked
    sources    where the answers come from: the owner's socket, or the journal itself
    tables     how they are shown to people
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from dataclasses import asdict
from typing import Final

from gateway.cli.events import formatting as tables
from gateway.cli.events.arguments import ACTIONS, checked, selected
from gateway.cli.events.sources import gathered
from gateway.errors import ConfigError, EventEngineUnavailable
from gateway.events.combined_ledger import CombinedLedger
from gateway.events.json_codec import MAX_EVENTS, encode_history
from gateway.events.protocols import STATES, VERBS, Selection, Verb, run_all
from gateway.settings import Settings

USAGE = "ACTION [EVENT_ID ...] [flags]"
HELP = """\
See and steer events; works while the server runs and while it does not.

  gateway events list [--state ready|running|delayed|dead|done] [--handler NAME] [--since T] [--json]
  gateway events show EVENT_ID [--json]
  gateway events retry  EVENT_ID ... | --dead  [--handler NAME] [--since T]
  gateway events drop   EVENT_ID ... | --dead  [--handler NAME] [--since T]
  gateway events replay EVENT_ID ... | --since T  [--handler NAME]
  gateway events pause  --handler NAME
  gateway events resume --handler NAME

retry   runs what is dead or delayed now, with all its attempts anew
drop    gives up for good what is dead or still waits
replay  runs again what is done: a handler was wrong, or what it made is lost
pause   lets a handler's deliveries wait, also over restarts, until resume
T       2h, 7d (so long ago), 2026-11-22T08:00 (local time, or with a zone), or a Unix time

Exit codes: 0; 1 for an event that nobody knows; 2 for a slip or where nobody answers.
"""

PAGE: Final = 500
DONE: Final = {"retry": "retried", "drop": "dropped", "replay": "replayed"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes beside the settings."""
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument("event_ids", nargs="*", metavar="EVENT_ID", help="the events meant")
    parser.add_argument("--dead", action="store_true", help="all that are dead")
    parser.add_argument("--state", choices=STATES, help="only deliveries in this state")
    parser.add_argument("--handler", metavar="NAME", help="only deliveries to this handler")
    parser.add_argument(
        "--since", metavar="T", help="only events since then: 2h, 7d, a date, a Unix time"
    )
    parser.add_argument("--json", action="store_true", help="for programs: one JSON document")


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Do what was asked for. Returns 1 for an event that nobody knows. Raises `ConfigError`."""
    checked(args)
    try:
        code = asyncio.run(_run(settings, args))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`head`, a pager) has seen enough. What is still buffered must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("\ngateway: stopped; what was done stays, run it again for the rest", file=sys.stderr)
        return 130
    except (EventEngineUnavailable, ValueError) as fault:
        raise ConfigError(str(fault)) from fault
    return code


async def _run(settings: Settings, args: argparse.Namespace) -> int:
    async with gathered(settings) as ledger:
        return await _do(ledger, args)


async def _do(ledger: CombinedLedger, args: argparse.Namespace) -> int:
    if args.action == "list":
        return await _list(ledger, selected(args), for_programs=args.json)
    if args.action == "show":
        return await _show(ledger, args.event_ids[0], for_programs=args.json)
    if args.action in {"pause", "resume"}:
        return await _hold(ledger, args)
    verb: Verb = next(verb for verb in VERBS if verb == args.action)
    return await _steer(ledger, verb, args)


async def _list(ledger: CombinedLedger, selection: Selection, *, for_programs: bool) -> int:
    """Print deliveries page by page, so that a long journal needs no memory."""
    table, shown = tables.DeliveryTable(), 0
    after: str | None = None
    while True:
        page = await ledger.page(selection, after, PAGE)
        for row in page.rows:
            if for_programs:
                said = json.dumps(asdict(row), ensure_ascii=False)
                print(",\n " if shown else "[\n ", said, sep="", end="")
            else:
                print(*table.lines(row, page.rows), sep="\n")
            shown += 1
        after = page.next
        if after is None:
            break
    if for_programs:
        print("\n]" if shown else "[]")
        return 0
    if not shown:
        print("no deliveries" + ("" if selection == Selection() else " that fit"))
    if paused := await ledger.paused():
        print("paused: " + ", ".join(map(tables.printable, sorted(paused))))
    return 0


async def _show(ledger: CombinedLedger, event_id: str, *, for_programs: bool) -> int:
    history = await ledger.history(event_id)
    if history is None:
        return _unknown([event_id])
    if for_programs:
        print(json.dumps(encode_history(history), indent=2, ensure_ascii=False))
    else:
        print(*tables.event(history), sep="\n")
    return 0


async def _hold(ledger: CombinedLedger, args: argparse.Namespace) -> int:
    handler = args.handler
    if args.action == "pause":
        await ledger.pause(handler)
        told = f"paused {handler}: its deliveries wait until `gateway events resume --handler {handler}`"
    else:
        await ledger.resume(handler)
        told = f"resumed {handler}"
    print(json.dumps({"handler": handler, "paused": args.action == "pause"}) if args.json else told)
    return 0


async def _steer(ledger: CombinedLedger, verb: Verb, args: argparse.Namespace) -> int:
    unknown = [event for event in args.event_ids if await ledger.history(event) is None]
    known = [event for event in args.event_ids if event not in unknown]
    count = 0
    with tables.progress(DONE[verb]) as report:
        for events in _portions(known) if args.event_ids else [()]:
            count += await run_all(ledger, verb, selected(args, events), report)
    if args.json:
        print(json.dumps({"count": count}))
    else:
        print(f"{DONE[verb]} {count} {'delivery' if count == 1 else 'deliveries'}")
    return _unknown(unknown)


def _portions(events: list[str]) -> list[tuple[str, ...]]:
    return [tuple(events[at : at + MAX_EVENTS]) for at in range(0, len(events), MAX_EVENTS)]


def _unknown(events: list[str]) -> int:
    for event in events:
        print(f"gateway: no event {tables.printable(event)} is known", file=sys.stderr)
    return 1 if events else 0
