"""`gateway events list|show`: look into the journal of events.

While a server owns the directory the answer comes from it, through the owner's Unix socket; while
none does, the journal itself is opened, under the slot's lock. May import everything below.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from yarl import URL

from gateway.errors import ConfigError
from gateway.events.journal import Journal
from gateway.events.ledger import Row
from gateway.observe import STATES
from gateway.settings import Settings
from gateway.storage.state import OwnedError, State

HELP = """\
Look into the journal of events; works while the server runs and while it does not.

  gateway events list [--state ready|running|delayed|dead|done] [--handler NAME] [--json]
  gateway events show EVENT_ID [--json]
"""

PAGE: Final = 500
SECONDS: Final = 10.0
FIELDS: Final = (
    "event_id", "upload_id", "handler", "event", "path", "state", "attempt", "error", "created", "due",
)  # fmt: skip

Page = Callable[[int], Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes beside the settings."""
    parser.add_argument("action", choices=("list", "show"), help="what to do")
    parser.add_argument("event_id", nargs="?", help="the event to show")
    parser.add_argument("--state", choices=STATES, help="only deliveries in this state")
    parser.add_argument("--handler", metavar="NAME", help="only deliveries to this handler")
    parser.add_argument("--json", action="store_true", help="for programs: one JSON document")


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Print what was asked for. Returns 1 for an event that nobody knows."""
    if args.action == "show" and not args.event_id:
        raise ConfigError("events show needs the id of an event; `gateway events list` prints them")
    if args.action == "list" and args.event_id:
        raise ConfigError("events list takes no id; did you mean `gateway events show`?")
    try:
        code = asyncio.run(_list(settings, args) if args.action == "list" else _show(settings, args))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`head`, a pager) has seen enough. What is still buffered must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


async def _list(settings: Settings, args: argparse.Namespace) -> int:
    """Print deliveries page by page, so that a long journal needs no memory."""
    shown, after = 0, 0
    show = _json_row if args.json else _table_row
    async with _source(settings) as source:
        while True:
            rows = await source.page(args.state, args.handler, after)
            for row in rows:
                show(row, shown)
                shown += 1
            if len(rows) < PAGE:
                break
            after = rows[-1]["seq"]
    if args.json:
        print("\n]" if shown else "[]")
    elif not shown:
        print("no deliveries" + (" in this state" if args.state else ""))
    return 0


async def _show(settings: Settings, args: argparse.Namespace) -> int:
    async with _source(settings) as source:
        event = await source.history(args.event_id)
    if event is None:
        print(f"gateway: no event {args.event_id} is known", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(event, indent=2, ensure_ascii=False))
    else:
        _print_event(event)
    return 0


# -- where the rows come from


class _Owner:
    """The server that owns the directory."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def page(self, state: str | None, handler: str | None, after: int) -> list[Row]:
        query = {"state": state, "handler": handler, "after": after, "limit": PAGE}
        given = {name: str(value) for name, value in query.items() if value is not None}
        async with self._session.get("http://owner/-/events", params=given) as answer:
            answer.raise_for_status()
            rows: list[Row] = (await answer.json())["deliveries"]
            return rows

    async def history(self, event_id: str) -> Row | None:
        # Quoted, and kept as it is: `../uploads/x` is an id that nobody knows, not another page.
        page = URL("http://owner/-/events/" + quote(event_id, safe=""), encoded=True)
        async with self._session.get(page) as answer:
            if answer.status == 404:
                return None
            answer.raise_for_status()
            row: Row = await answer.json()
            return row


class _File:
    """The journal itself."""

    def __init__(self, journal: Journal) -> None:
        self._ledger = journal.ledger

    async def page(self, state: str | None, handler: str | None, after: int) -> list[Row]:
        return await asyncio.wrap_future(self._ledger.page(state, handler, after, PAGE))

    async def history(self, event_id: str) -> Row | None:
        return await asyncio.wrap_future(self._ledger.history(event_id))


@asynccontextmanager
async def _source(settings: Settings) -> AsyncIterator[_Owner | _File]:
    state = State(settings.state)
    if not state.journal.exists():
        raise ConfigError(
            "there is no journal: no gateway has served this directory yet; give its --directory",
            str(settings.directory),
        )
    try:
        state.prepare()
        state.lock()
    except OwnedError:
        async with _owner(state) as owner:
            yield owner
        return
    journal = Journal(state.journal)
    try:
        journal.open()
        yield _File(journal)
    finally:
        journal.close()
        state.unlock()


@asynccontextmanager
async def _owner(state: State) -> AsyncIterator[_Owner]:
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    with state.short_socket_path() as path:
        connector = aiohttp.UnixConnector(path=path)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            try:
                yield _Owner(session)
            except (aiohttp.ClientError, TimeoutError) as fault:
                raise ConfigError(
                    f"the server that owns the directory does not answer ({fault}); is it starting "
                    "or stopping?",
                    str(state.socket),
                ) from fault


# -- how they are shown


def _json_row(row: Row, number: int) -> None:
    picked = {name: row[name] for name in FIELDS}
    print(",\n " if number else "[\n ", json.dumps(picked, ensure_ascii=False), sep="", end="")


def _table_row(row: Row, number: int) -> None:
    if not number:
        print(f"{'EVENT':<30} {'HANDLER':<24} {'STATE':<8} {'TRIES':>5}  {'DUE':<19}  PATH")
    print(
        f"{row['event_id']:<30} {row['handler']:<24} {row['state']:<8} {row['attempt']:>5}  "
        f"{_when(row['due'])}  {row['path'] or ''}"
    )
    if row["error"] and row["state"] != "done":
        print(f"    {row['error'].splitlines()[0]}")


def _print_event(event: Row) -> None:
    print(f"event    {event['id']}  {event['type']}  {_when(event['created'])}")
    print(f"upload   {event['upload_id']}  {event['path'] or ''}")
    for delivery in event["handlers"]:
        print(f"handler  {delivery['handler']}: {delivery['state']}, tries {delivery['attempt']}")
        for run in delivery["runs"]:
            print(
                f"  try {run['attempt']}  {_when(run['ended'])}  {run['duration']:.3f} s  "
                f"{run['outcome']}"
            )
            for line in (run["error"] or "").splitlines():
                print(f"      {line}")
    print("body     " + json.dumps(event["body"], indent=2, ensure_ascii=False))


def _when(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
