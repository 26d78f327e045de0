"""`gateway reload`: lets the running server load plugins, tokens and certificates anew."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, Final

from gateway.cli.owner import needed_server, run_printing
from gateway.endpoints.admin.reload import RELOAD_TIMEOUT
from gateway.settings import Settings

HELP: Final = """\
Let the running server of --directory load plugins, tokens and certificates anew, in all of its
processes, and print what is in force. All or nothing: after any fault the server goes on with what it
has. `gateway check` runs the tests of plugins, a reload does not.

Exit codes: 0; 1 if there are faults, each with file and line; 2 if no server runs.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(settings: Settings, args: argparse.Namespace) -> int:
    """Reload. Return 1 if there are faults. Raises `ConfigError` if no server runs."""
    return run_printing(_run(settings, as_json=args.json))


async def _run(settings: Settings, *, as_json: bool) -> int:
    async with needed_server(settings) as server:
        outcome: dict[str, Any] = await server.request(
            "POST", "/-/reload", {}, body={}, timeout=RELOAD_TIMEOUT
        )
    if as_json:
        print(json.dumps(outcome, indent=2, ensure_ascii=False))
        return 1 if outcome["faults"] else 0
    for fault in outcome["faults"]:
        print(fault, file=sys.stderr)
    if outcome["faults"]:
        print("gateway: the reload failed: the server goes on with what it has", file=sys.stderr)
        return 1
    count = outcome["processes"]
    print(*outcome["plugins"], sep="\n")
    print(
        f"reloaded: plugin set {outcome['plugin_set']}" + (f" in {count} processes" if count > 1 else "")
    )
    return 0
