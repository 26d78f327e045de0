"""`gateway uploads`: what was uploaded, by whom, when, how it ended; decisions about held uploads."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from gateway.cli.events import parse_time
from gateway.cli.events.formatting import printable, when
from gateway.cli.journals import find_upload, read_uploads
from gateway.cli.owner import AnswerError, OwnerClient, run_printing, running_server
from gateway.domain.units import format_size, unix_time
from gateway.endpoints.admin.upload_sources import NEWEST, STATES, UploadSelection
from gateway.errors import ConfigError
from gateway.settings import Settings

USAGE = "ACTION [UPLOAD_ID] [flags]"
HELP = """\
List uploads, the newest first, show one, or decide about one that is held. A running server is asked,
all of its processes; if none runs, the journals are read, which have what was stored, held or rejected.

  gateway uploads list [--principal NAME] [--since T] [--state STATE] [--json]
  gateway uploads show UPLOAD_ID [--json]
  gateway uploads release UPLOAD_ID
  gateway uploads reject UPLOAD_ID [--reason TEXT]

release publishes a held upload, reject removes it, whatever its handlers would decide
STATE   admitting, receiving, waiting (a resumable upload that goes on later), deciding (handlers decide
        while the client waits), held (until handlers of OnFileReceived have decided), committing,
        unsettled (it is not known yet whether the bucket has it), stored, removed (by DELETE),
        rejected (by a handler or by hand), failed (the latest ones: they are kept in memory)
T       2h, 7d (ago), 2026-11-22T08:00 (local time, or with a zone), or a Unix time

Exit codes: 0; 1 for an unknown upload, one that is decided already, or if a list lacks a process;
2 for invalid arguments or if no server answers.
"""

ACTIONS: Final = ("list", "show", "release", "reject")
PAGE_SIZE: Final = 500

_ACCEPTED: Final[Mapping[str, frozenset[str]]] = {
    "list": frozenset({"principal", "since", "state", "json"}),
    "show": frozenset({"json"}),
    "release": frozenset(),
    "reject": frozenset({"reason"}),
}

_ID_WIDTH: Final = 28
_HEAD: Final = (
    f"{'UPLOAD':<{_ID_WIDTH}}  {'STATE':<10} {'SIZE':>10}  {'CREATED':<19}  {'PRINCIPAL':<12}  PATH"
)

Json = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("action", choices=ACTIONS, metavar="ACTION", help=", ".join(ACTIONS))
    parser.add_argument("upload_id", nargs="?", metavar="UPLOAD_ID", help="id of an upload")
    parser.add_argument("--principal", metavar="NAME", help="only uploads of this principal")
    parser.add_argument("--since", metavar="T", help="only uploads since then: 2h, 7d, a date")
    parser.add_argument("--state", choices=STATES, help="only uploads in this state")
    parser.add_argument("--reason", metavar="TEXT", help="why an upload is rejected")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def check_arguments(args: argparse.Namespace) -> None:
    """Raise `ConfigError` for invalid combinations of arguments."""
    action = args.action
    if action != "list" and not args.upload_id:
        raise ConfigError(
            f"uploads {action} needs the id of an upload; `gateway uploads list` prints them"
        )
    if action == "list" and args.upload_id:
        raise ConfigError("uploads list accepts no id; did you mean `gateway uploads show`?")
    for name in ("principal", "since", "state", "reason", "json"):
        if getattr(args, name) and name not in _ACCEPTED[action]:
            raise ConfigError(f"uploads {action} has no --{name}; see `gateway uploads --help`")


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run the action. Return 1 for an unknown upload. Raises `ConfigError`."""
    check_arguments(args)
    return run_printing(_run(settings, args))


async def _run(settings: Settings, args: argparse.Namespace) -> int:
    since = None if args.since is None else parse_time(args.since, time.time())
    selection = UploadSelection(args.principal, since, args.state)
    async with running_server(settings) as server:
        uploads = _Uploads(settings, server)
        if args.action == "list":
            return await _list(uploads, selection, as_json=args.json)
        if args.action in {"release", "reject"}:
            return await _decide(server, args.action, args.upload_id, args.reason)
        return await _show(uploads, args.upload_id, as_json=args.json)


class _Uploads:
    """The uploads of a directory, from its server or, without one, from its journals."""

    def __init__(self, settings: Settings, server: OwnerClient | None) -> None:
        self._settings = settings
        self._server = server

    async def page(self, selection: UploadSelection, cursor: str, limit: int = PAGE_SIZE) -> Json:
        """Return a page of the list."""
        if self._server is None:
            rows, after = await read_uploads(self._settings, selection, cursor, limit)
            return {"uploads": rows, "next": after}
        fields = {
            "principal": selection.principal,
            "since": selection.since,
            "state": selection.state,
            "limit": limit,
            "cursor": cursor,
        }
        query = {name: str(value) for name, value in fields.items() if value is not None}
        page: Json = await self._server.request("GET", "/-/uploads", query)
        return page

    async def find(self, upload_id: str) -> Json | None:
        """Return what is known of one upload."""
        if self._server is None:
            return await find_upload(self._settings, upload_id)
        try:
            shown: Json = await self._server.request("GET", path_of(upload_id), {})
        except AnswerError as error:
            if error.code != "not_found":
                raise
            return None
        return shown


def path_of(upload_id: str) -> str:
    """Return the path of an upload's status page."""
    return f"/-/uploads/{quote(upload_id, safe='').replace('.', '%2E')}"


async def _decide(server: OwnerClient | None, verb: str, upload_id: str, reason: str | None) -> int:
    """Release or reject a held upload. Raises `AnswerError`, and `ConfigError` where no server runs."""
    if server is None:
        raise ConfigError(f"uploads {verb} needs the running server, which publishes and removes files")
    body = {} if reason is None else {"reason": reason}
    answer = await server.request("POST", f"{path_of(upload_id)}/{verb}", {}, body=body)
    print(f"{printable(answer['upload_id'])}  {answer['state']}")
    return 0


async def _list(uploads: _Uploads, selection: UploadSelection, *, as_json: bool) -> int:
    """Print uploads page by page, so that a long journal needs no memory."""
    count = 0
    cursor: str | None = NEWEST
    unavailable: set[str] = set()
    while cursor is not None:
        page = await uploads.page(selection, cursor)
        for row in page["uploads"]:
            if as_json:
                print(",\n " if count else "[\n ", json.dumps(row, ensure_ascii=False), sep="", end="")
            else:
                print(*([] if count else [_HEAD]), _line(row), sep="\n")
            count += 1
        unavailable |= set(page.get("unavailable", ()))
        cursor = page["next"]
    if as_json:
        print("\n]" if count else "[]")
    elif not count:
        print("no uploads" + ("" if selection == UploadSelection() else " match"))
    for name in sorted(unavailable):
        slot = name.removeprefix("slot-")
        print(f"gateway: process {slot} does not answer: its uploads are missing", file=sys.stderr)
    return 1 if unavailable else 0


def _line(row: Json) -> str:
    principal = printable((row["principal"] or {}).get("name", "-"))
    size, created = format_size(row["bytes"]), when(unix_time(row["created"]))
    begin = f"{printable(row['upload_id']):<{_ID_WIDTH}}  {row['state']:<10} {size:>10}"
    return f"{begin}  {created}  {principal:<12}  {printable(row['path'])}"


async def _show(uploads: _Uploads, upload_id: str, *, as_json: bool) -> int:
    shown = await uploads.find(upload_id)
    if shown is None:
        print(f"gateway: unknown upload {printable(upload_id)}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps(shown, indent=2, ensure_ascii=False))
        return 0
    print(*upload_lines(shown), sep="\n")
    return 0


def upload_lines(shown: Json) -> Iterator[str]:
    """Yield the lines of the status page of an upload; an error of a handler below its handler."""
    for name, value in shown.items():
        if name not in {"handlers", "principal"} and value is not None:
            text = value if isinstance(value, str | int) else json.dumps(value, ensure_ascii=False)
            yield f"{name:<15} {printable(str(text))}"
    if shown.get("principal"):
        yield f"{'principal':<15} {printable('{name} ({kind})'.format(**shown['principal']))}"
    for handler in shown.get("handlers", ()):
        line = f"{printable(handler['handler'])}: {handler['state']}, tries {handler['attempt']}"
        reason = f": {printable(handler['error'])}" if handler.get("error") else ""
        yield f"{'handler':<15} {line}{reason}"
