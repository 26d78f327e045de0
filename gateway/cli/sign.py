"""The verb `sign`: print a signed URL.

The rule: it needs the key and the settings, nothing else: no server, no script of a plugin is run.
What it prints is a URL that some door of this gateway takes; for any other path it says which it
would be.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from gateway.auth.installation import KEY_FILE, known_keys, public_url
from gateway.auth.links import DEFAULT_SECONDS, new_nonce, object_of
from gateway.domain import paths
from gateway.domain.addresses import Address
from gateway.domain.api_routes import OBJECTS_PREFIX, match_api_route
from gateway.domain.grant import Grant, encode_path, grant_metadata
from gateway.domain.path_template import UploadPathTemplate
from gateway.endpoints.routing.model import Operation, Route
from gateway.endpoints.routing.table import RouteTable
from gateway.errors import ConfigError, Refusal
from gateway.plugins.yaml_documents import find_files, read_file
from gateway.settings import Settings
from gateway.signing import UrlSigner, carries_signature

USAGE: Final = "METHOD PATH [--expires SECONDS] [what it allows] [flags]"

HELP: Final = """\
Print a URL that allows one kind of request until it expires, to whoever has it: no token is needed.
It is good for that method and path only. The server may run or not.

  let somebody upload one picture, once, of at most 10 MB, within an hour:
    gateway sign PUT /upload/team/cat.png --expires 3600 --content-type image/png \\
      --max-length 10000000 --once
    curl -T cat.png -H 'Content-Type: image/png' 'http://...'

  let somebody read a stored file, whatever --downloads says:
    gateway sign GET /-/objects/upload/team/cat.png --filename cat.png

  let somebody ask a route, with these very parameters:
    gateway sign GET '/exports?from=2026-01-01&to=2026-02-01'

PATH is as it stands in the URL behind the host. Uploads are PUT at the upload path; below
/-/objects every stored path takes PUT, GET and HEAD."""


class _RequestToSign(NamedTuple):
    """What is to be signed: a path still encoded, and its query."""

    method: str
    raw_path: str
    query: tuple[tuple[str, str], ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add method, path and what the URL allows."""
    parser.add_argument("method", metavar="METHOD", help="PUT, GET, ...: GET allows HEAD too")
    parser.add_argument("path", metavar="PATH", help="path of this gateway, maybe with a query")
    number: dict[str, Any] = {"type": int, "metavar": "N"}
    parser.add_argument(
        "--expires", type=int, metavar="SECONDS", default=DEFAULT_SECONDS,
        help=f"how long it lives, at most 604800, 7 days (default: {DEFAULT_SECONDS})",
    )  # fmt: skip
    parser.add_argument("--content-type", metavar="TYPE", help="the Content-Type that must be sent")
    parser.add_argument("--length", help="the exact number of bytes", **number)
    parser.add_argument("--max-length", help="the greatest number of bytes", **number)
    parser.add_argument(
        "--meta", action="append", default=[], metavar="NAME=VALUE",
        help="metadata that the file gets (repeatable)",
    )  # fmt: skip
    parser.add_argument("--once", action="store_true", help="an upload that was stored uses it up")
    parser.add_argument("--no-overwrite", action="store_true", help="409 where the file exists")
    parser.add_argument("--filename", help="the name under which a browser saves the answer")


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Print the URL. Raises ConfigError for what no door takes, and for terms that make no sense."""
    asked = _asked(args.method, args.path)
    stores = _check_door(settings, asked)
    if not stores and (args.once or args.no_overwrite or args.meta):
        raise ConfigError(
            "--once, --no-overwrite and --meta are said of an upload; this path stores none"
        )
    base = _base(settings)
    try:
        print(base + UrlSigner(known_keys(_key_file(settings))).target(_grant(asked, args)))
    except ValueError as fault:
        raise ConfigError(str(fault)) from None
    return 0


def _asked(method: str, path: str) -> _RequestToSign:
    if not path.startswith("/"):
        raise ConfigError("PATH must start with a slash: it is what stands behind the host of the URL")
    try:
        raw_path, raw_query = paths.split_target(path)
        # One spelling, so that what is printed is what will be asked for.
        raw_path = encode_path("/" + "/".join(_plain(segment) for segment in paths.decode(raw_path)))
    except (Refusal, ValueError) as fault:
        raise ConfigError(f"PATH: {fault}") from None
    if carries_signature(raw_query):
        raise ConfigError("PATH is signed already: give it without its X-Gateway-... parameters")
    query = parse_qsl(raw_query, keep_blank_values=True)
    return _RequestToSign(method.upper(), raw_path, tuple(query))


def _plain(segment: str) -> str:
    if "/" in segment:
        raise ValueError("a segment contains a slash (%2F)")
    return segment


def _grant(asked: _RequestToSign, args: argparse.Namespace) -> Grant:
    """Return what is signed. Raises `ValueError`."""
    said = [pair.partition("=") for pair in args.meta]
    if any(not equals for _, equals, _ in said):
        raise ValueError("--meta must look like NAME=VALUE")
    if len({name.lower() for name, _, _ in said}) < len(said):
        raise ValueError("--meta names something twice")
    return Grant(
        method=asked.method,
        path="/" + "/".join(paths.decode(asked.raw_path)),
        expires=int(time.time()) + args.expires,
        content_type=args.content_type,
        length=args.length,
        max_length=args.max_length,
        metadata=grant_metadata({name: value for name, _, value in said}),
        once=new_nonce() if args.once else None,
        on_conflict="reject" if args.no_overwrite else None,
        filename=args.filename,
        query=asked.query,
    )


def _key_file(settings: Settings) -> Path:
    path = settings.installation_key_file or settings.state / KEY_FILE
    if not path.exists():
        raise ConfigError(
            "there is no key to sign with: the gateway makes it at its first start, so start it once,"
            " name its --directory, or the key that all share with --installation-key-file",
            str(path),
        )
    return path


def _base(settings: Settings) -> str:
    if settings.port == 0 and settings.public_url is None and settings.advertise is None:
        raise ConfigError("with --port 0 nobody knows the address: say --public-url")
    return public_url(settings, Address(settings.host, settings.port))


# -- doors


def _check_door(settings: Settings, asked: _RequestToSign) -> bool:
    """Return whether the door stores files.

    Raises ConfigError, with a better path where there is one, for what no door takes.
    """
    template = UploadPathTemplate.parse(settings.file_upload_api_path)
    try:
        stored, upload = object_of(asked.raw_path), template.match(asked.raw_path)
    except Refusal as refusal:
        raise ConfigError(f"PATH: {refusal.message}") from None
    if stored is not None:
        _check_method(asked, ("PUT", "GET", "HEAD"))
    elif asked.raw_path.startswith("/-/"):
        api = match_api_route(paths.decode(asked.raw_path))
        if api is None:
            raise _no_door(asked, settings)
        _check_method(asked, api.allowed)
    elif upload is not None:
        if asked.method in {"GET", "HEAD"} and not settings.downloads:
            raise ConfigError(
                "files are not read at their upload path without --downloads: sign"
                f" {OBJECTS_PREFIX}{encode_path(upload.path)}"
            )
        _check_method(asked, ("PUT", "GET", "HEAD"))
    else:
        _check_route(settings, asked)
    return stored is not None or upload is not None


def _check_method(asked: _RequestToSign, methods: Sequence[str]) -> None:
    if asked.method not in methods:
        raise ConfigError(f"METHOD: this path takes {', '.join(methods)}, not {asked.method}")


def _check_route(settings: Settings, asked: _RequestToSign) -> None:
    try:
        RouteTable(_routes(settings)).find(asked.raw_path, asked.method)
    except Refusal as refusal:
        if refusal.code == "method_not_allowed":
            raise ConfigError(f"METHOD: {refusal.message}, not {asked.method}") from None
        raise _no_door(asked, settings) from None


def _routes(settings: Settings) -> list[Route]:
    """Return the routes of the plugins as far as paths and methods go; their scripts are left alone."""
    found: list[Route] = []
    for file in find_files(settings.plugins):
        for document in read_file(file):
            proxy, specs = document.data.get("proxy"), document.data.get("spec") or []
            if not isinstance(proxy, dict) or not isinstance(proxy.get("path"), str):
                continue
            methods = [str(one.get("method")) for one in specs if isinstance(one, dict)]
            found.append(
                Route(
                    name=str(document.data.get("name")),
                    place=f"{file}:{document.line()}",
                    path=proxy["path"],
                    target="/",
                    upstreams=("somewhere",),
                    scheme="http",
                    auth="default",
                    operations={method: Operation(method, "") for method in methods},
                )
            )
    return found


def _no_door(asked: _RequestToSign, settings: Settings) -> ConfigError:
    return ConfigError(
        f"{asked.raw_path} is no URL of this gateway. Files are uploaded with PUT"
        f" {settings.file_upload_api_path}; a stored file has the URL {OBJECTS_PREFIX}/... ; a route"
        " must be in --plugins"
    )
