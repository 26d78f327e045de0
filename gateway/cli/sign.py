"""`gateway sign`: prints a signed URL.

It reads the key, the settings and the paths of routes; no server and no script runs. A path that no
endpoint of this gateway serves is refused, with a better one if there is one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from gateway.auth.installation import KEY_FILE, public_url, read_installation_keys
from gateway.auth.request import RequestHead
from gateway.auth.signed_urls import DEFAULT_URL_TTL, match_object_path, new_nonce
from gateway.cli.arguments import duration, size
from gateway.domain import paths
from gateway.domain.addresses import Address
from gateway.domain.api_routes import OBJECTS_PREFIX, match_api_route
from gateway.domain.grant import Grant, encode_path, grant_metadata
from gateway.domain.units import format_duration
from gateway.endpoints.routing.model import Operation, Route
from gateway.endpoints.routing.table import RouteTable
from gateway.errors import ConfigError, Refusal
from gateway.plugins.yaml_documents import find_files, read_file
from gateway.settings import Settings
from gateway.signing.targets import carries_signature
from gateway.signing.urls import UrlSigner

USAGE: Final = "METHOD PATH [--expires TIME] [what it allows] [flags]"

HELP: Final = """\
Print a URL that authorizes requests of one method and path until it expires; no token is needed. The
server need not run.

  allow the upload of one picture, once, of at most 10 MiB, within an hour:
    gateway sign PUT /upload/team/cat.png --expires 1h --content-type image/png \\
      --max-length 10M --once
    curl -T cat.png -H 'Content-Type: image/png' 'http://...'

  allow reading a stored file, independent of --downloads:
    gateway sign GET /-/objects/upload/team/cat.png --filename cat.png

  allow a request to a route with exactly these parameters:
    gateway sign GET '/exports?from=2026-01-01&to=2026-02-01'

PATH is the path of the URL, maybe with a query. Uploads are PUT requests at the upload path; below
/-/objects every stored path accepts PUT, GET and HEAD."""


class _RequestToSign(NamedTuple):
    """Method, encoded path and query to sign."""

    method: str
    raw_path: str
    query: tuple[tuple[str, str], ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add method, path and the terms of the URL."""
    parser.add_argument("method", metavar="METHOD", help="PUT, GET, ...: GET allows HEAD too")
    parser.add_argument("path", metavar="PATH", help="path of this gateway, optionally with a query")
    number: dict[str, Any] = {"type": size, "metavar": "SIZE"}
    parser.add_argument(
        "--expires", type=duration, metavar="TIME", default=float(DEFAULT_URL_TTL),
        help=f"lifetime, such as 1h, at most 7d (default: {format_duration(DEFAULT_URL_TTL)})",
    )  # fmt: skip
    parser.add_argument("--content-type", metavar="TYPE", help="required Content-Type")
    parser.add_argument("--length", help="exact number of bytes", **number)
    parser.add_argument("--max-length", help="maximum number of bytes", **number)
    parser.add_argument(
        "--meta", action="append", default=[], metavar="NAME=VALUE",
        help="metadata of the file (repeatable)",
    )  # fmt: skip
    parser.add_argument("--once", action="store_true", help="valid for one stored upload")
    parser.add_argument("--no-overwrite", action="store_true", help="409 if the file exists")
    parser.add_argument("--filename", help="name under which a browser saves the response")


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Print the URL. Raises `ConfigError` for a path without endpoint and for invalid terms."""
    request = _parse_request(args.method, args.path)
    stores = _check_endpoint(settings, request)
    if not stores and (args.once or args.no_overwrite or args.meta):
        raise ConfigError("--once, --no-overwrite and --meta apply to uploads; this path stores no file")
    base = _base(settings)
    try:
        print(
            base + UrlSigner(read_installation_keys(_key_file(settings))).target(_grant(request, args))
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return 0


def _parse_request(method: str, path: str) -> _RequestToSign:
    if not path.startswith("/"):
        raise ConfigError("PATH must start with a slash: it is the part of the URL after the host")
    try:
        raw_path, raw_query = paths.split_target(path)
        # One spelling, so that clients request what is signed.
        raw_path = encode_path("/" + "/".join(_plain(segment) for segment in paths.decode(raw_path)))
    except (Refusal, ValueError) as error:
        raise ConfigError(f"PATH: {error}") from None
    if carries_signature(raw_query):
        raise ConfigError("PATH is already signed: remove its X-Gateway-... parameters")
    query = parse_qsl(raw_query, keep_blank_values=True)
    return _RequestToSign(method.upper(), raw_path, tuple(query))


def _plain(segment: str) -> str:
    if "/" in segment:
        raise ValueError("a segment contains a slash (%2F)")
    return segment


def _grant(request: _RequestToSign, args: argparse.Namespace) -> Grant:
    """Return the terms to sign. Raises `ValueError`."""
    pairs = [pair.partition("=") for pair in args.meta]
    if any(not equals for _, equals, _ in pairs):
        raise ValueError("--meta must look like NAME=VALUE")
    if len({name.lower() for name, _, _ in pairs}) < len(pairs):
        raise ValueError("--meta has a name twice")
    return Grant(
        method=request.method,
        path="/" + "/".join(paths.decode(request.raw_path)),
        expires=int(time.time() + args.expires),
        content_type=args.content_type,
        length=args.length,
        max_length=args.max_length,
        metadata=grant_metadata({name: value for name, _, value in pairs}),
        once=new_nonce() if args.once else None,
        on_conflict="reject" if args.no_overwrite else None,
        filename=args.filename,
        query=request.query,
    )


def _key_file(settings: Settings) -> Path:
    path = settings.installation_key_file or settings.state / KEY_FILE
    if not path.exists():
        raise ConfigError(
            "there is no key to sign with: the gateway creates it at its first start. Start it once,"
            " give its --directory, or the key of all nodes with --installation-key-file",
            str(path),
        )
    return path


def _base(settings: Settings) -> str:
    if settings.port == 0 and settings.public_url is None and settings.advertise is None:
        raise ConfigError("with --port 0 the address is unknown: add --public-url")
    return public_url(settings, Address(settings.host, settings.port))


def _check_endpoint(settings: Settings, request: _RequestToSign) -> bool:
    """Return whether the endpoint stores files.

    Raises `ConfigError` for a path without endpoint, with a better path if there is one.
    """
    template = settings.upload_template
    try:
        stored, upload = match_object_path(request.raw_path), template.match(request.raw_path)
    except Refusal as refusal:
        raise ConfigError(f"PATH: {refusal.message}") from None
    if stored is not None:
        _check_method(request, ("PUT", "GET", "HEAD"))
    elif request.raw_path.startswith("/-/"):
        api = match_api_route(paths.decode(request.raw_path))
        if api is None:
            raise _no_endpoint(request, settings)
        _check_method(request, api.allowed)
    elif upload is not None:
        if request.method in {"GET", "HEAD"} and not settings.downloads:
            raise ConfigError(
                "files are not served at their upload path without --downloads: sign"
                f" {OBJECTS_PREFIX}{encode_path(upload.path)}"
            )
        _check_method(request, ("PUT", "GET", "HEAD"))
    else:
        _check_route(settings, request)
    return stored is not None or upload is not None


def _check_method(request: _RequestToSign, methods: Sequence[str]) -> None:
    if request.method not in methods:
        raise ConfigError(f"METHOD: this path allows {', '.join(methods)}, not {request.method}")


def _check_route(settings: Settings, request: _RequestToSign) -> None:
    try:
        RouteTable(_routes(settings)).find(RequestHead(request.method, request.raw_path, {}, None))
    except Refusal as refusal:
        if refusal.code == "method_not_allowed":
            raise ConfigError(f"METHOD: {refusal.message}, not {request.method}") from None
        raise _no_endpoint(request, settings) from None


def _routes(settings: Settings) -> list[Route]:
    """Return the routes with paths and methods only; scripts are not compiled."""
    routes: list[Route] = []
    for file in find_files(settings.plugins):
        for document in read_file(file):
            proxy, specs = document.data.get("proxy"), document.data.get("spec") or []
            if not isinstance(proxy, dict) or not isinstance(proxy.get("path"), str):
                continue
            methods = [str(spec.get("method")) for spec in specs if isinstance(spec, dict)]
            routes.append(
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
    return routes


def _no_endpoint(request: _RequestToSign, settings: Settings) -> ConfigError:
    return ConfigError(
        f"{request.raw_path} is not a path of this gateway. Files are uploaded with PUT"
        f" {settings.file_upload_api_path}; a stored file has the URL {OBJECTS_PREFIX}/... ; a route"
        " must be in --plugins"
    )
