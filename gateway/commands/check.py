"""Command `gateway check`: loads the plugins, runs their tests, says what is wrong and where.

One rule: it changes nothing and sends nothing; configs are named, their values never shown. May import
everything below.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gateway import logs
from gateway.errors import ConfigError
from gateway.plugins import Handler, Plugins
from gateway.plugins.models import EVENTS
from gateway.plugins.testing import Outcome, run_tests
from gateway.scripting import Lane, Services
from gateway.settings import Settings

HELP: Final = "load settings and plugins, run the plugins' tests"


def run(settings: Settings) -> int:
    """Check the plugins that `settings` name. Return 0, or 1 after telling where each fault is."""
    logs.configure("text", "warning")
    return check(settings.plugins)


def check(folders: Sequence[Path]) -> int:
    """Load the plugins of `folders`, run their tests, print a line for each. Return the exit code."""
    plugins = Plugins(folders, Services())
    try:
        plugins.load()
        for line in plugins.describe():
            print(line)
        outcomes = asyncio.run(_run_all(plugins))
    except ConfigError as fault:
        print(fault, file=sys.stderr)
        return 1
    finally:
        plugins.close()
    for outcome in outcomes:
        _tell(outcome)
    failed = sum(bool(outcome.faults) for outcome in outcomes)
    print(f"{len(plugins.current.files)} files, {len(outcomes)} tests, {failed} failed")
    return 1 if failed else 0


async def _run_all(plugins: Plugins) -> list[Outcome]:
    handlers: list[Handler] = [one for event in EVENTS for one in plugins.current.handlers[event]]
    lane = Lane("check")
    try:
        return [outcome for handler in handlers for outcome in await run_tests(handler, lane)]
    finally:
        await lane.close(0)


def _tell(outcome: Outcome) -> None:
    if not outcome.faults:
        print(f"ok    {outcome.handler}: {outcome.test}")
    for fault in outcome.faults:
        print(f"{outcome.place}: FAILED {outcome.handler}: {outcome.test}: {fault}", file=sys.stderr)
