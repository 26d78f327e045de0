"""`gateway events`: lists and changes deliveries of a directory, whether its server runs or not.

An argument that has no effect is an error. `sources` opens the server's socket or the journal.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from gateway.cli.events import formatting
from gateway.cli.events.sources import OpenQueue, open_queue
from gateway.domain.units import parse_duration, unix_time
from gateway.errors import ConfigError, EventEngineUnavailable
from gateway.events.error_groups import change_group, group_errors
from gateway.events.protocols import (
    STATES,
    VERB_STATES,
    VERBS,
    EventHistory,
    Ledger,
    Selection,
    Verb,
    run_chunks,
)
from gateway.events.remote_ledger import MAX_EVENTS, encode_history, encode_row
from gateway.settings import Settings

USAGE = "ACTION [EVENT_ID ...] [flags]"
HELP = """\
List events, and change their deliveries. A running server is asked, which knows its queue (--events);
if none runs, the journal is read, and NATS is asked if --events names it.

  gateway events list [--state STATE] [--handler NAME] [--since T] [--json]
  gateway events errors [--state STATE] [--handler NAME] [--since T] [--json]
  gateway events show EVENT_ID [--json]
  gateway events retry  EVENT_ID ... | --dead  [--handler NAME] [--since T] [--error TEXT]
  gateway events drop   EVENT_ID ... | --dead  [--handler NAME] [--since T] [--error TEXT]
  gateway events replay EVENT_ID ... | --since T  [--handler NAME]
  gateway events pause  --handler NAME
  gateway events resume --handler NAME

errors  groups dead deliveries by handler and error, or delayed ones with --state delayed
retry   runs dead and delayed deliveries now; attempts are counted from 1 again
drop    deletes dead, delayed and ready deliveries; their handlers do not run
replay  runs done deliveries again, for example after a handler was fixed
pause   stops the deliveries of a handler, also across restarts, until resume
STATE   ready, running, delayed, dead, done, or relayed: NATS has it, the journal keeps it for a replay
TEXT    an error as `errors` prints it: the dead deliveries of that group
T       2h, 7d (ago), 2026-11-22T08:00 (local time, or with a zone), or a Unix time

Exit codes: 0; 1 for an unknown event, or if a list lacks a process that does not answer;
2 for invalid arguments or if no server answers.
"""

PAGE_SIZE: Final = 500
DONE: Final = {"retry": "retried", "drop": "dropped", "replay": "replayed"}

_ACCEPTED: Final[Mapping[str, frozenset[str]]] = {
    "list": frozenset({"state", "handler", "since"}),
    "errors": frozenset({"state", "handler", "since"}),
    "show": frozenset({"event_ids"}),
    "retry": frozenset({"event_ids", "dead", "handler", "since", "error"}),
    "drop": frozenset({"event_ids", "dead", "handler", "since", "error"}),
    "pause": frozenset({"handler"}),
    "resume": frozenset({"handler"}),
    "replay": frozenset({"event_ids", "handler", "since"}),
}
ACTIONS: Final = tuple(_ACCEPTED)
_OPTIONAL: Final = ("dead", "state", "handler", "since", "error")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("action", choices=ACTIONS, metavar="ACTION", help=", ".join(ACTIONS))
    parser.add_argument("event_ids", nargs="*", default=[], metavar="EVENT_ID", help="ids of events")
    parser.add_argument("--dead", action="store_true", help="all dead deliveries")
    parser.add_argument("--state", choices=STATES, help="only deliveries in this state")
    parser.add_argument("--handler", metavar="NAME", help="only deliveries to this handler")
    parser.add_argument(
        "--since", metavar="T", help="only events since then: 2h, 7d, a date, a Unix time"
    )
    parser.add_argument(
        "--error", metavar="TEXT", help="retry, drop: only the dead of this group of `events errors`"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def check_arguments(args: argparse.Namespace) -> None:
    """Raise `ConfigError` for invalid combinations of arguments."""
    action, events = args.action, args.event_ids
    accepted = _ACCEPTED[action]
    for name in _OPTIONAL:
        if getattr(args, name) and name not in accepted:
            raise ConfigError(f"events {action} has no --{name}; see `gateway events --help`")
    if events and "event_ids" not in accepted:
        hint = "; did you mean `gateway events show`?" if action == "list" else ""
        raise ConfigError(f"events {action} accepts no id{hint}")
    if action == "show" and len(events) != 1:
        raise ConfigError("events show needs the id of an event; `gateway events list` prints them")
    if action in {"pause", "resume"} and not args.handler:
        raise ConfigError(f"events {action} needs --handler NAME")
    if action in {"retry", "drop"} and bool(events) == args.dead:
        raise ConfigError(f"events {action} needs either ids of events or --dead")
    if args.error and not args.dead:
        raise ConfigError("--error is for dead deliveries: add --dead")
    if action == "errors" and args.state not in {None, "dead", "delayed"}:
        raise ConfigError("events errors has --state dead or delayed: the others have no error")
    if action == "replay" and bool(events) == bool(args.since):
        raise ConfigError("events replay needs either ids of events or --since T, such as --since 2h")
    selection_of(args)


def selection_of(args: argparse.Namespace, events: Sequence[str] = ()) -> Selection:
    """Return the selected deliveries. Raises `ConfigError` for an invalid time."""
    return Selection(
        state="dead" if args.dead else args.state,
        handler=args.handler,
        since=None if args.since is None else parse_time(args.since, time.time()),
        events=tuple(events),
    )


def parse_time(text: str, now: float) -> float:
    """Return the Unix time of `2h` (ago), of a date and time (ISO 8601), or of a Unix time.

    Without a zone it is local time. Raises `ConfigError`.
    """
    with contextlib.suppress(ValueError):
        return unix_time(text)
    with contextlib.suppress(ValueError):
        return max(now - parse_duration(text), 0.0)
    raise ConfigError(f"--since {text}: use 2h, 7d, 2026-11-22T08:00 or a Unix time")


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run the action. Return 1 for an unknown event. Raises `ConfigError`."""
    check_arguments(args)
    try:
        code = asyncio.run(_run(settings, args))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`head`, a pager) has closed the pipe. Buffered output must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("\ngateway: stopped; finished changes stay, run it again for the rest", file=sys.stderr)
        return 130
    except (EventEngineUnavailable, ValueError) as error:
        raise ConfigError(str(error)) from error
    return code


async def _run(settings: Settings, args: argparse.Namespace) -> int:
    async with open_queue(settings) as queue:
        ledger = queue.ledger
        if queue.note is not None:
            print(f"gateway: {queue.note}", file=sys.stderr)
        if args.action == "list":
            return await _list(queue, selection_of(args), as_json=args.json)
        if args.action == "errors":
            return await _errors(ledger, selection_of(args), as_json=args.json)
        if args.action == "show":
            return await _show(ledger, args.event_ids[0], as_json=args.json)
        if args.action in {"pause", "resume"}:
            return await _pause(ledger, args)
        verb: Verb = next(verb for verb in VERBS if verb == args.action)
        return await _change(ledger, verb, args)


async def _list(queue: OpenQueue, selection: Selection, *, as_json: bool) -> int:
    """Print deliveries page by page, so that a long journal needs no memory."""
    ledger = queue.ledger
    if not as_json:
        print(f"queue: {queue.name}")
    table, shown = formatting.DeliveryTable(), 0
    after: str | None = None
    while True:
        page = await ledger.page(selection, after, PAGE_SIZE)
        for row in page.rows:
            if as_json:
                item = json.dumps(encode_row(row), ensure_ascii=False)
                print(",\n " if shown else "[\n ", item, sep="", end="")
            else:
                print(*table.lines(row, page.rows), sep="\n")
            shown += 1
        after = page.next
        if after is None:
            break
    if as_json:
        print("\n]" if shown else "[]")
        return _report_unavailable(page.unavailable)
    if not shown:
        print("no deliveries" + ("" if selection == Selection() else " match"))
    if paused := await ledger.paused():
        print("paused: " + ", ".join(map(formatting.printable, sorted(paused))))
    return _report_unavailable(page.unavailable)


async def _errors(ledger: Ledger, selection: Selection, *, as_json: bool) -> int:
    """Print the groups of all deliveries that failed, the largest first."""
    groups = await group_errors(ledger, replace(selection, state=selection.state or "dead"))
    if as_json:
        print(json.dumps(groups.as_json(), indent=2, ensure_ascii=False))
    else:
        print(*formatting.error_lines(groups), sep="\n")
    return _report_unavailable(groups.unavailable)


def _report_unavailable(unavailable: Sequence[str]) -> int:
    """Name the processes that did not answer; return the exit code."""
    for name in unavailable:
        slot = name.removeprefix("slot-")
        print(f"gateway: process {slot} does not answer: its deliveries are missing", file=sys.stderr)
    return 1 if unavailable else 0


async def _show(ledger: Ledger, event_id: str, *, as_json: bool) -> int:
    history = await ledger.history(event_id)
    if history is None:
        return _unknown([event_id])
    if as_json:
        print(json.dumps(encode_history(history), indent=2, ensure_ascii=False))
    else:
        print(*formatting.event_lines(history), sep="\n")
    return 0


async def _pause(ledger: Ledger, args: argparse.Namespace) -> int:
    handler = args.handler
    if args.action == "pause":
        await ledger.pause(handler)
        message = (
            f"paused {handler}: its deliveries wait until `gateway events resume --handler {handler}`"
        )
    else:
        await ledger.resume(handler)
        message = f"resumed {handler}"
    print(json.dumps({"handler": handler, "paused": args.action == "pause"}) if args.json else message)
    return 0


async def _change(ledger: Ledger, verb: Verb, args: argparse.Namespace) -> int:
    histories = {event: await ledger.history(event) for event in args.event_ids}
    unknown = [event for event, history in histories.items() if history is None]
    existing = [history for history in histories.values() if history is not None]
    count = 0
    with formatting.progress(DONE[verb]) as report:
        for events in _portions([history.id for history in existing]) if args.event_ids else [()]:
            selection = selection_of(args, events)
            run_chunk = partial(ledger.run_chunk, verb, selection)
            if args.error:
                run_chunk = partial(change_group, ledger, verb, selection, args.error)
            count += await run_chunks(run_chunk, report)
    if args.json:
        print(json.dumps({"count": count}))
    else:
        reason = "" if count or unknown else _why_none(verb, existing)
        print(f"{DONE[verb]} {count} {'delivery' if count == 1 else 'deliveries'}{reason}")
    return _unknown(unknown)


def _why_none(verb: Verb, histories: Sequence[EventHistory]) -> str:
    """Return why `verb` changed nothing: the states of the named deliveries, or that none matches."""
    wanted = " or ".join(VERB_STATES[verb])
    if not histories:
        return f": none that matches is {wanted}"
    rows = [delivery.row for history in histories for delivery in history.deliveries]
    states = dict.fromkeys(f"{formatting.printable(row.handler)} is {row.state}" for row in rows)
    return f": {', '.join(states) or 'there are none'}; {verb} changes what is {wanted}"


def _portions(events: list[str]) -> list[tuple[str, ...]]:
    return [tuple(events[at : at + MAX_EVENTS]) for at in range(0, len(events), MAX_EVENTS)]


def _unknown(events: list[str]) -> int:
    for event in events:
        print(f"gateway: unknown event {formatting.printable(event)}", file=sys.stderr)
    return 1 if events else 0
