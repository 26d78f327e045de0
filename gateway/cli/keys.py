"""`gateway keys`: API keys for programs. A key is printed once; the state folder has its SHA-256."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from gateway.auth.api_keys import ApiKey, KeyScope, check_prefix, new_api_key
from gateway.auth.key_store import KeyStore, KeyTable
from gateway.auth.tokens import token_digest
from gateway.cli.arguments import duration, size
from gateway.cli.events.formatting import when
from gateway.domain.units import format_size, iso_time, parse_rate
from gateway.errors import ConfigError
from gateway.settings import Settings
from gateway.settings.values import token_name
from gateway.storage.local.state_dir import StateDirectory

USAGE: Final = "ACTION [NAME] [flags]"
HELP: Final = """\
API keys for programs. A running server takes each change within seconds; none needs to run.

  gateway keys create NAME [--prefix /upload/acme/] [--methods PUT,GET] [--expires 30d]
                           [--rate 10/m] [--bytes-per-day 50G]
  gateway keys list [--json]
  gateway keys rotate NAME [--overlap 1d] [--expires 30d]
  gateway keys revoke NAME

`create` and `rotate` print the key, once. It is sent as a token is: `X-Auth-Token: KEY`.

--prefix   paths of requests that the key is for: below a folder where it ends with a slash
--methods  GET stands for HEAD too; resumable uploads need POST,PATCH,HEAD (tus) or PUT,HEAD (ranges)
--rate     requests, over all processes of the server
--overlap  how long the secret before counts too (0: not any more)

Exit codes: 0; 2 for invalid arguments, and for a name that is unknown or taken."""

OVERLAP: Final = 86_400.0

_FLAGS: Final[Mapping[str, tuple[str, ...]]] = {
    "create": ("prefix", "methods", "expires", "rate", "bytes_per_day", "json"),
    "list": ("json",),
    "rotate": ("overlap", "expires", "json"),
    "revoke": (),
}
_METHODS: Final = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("action", choices=tuple(_FLAGS), metavar="ACTION", help=", ".join(_FLAGS))
    parser.add_argument("name", nargs="?", metavar="NAME", help="principal in logs and events")
    parser.add_argument("--prefix", type=_argument(check_prefix), metavar="PATH", help="only below it")
    parser.add_argument("--methods", type=_argument(_methods), metavar="LIST", help="only these")
    parser.add_argument("--expires", type=duration, metavar="TIME", help="lifetime, such as 30d")
    parser.add_argument("--rate", type=_argument(parse_rate), metavar="RATE", help="such as 10/m")
    parser.add_argument("--bytes-per-day", type=size, metavar="SIZE", help="bytes that it uploads a day")
    parser.add_argument("--overlap", type=duration, metavar="TIME", help="rotate only (default: 1d)")
    parser.add_argument("--json", action="store_true", default=None, help="print one JSON document")


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Run the action. Raises `ConfigError`."""
    _check_arguments(args)
    if not settings.directory_explicit and not settings.state.is_dir():
        raise ConfigError("say which gateway the keys are for: gateway keys ... --directory DIR")
    store = KeyStore(settings.state)
    if args.action == "list":
        _list(store.read(), as_json=bool(args.json))
    elif args.action == "create":
        StateDirectory(settings.state).prepare()
        _create(store, args)
    elif args.action == "rotate":
        _rotate(store, args)
    else:
        done = store.revoke(args.name)
        print(f"key {args.name} {'revoked' if done else 'had been revoked'}")
    return 0


def _check_arguments(args: argparse.Namespace) -> None:
    """Raise `ConfigError` for invalid combinations of arguments."""
    if args.action == "list" and args.name:
        raise ConfigError("keys list accepts no name")
    if args.action != "list" and not args.name:
        raise ConfigError(f"keys {args.action} needs the name of a key")
    flags = {flag for names in _FLAGS.values() for flag in names}
    for flag in sorted(flags - {*_FLAGS[args.action]}):
        if getattr(args, flag) is not None:
            name = flag.replace("_", "-")
            raise ConfigError(f"keys {args.action} has no --{name}; see `gateway keys --help`")
    if args.expires == 0:
        raise ConfigError("--expires: a key that expires at once is of no use")
    if args.bytes_per_day == 0:
        raise ConfigError("--bytes-per-day: a key that uploads nothing is made with --methods GET")


def _create(store: KeyStore, args: argparse.Namespace) -> None:
    try:
        name = token_name(args.name)
    except ValueError as error:
        raise ConfigError(f"NAME {error} (got {args.name!r})") from None
    now, secret = time.time(), new_api_key()
    expires = None if args.expires is None else now + args.expires
    scope = KeyScope(args.prefix, args.methods or ())
    key = ApiKey(name, scope, args.rate, args.bytes_per_day, now, expires)
    store.create(key, token_digest(secret))
    _print_secret(key, secret, as_json=bool(args.json))


def _rotate(store: KeyStore, args: argparse.Namespace) -> None:
    secret, overlap = new_api_key(), OVERLAP if args.overlap is None else args.overlap
    expires = None if args.expires is None else time.time() + args.expires
    key = store.rotate(args.name, token_digest(secret), overlap, expires)
    _print_secret(key, secret, as_json=bool(args.json))


def _print_secret(key: ApiKey, secret: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"key": secret, **_Row.of(key, None).fields()}, ensure_ascii=False))
        return
    until = "" if key.expires is None else f"; it expires {when(key.expires)}"
    print(f"key {key.name} (shown only now): {secret}")
    print(f"send it as `X-Auth-Token: <key>` or `Authorization: Bearer <key>`{until}")


class _Row(NamedTuple):
    """A key as it is listed; `overlap_until` is when a secret before the latest ends."""

    key: ApiKey
    state: str
    overlap_until: float | None

    @classmethod
    def of(cls, key: ApiKey, table: KeyTable | None) -> _Row:
        now = time.time()
        secrets = () if table is None else table.secrets
        ends = [s.until for s in secrets if s.key is key and s.until is not None and s.is_valid(now)]
        return cls(key, key.state(now), max(ends, default=None))

    def fields(self) -> dict[str, Any]:
        """Return the fields of the JSON."""
        key = self.key
        times = {name: getattr(key, name) for name in ("created", "expires", "last_used", "revoked")}
        times["overlap_until"] = self.overlap_until
        return {
            "name": key.name,
            "state": self.state,
            "prefix": key.scope.prefix,
            "methods": list(key.scope.methods) or None,
            "rate": None if key.rate is None else str(key.rate),
            "bytes_per_day": key.bytes_per_day,
            **{name: None if moment is None else iso_time(moment) for name, moment in times.items()},
        }

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the table."""
        key = self.key
        return (
            key.name,
            self.state,
            key.scope.prefix or "-",
            ",".join(key.scope.methods) or "-",
            "-" if key.rate is None else str(key.rate),
            "-" if key.bytes_per_day is None else f"{format_size(key.bytes_per_day)}/d",
            "never" if key.expires is None else when(key.expires),
            "never" if key.last_used is None else when(key.last_used),
        )


_HEAD: Final = ("NAME", "STATE", "PREFIX", "METHODS", "RATE", "BYTES", "EXPIRES", "LAST USED")


def _list(table: KeyTable, *, as_json: bool) -> None:
    rows = [_Row.of(key, table) for key in table.keys.values()]
    if as_json:
        print(json.dumps([row.fields() for row in rows], indent=1, ensure_ascii=False))
        return
    if not rows:
        print("no keys; make one with `gateway keys create NAME`")
        return
    lines = [_HEAD, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def _methods(text: str) -> tuple[str, ...]:
    methods = tuple(dict.fromkeys(word.strip().upper() for word in text.split(",")))
    if not _METHODS.issuperset(methods):
        raise ValueError(f"must be methods such as PUT,GET, of {', '.join(sorted(_METHODS))}")
    return methods


def _argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a parser for argparse, which names what is wrong."""

    def parsed(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{error} (got {text!r})") from error

    return parsed
