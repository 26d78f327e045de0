"""`gateway files`: lists, shows and removes what is stored.

A running server is asked. Without one the storage is read here; nothing is removed then, because a
removal is journalled by the server.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from gateway.cli.events.formatting import printable, when
from gateway.cli.owner import AnswerError, OwnerClient, run_printing, running_server
from gateway.domain.paths import UPLOAD_PREFIX
from gateway.domain.units import format_size, unix_time
from gateway.endpoints.listing.page import ListQuery, file_json, page_json, read_page
from gateway.errors import ConfigError, Refusal
from gateway.server.process import protected_places
from gateway.settings import Settings
from gateway.storage.local.storage import LocalStorage
from gateway.storage.local.tree import DirectoryTree
from gateway.storage.protocols import FolderStorage
from gateway.storage.s3.client import Clients
from gateway.storage.s3.encoding import user_metadata
from gateway.storage.s3.storage import S3Storage

USAGE = "ACTION [PATH] [flags]"
HELP = """\
List, show and remove stored files. PATH is a stored path, as events name it: /upload/a/b.bin.
A running server is asked; without one the storage itself is read.

  gateway files list [FOLDER] [--recursive] [--search TEXT] [--json]
  gateway files show PATH [--json]
  gateway files remove PATH [--if-match ETAG]

list    the entries of a folder (/upload/ if none is named); --recursive: the files of all folders below
--search  only files and folders whose name contains TEXT, here and in all folders below
show    size, date, type, entity tag, digest and metadata of one file
remove  removes one file, durably; handlers of APIGW.OnFileDeleted run. Needs a running server
ETAG    removes only this version: the entity tag without quotes, as `show` prints it

Exit codes: 0; 1 for a file or folder that is not there, or another version of it;
2 for invalid arguments or if no server answers.
"""

ACTIONS: Final = ("list", "show", "remove")
_PATH: Final = "/-/files"

Json = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("action", choices=ACTIONS, metavar="ACTION", help=", ".join(ACTIONS))
    parser.add_argument("path", nargs="?", metavar="PATH", help="stored path, such as /upload/a.bin")
    parser.add_argument("--recursive", action="store_true", help="files of all folders below, too")
    parser.add_argument("--search", metavar="TEXT", help="only names that contain TEXT, here and below")
    parser.add_argument("--if-match", metavar="ETAG", help="remove only this version")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def check_arguments(args: argparse.Namespace) -> None:
    """Raise `ConfigError` for invalid combinations of arguments."""
    if args.action != "list" and not args.path:
        raise ConfigError(f"files {args.action} needs the path of a file, such as /upload/a.bin")
    if args.recursive and args.action != "list":
        raise ConfigError(f"files {args.action} has no --recursive; see `gateway files --help`")
    if args.search is not None and args.action != "list":
        raise ConfigError(f"files {args.action} has no --search; see `gateway files --help`")
    if args.if_match and args.action != "remove":
        raise ConfigError(f"files {args.action} has no --if-match; see `gateway files --help`")


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run the action. Return 1 for what is not there. Raises `ConfigError`."""
    check_arguments(args)
    return run_printing(_run(settings, args))


async def _run(settings: Settings, args: argparse.Namespace) -> int:
    async with _open(settings) as files:
        if args.action == "list":
            query = {"path": _folder(args.path)} | ({"recursive": "true"} if args.recursive else {})
            query |= {} if args.search is None else {"search": args.search}
            return await _list(files, query, as_json=args.json)
        path = f"/{args.path.lstrip('/')}"
        if args.action == "show":
            shown = await files.get({"path": path})
            print(*_file_lines(shown, as_json=args.json), sep="\n")
            return 0
        await files.remove(path, args.if_match)
        print(json.dumps({"removed": path}) if args.json else f"removed {printable(path)}")
        return 0


def _folder(path: str | None) -> str:
    return UPLOAD_PREFIX if not path else f"/{path.strip('/')}/".replace("//", "/")


async def _list(files: _Files, query: Mapping[str, str], *, as_json: bool) -> int:
    """Print entries page by page, so that a large folder needs no memory."""
    cursor: str | None = ""
    count = 0
    while cursor is not None:
        page = await files.get({**query, **({"cursor": cursor} if cursor else {})})
        for entry in page["entries"]:
            if as_json:
                item = json.dumps(entry, ensure_ascii=False)
                print(",\n " if count else "[\n ", item, sep="", end="")
            else:
                print(_entry_line(entry))
            count += 1
        cursor = page["next"]
    if as_json:
        print("\n]" if count else "[]")
    elif not count:
        outcome = "is empty" if "search" not in query else "has no such name"
        print(f"{printable(query['path'])} {outcome}")
    return 0


def _entry_line(entry: Json) -> str:
    name = printable(entry["name"])
    if entry["kind"] == "folder":
        return f"{'':>10}  {'':<19}  {name}/"
    return f"{format_size(entry['bytes']):>10}  {when(unix_time(entry['modified']))}  {name}"


def _file_lines(shown: Json, *, as_json: bool) -> list[str]:
    if as_json:
        return [json.dumps(shown, indent=2, ensure_ascii=False)]
    lines = [
        f"path      {printable(shown['path'])}",
        f"bytes     {shown['bytes']} ({format_size(shown['bytes'])})",
        f"modified  {when(unix_time(shown['modified']))}",
        f"mime      {printable(shown['mime'] or 'unknown')}",
        f"etag      {shown['etag']}",
        f"url       {printable(shown['url'])}",
    ]
    if "digest" in shown:
        lines.insert(5, f"digest    {printable(shown['digest'])}")
    return [*lines, *(f"metadata  {printable(f'{k}: {v}')}" for k, v in shown["metadata"].items())]


class _Files:
    """What is stored, as the server tells it."""

    def __init__(self, server: OwnerClient) -> None:
        self._server = server

    async def get(self, query: Mapping[str, str]) -> Json:
        """Return a page of a folder, or a file."""
        answer: Json = await self._server.request("GET", _PATH, query)
        return answer

    async def remove(self, path: str, etag: str | None) -> None:
        """Remove a file."""
        headers = {} if etag is None else {"If-Match": f'"{etag.strip(chr(34))}"'}
        await self._server.request("DELETE", _PATH, {"path": path}, headers)


class _UnservedFiles(_Files):
    """What is stored, read without a server."""

    def __init__(self, storage: FolderStorage) -> None:
        self._storage = storage

    async def get(self, query: Mapping[str, str]) -> Json:
        """Return a page of a folder, or a file. Without a server nothing has a URL."""
        path = query["path"]
        try:
            if not path.endswith("/"):
                stat = await self._storage.stat(path)
                return {**file_json(stat, str), "metadata": user_metadata(stat.metadata)}
            params = {name: [value] for name, value in query.items() if name != "path"}
            page = await read_page(self._storage, path, ListQuery.read(params))
        except Refusal as refusal:
            raise AnswerError(refusal.code, refusal.message) from refusal
        return page_json(page, str, lambda name: f"{path}{name}")

    async def remove(self, path: str, etag: str | None) -> None:
        """Refuse: handlers would not hear of it. Raises `ConfigError`."""
        raise ConfigError(
            "files remove needs a running server: it journals the removal for its handlers"
        )


@asynccontextmanager
async def _open(settings: Settings) -> AsyncIterator[_Files]:
    async with running_server(settings) as server:
        if server is not None:
            yield _Files(server)
        elif settings.storage == "file":
            tree = DirectoryTree(settings.directory, protected_places(settings))
            try:
                yield _UnservedFiles(LocalStorage(tree))
            finally:
                tree.close()
        else:
            clients = Clients()
            try:
                yield _UnservedFiles(S3Storage(settings.storage, clients))
            finally:
                await clients.close()
