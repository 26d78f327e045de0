"""`gateway routes`: prints the routes of an OpenAPI document as routing plugins, which can be edited."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from gateway.endpoints.routing.loading.openapi_plugin import compile_operation
from gateway.endpoints.routing.specification.operations import Expansion, SpecifiedOperation
from gateway.endpoints.routing.specification.paths import server_authority
from gateway.endpoints.routing.specification.source import read_source
from gateway.errors import ConfigError
from gateway.plugins import PluginErrors
from gateway.settings import Settings

HELP: Final = """\
Print a routing plugin for each operation of an OpenAPI document (3.0 or 3.1, JSON or YAML).

  gateway routes from-openapi petstore.yaml > plugins/pets.yaml
  gateway routes from-openapi petstore.yaml --upstream 10.0.0.5:9000 --path /shop
  gateway check --plugins plugins

The routes are those of a plugin `openapi: {file: petstore.yaml, ...}`, which follows the document when
it changes; print them to edit them one by one. What passes without a check is told on stderr."""

USAGE: Final = "from-openapi SPEC [flags]"


class _Dumper(yaml.SafeDumper):
    """Writes what several routes share in each of them."""

    def ignore_aliases(self, data: Any) -> bool:
        """Tell that nothing is an alias."""
        return True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("action", choices=("from-openapi",), help="what the routes are made of")
    parser.add_argument("spec", metavar="SPEC", help="the OpenAPI document")
    parser.add_argument(
        "--upstream",
        action="append",
        metavar="HOST",
        help="who is called: host or host:port, repeatable; default: the document's first server",
    )
    parser.add_argument(
        "--path", metavar="PREFIX", help="prefix of the served paths; default: the path of that server"
    )
    parser.add_argument(
        "--target-path", metavar="PREFIX", help="prefix of the paths at the upstreams; default: that too"
    )
    parser.add_argument(
        "--skip",
        action="append",
        metavar="OPERATION",
        help="an operation that is left out: /path, or 'GET /path'; repeatable",
    )
    parser.add_argument("--name", help="begins the names of the routes; default: the file's name")


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Print the plugins. Raises `ConfigError` with the lines of all that is wrong."""
    for flag, prefix in (("--path", args.path), ("--target-path", args.target_path)):
        if prefix is not None and not prefix.startswith("/"):
            raise ConfigError(f"{flag}: must begin with a slash")
    source = read_source(Path(args.spec))
    expansion = Expansion(source, args.path, args.target_path, args.skip or ())
    for operation in expansion.operations:
        compile_operation(source, operation)
    if source.errors:
        raise PluginErrors(sorted(source.errors, key=lambda error: error.line or 0))
    if expansion.unused_skips:
        raise ConfigError(f"--skip: {source.file} has no {min(expansion.unused_skips)}")
    scheme, upstreams = "http", args.upstream
    if not upstreams:
        scheme, authority = server_authority(source)
        upstreams = [authority]
    name = args.name or Path(args.spec).stem
    routes = [_plugin(name, each, upstreams, scheme) for each in expansion.by_route()]
    yaml.dump_all(routes, sys.stdout, _Dumper, sort_keys=False, allow_unicode=True, width=100)
    for line in expansion.unchecked.lines():
        print(f"warning: {line}", file=sys.stderr)
    return 0


def _plugin(
    name: str, operations: Sequence[SpecifiedOperation], upstreams: Sequence[str], scheme: str
) -> dict[str, Any]:
    """Return the keys of the routing plugin of some operations of one path."""
    first = operations[0]
    target: dict[str, Any] = {} if first.target == first.path else {"path": first.target}
    if scheme == "https":
        target["scheme"] = "https:"
    return {
        "name": f"{name} {first.name}",
        "upstreams": list(upstreams),
        "proxy": {"path": first.path},
        **({"target": target} if target else {}),
        "spec": [operation.spec for operation in operations],
    }
