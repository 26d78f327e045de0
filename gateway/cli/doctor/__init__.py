"""The verb `doctor`: tell what is wrong with this installation, and what to do about it.

The rule: look, do not disturb: probe files have hidden names and are gone at once, and a running
server is only asked for its health. A check is a function that yields findings.

    finding    one line of the report
    disk       the directory, its file system, rename, fsync, the clock
    bucket     the bucket that uploads go into
    tokens     the issuer of JSON Web Tokens
    setting    SQLite, records, plugins, address and authorization, proxies, a running server
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from gateway.cli.doctor import bucket, disk, setting, tokens
from gateway.cli.doctor.finding import Finding
from gateway.settings import Settings

__all__ = ["CHECKS", "HELP", "Finding", "run"]

HELP = """\
Look at this installation and print one line per check: `ok`, `warn` or `FAIL`, what was
found, and what to do. Exit code 1 if anything failed. A running server is not disturbed."""

CHECKS: Final[tuple[Callable[[Settings], Iterator[Finding]], ...]] = (
    disk.directory,
    disk.free_space,
    disk.file_system,
    disk.publishing,
    disk.fsync,
    disk.clock,
    bucket.bucket,
    setting.database,
    setting.records,
    setting.plugins,
    setting.authorization,
    tokens.issuer,
    setting.proxy,
    setting.server,
)


def run(settings: Settings) -> int:
    """Print every finding; return 1 if one of them is a failure, else 0."""
    failed = False
    for check in CHECKS:
        for finding in _findings(check, settings):
            print(finding, flush=True)
            failed = failed or finding.level == "FAIL"
    return int(failed)


def _findings(check: Callable[[Settings], Iterator[Finding]], settings: Settings) -> Iterator[Finding]:
    """Run one check; a refusal of the system is a finding too, so that the others still run."""
    try:
        yield from check(settings)
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        what = f"{check.__name__.replace('_', ' ')}: {error.strerror or error}{place}"
        yield Finding("FAIL", what, "run doctor as the user that runs the server; check owner and mode")
