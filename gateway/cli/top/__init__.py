"""`gateway top`: the running server of a directory, live on a terminal.

`snapshot` reads the server, `rows` makes rows of what it says, `app` and `screens` show them. Only `run`
imports Textual: it takes a third of a second, which other verbs and `--help` do without.
"""

from __future__ import annotations

import os
import sys
from typing import Final

from gateway.errors import ConfigError
from gateway.settings import Settings

HELP: Final = """\
Show the running server of a directory, live: rates, uploads on their way, the latest uploads, what waits
for handlers, dead deliveries, and what needs attention. Keys: arrows and tab move, Enter shows details,
r retries and d drops what is selected, p pauses, ? helps, q quits. Where the server does not answer it
says so, and goes on when the server does.

Exit codes: 0; 2 without a terminal, or where no gateway has ever run.
"""


def run(settings: Settings) -> int:
    """Show the screen until the user quits. Raises `ConfigError` without a terminal or a gateway."""
    streams = (sys.stdin, sys.stdout, sys.stderr)  # Textual reads the first and draws on the last
    if not all(stream.isatty() for stream in streams) or os.environ.get("TERM") in {None, "", "dumb"}:
        raise ConfigError(
            "`gateway top` needs a terminal; for programs there is `gateway status --json`"
        )
    if not settings.state.is_dir():
        raise ConfigError(
            f"no gateway has run for {settings.directory}: start one, or name its --directory"
        )
    from gateway.cli.top.app import GatewayTop

    GatewayTop(settings).run()
    return 0
