"""`gateway links`: share links and drop links. Their URL is printed once; its SHA-256 is kept.

`--max-bytes` is a setting too: here it is the limit of the link.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import io
import json
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import segno

from gateway.auth.installation import public_url
from gateway.auth.links.creation import LinkTerms, create_link
from gateway.auth.links.link import DEFAULT_LINK_TTL, MAX_PASSWORD_CHARS, Link
from gateway.auth.links.passwords import hash_password
from gateway.auth.links.store import LinkStore
from gateway.cli.arguments import duration
from gateway.cli.events.formatting import when
from gateway.cli.owner import AnswerError, OwnerClient, running_server
from gateway.domain.addresses import Address
from gateway.domain.links import link_quota
from gateway.domain.units import format_size, parse_size
from gateway.endpoints.links.counts import LinkUsage
from gateway.endpoints.links.handler import FOR_EVER, shown_link, shown_once
from gateway.errors import ConfigError, RecordsUnavailable
from gateway.limits.quota_sweeps import usage_of
from gateway.server.quotas import open_quota_store
from gateway.settings import Settings
from gateway.storage.local.state_dir import StateDirectory

USAGE: Final = "ACTION [ID] [flags]"
HELP: Final = """\
Links for people who have no token: a drop link is for sending files into a folder and for nothing
else, a share link is for reading a folder. A running server takes each change within a second.

  let somebody send up to 20 files, 5 GiB in all, within a week:
    gateway links create --drop /upload/inbox/ --expires 7d --max-files 20 --max-bytes 5G

  let somebody fetch the files of a folder, who also has a password from you:
    gateway links create --share /upload/report/ --expires 30d --password

  see what came through, and end a link at once:
    gateway links list [--json]
    gateway links revoke ID

`create` prints the URL, once, and on a terminal as a QR code too. Who has the URL has the link: send it
as you would send a key. FOLDER is written as `gateway files list` shows it. Nothing that is sent
replaces a file; what is removed counts all the same.

--expires   lifetime, such as 12h or 30d; `never` for no end (default: 7d)
--password  asked for on a terminal, else read from standard input

Exit codes: 0; 2 for invalid arguments, and for an id that no link has."""

_FLAGS: Final[Mapping[str, tuple[str, ...]]] = {
    "create": ("drop", "share", "expires", "max_files", "max_bytes", "password", "json"),
    "list": ("json",),
    "revoke": (),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("action", choices=tuple(_FLAGS), metavar="ACTION", help=", ".join(_FLAGS))
    parser.add_argument("link_id", nargs="?", metavar="ID", help="of a link, as `list` shows it")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--drop", metavar="FOLDER", help="for uploads into this folder")
    kind.add_argument("--share", metavar="FOLDER", help="for reading this folder")
    parser.add_argument("--expires", type=_lifetime, metavar="TIME", help="lifetime, such as 7d")
    parser.add_argument("--max-files", type=int, metavar="N", help="files that may be sent in all")
    parser.add_argument("--password", action="store_true", default=None, help="ask for a password")
    parser.add_argument("--json", action="store_true", default=None, help="print one JSON document")


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run the action. Raises `ConfigError`."""
    _check_arguments(args)
    if not settings.directory_explicit and not settings.state.is_dir():
        raise ConfigError("say which gateway the links are for: gateway links ... --directory DIR")
    store = LinkStore(settings.state)
    if args.action == "list":
        _list(settings, list(store.read().links.values()), as_json=bool(args.json))
    elif args.action == "create":
        _print_new(asyncio.run(_create(settings, store, args)), as_json=bool(args.json))
    else:
        done = store.revoke(args.link_id)
        print(f"link {args.link_id} {'revoked' if done else 'had been revoked'}")
    return 0


def _lifetime(text: str) -> float | str:
    return text if text == FOR_EVER else duration(text)


def _check_arguments(args: argparse.Namespace) -> None:
    """Raise `ConfigError` for invalid combinations of arguments."""
    flags = {flag for names in _FLAGS.values() for flag in names}
    for flag in sorted(flags - {*_FLAGS[args.action]}):
        if getattr(args, flag, None) is not None:
            name = flag.replace("_", "-")
            raise ConfigError(f"links {args.action} has no --{name}; see `gateway links --help`")
    if args.action == "revoke" and not args.link_id:
        raise ConfigError("links revoke needs the id of a link; `gateway links list` shows the ids")
    if args.action != "revoke" and args.link_id:
        raise ConfigError(f"links {args.action} accepts no id")
    if args.action == "create":
        folder = args.drop or args.share
        if not folder:
            raise ConfigError("links create needs --drop FOLDER or --share FOLDER")
        if not folder.startswith("/"):
            raise ConfigError(
                f"FOLDER is written as `gateway files list` shows it, such as /upload/{folder}/"
            )


# -- create


async def _create(settings: Settings, store: LinkStore, args: argparse.Namespace) -> dict[str, Any]:
    """Make a link: by the running server, which has its address, or without one."""
    async with running_server(settings) as server:
        if server is None:
            _base(settings)  # before anything is made
            return _create_here(settings, store, args, _password() if args.password else None)
        return await _create_there(server, args, _password() if args.password else None)


async def _create_there(
    server: OwnerClient, args: argparse.Namespace, password: str | None
) -> dict[str, Any]:
    body = {
        "kind": "drop" if args.drop else "share",
        "folder": args.drop or args.share,
        "expires": args.expires,
        "max_files": args.max_files,
        "max_bytes": _max_bytes(args),
        "password": password,
    }
    try:
        answer: dict[str, Any] = await server.request("POST", "/-/links", {}, body=body)
    except AnswerError as error:
        raise ConfigError(str(error)) from None
    return answer


def _create_here(
    settings: Settings, store: LinkStore, args: argparse.Namespace, password: str | None
) -> dict[str, Any]:
    StateDirectory(settings.state).prepare()
    lifetime = DEFAULT_LINK_TTL if args.expires is None else args.expires
    try:
        terms = LinkTerms(
            "drop" if args.drop else "share",
            args.drop or args.share,
            None if lifetime == FOR_EVER else lifetime,
            args.max_files,
            _max_bytes(args),
            None if password is None else hash_password(password),
        )
        new = create_link(store, terms, settings.upload_template, None, time.time())
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return shown_once(new, _base(settings))


def _max_bytes(args: argparse.Namespace) -> int | None:
    text = getattr(args, "max_bytes", None)
    return None if text is None else parse_size(text)


def _base(settings: Settings) -> str:
    if settings.port == 0 and settings.public_url is None and settings.advertise is None:
        raise ConfigError("with --port 0 the address is unknown: add --public-url, or start the server")
    return public_url(settings, Address(settings.host, settings.port))


def _password() -> str:
    """Return the password: typed twice, or the first line of standard input."""
    if sys.stdin.isatty():
        password = getpass.getpass("password of the link (not shown): ")
        if getpass.getpass("once more: ") != password:
            raise ConfigError("the two passwords differ")
    else:
        password = sys.stdin.readline(MAX_PASSWORD_CHARS + 2).removesuffix("\n").removesuffix("\r")
    if not 0 < len(password) <= MAX_PASSWORD_CHARS:
        raise ConfigError(f"a password has 1 to {MAX_PASSWORD_CHARS} characters: send it to stdin")
    return password


def _print_new(answer: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        shown = {name: value for name, value in answer.items() if name != "qr"}
        print(json.dumps(shown, ensure_ascii=False))
        return
    if not sys.stdout.isatty():
        print(answer["url"])
        return
    what = "files are sent into" if answer["kind"] == "drop" else "shows the files of"
    print(f"link {answer['id']}: {what} {answer['folder']}; shown only now:\n\n  {answer['url']}\n")
    code = io.StringIO()
    segno.make_qr(answer["url"], error="m", boost_error=False).terminal(code, compact=True)
    print(code.getvalue())
    end = "never expires" if answer["expires"] is None else f"expires {answer['expires'][:16]}Z"
    password = "; it needs its password" if answer["password"] else ""
    print(f"it {end}{password}; end it with `gateway links revoke {answer['id']}`")


# -- list


_HEAD: Final = ("ID", "KIND", "STATE", "FILES", "BYTES", "FETCHED", "EXPIRES", "PASSWORD", "FOLDER")


def _list(settings: Settings, links: Sequence[Link], *, as_json: bool) -> None:
    usage, now = asyncio.run(_usage(settings, links)), time.time()
    if as_json:
        rows = [shown_link(link, usage.get(link.id), now) for link in links]
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    if not links:
        print("no links; make one with `gateway links create --drop FOLDER`")
        return
    lines = [_HEAD, *(_cells(link, usage.get(link.id), now) for link in links)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


async def _usage(settings: Settings, links: Sequence[Link]) -> Mapping[str, LinkUsage]:
    """Return what came through drop links, by id. Raises `ConfigError`."""
    keys = {link.id: link_quota(link.id) for link in links if link.kind == "drop"}
    store, _ = open_quota_store(settings, is_first=False)
    try:
        if not keys or not store.exists():
            return {}
        used = await store.run(partial(usage_of, tuple(keys.values())))
    except RecordsUnavailable as error:
        raise ConfigError(f"what came through the links cannot be read: {error}") from error
    finally:
        await asyncio.to_thread(store.close)
    return {link_id: LinkUsage(used[key][1], used[key][0]) for link_id, key in keys.items()}


def _cells(link: Link, usage: LinkUsage | None, now: float) -> tuple[str, ...]:
    used = usage or LinkUsage(0, 0)
    files = str(used.files) if link.max_files is None else f"{used.files}/{link.max_files}"
    sent = format_size(used.bytes)
    if link.max_bytes is not None:
        sent += f"/{format_size(link.max_bytes)}"
    is_drop = link.kind == "drop"
    return (
        link.id,
        link.kind,
        link.state(now),
        files if is_drop else "-",
        sent if is_drop else "-",
        "-" if is_drop else str(link.downloads),
        "never" if link.expires is None else when(link.expires),
        "yes" if link.password is not None else "-",
        link.folder,
    )
