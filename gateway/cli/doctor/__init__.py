"""`gateway doctor`: finds problems of an installation and says what to do.

A check is a function that yields findings. Probe files have hidden names and are removed at once; of
a running server only the health page is requested, and through a proxy an upload that does not exist.

    disk         the directory, its file system, rename, fsync, the clock
    machine      cores, open files, the certificate
    bucket       the bucket of uploads
    events       the journal, NATS
    buffering    whether a proxy in front passes bodies on as they come
    deployment   SQLite, records, plugins, authorization, token issuer, proxies, a running server
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from gateway.cli.doctor import bucket, buffering, deployment, disk, events, machine
from gateway.cli.doctor.finding import Finding
from gateway.settings import Settings

__all__ = ["CHECKS", "HELP", "Finding", "run"]

HELP = """\
Check this installation and print one line per check: `ok`, `warn` or `FAIL`, the result, and
what to do. Exit code 1 if a check failed. A running server is not disturbed."""

CHECKS: Final[tuple[Callable[[Settings], Iterator[Finding]], ...]] = (
    disk.directory,
    disk.free_space,
    disk.inodes,
    disk.file_system,
    disk.publishing,
    disk.fsync,
    disk.clock,
    machine.processes,
    machine.open_files,
    machine.certificate,
    bucket.bucket,
    deployment.database,
    events.journal,
    events.nats,
    deployment.records,
    deployment.plugins,
    deployment.authorization,
    deployment.issuer,
    deployment.proxy,
    buffering.request_buffering,
    deployment.server,
)


def run(settings: Settings) -> int:
    """Print every finding; return 1 if there is a failure, else 0."""
    failed = False
    for check in CHECKS:
        for finding in _findings(check, settings):
            print(finding, flush=True)
            failed = failed or finding.level == "FAIL"
    return int(failed)


def _findings(check: Callable[[Settings], Iterator[Finding]], settings: Settings) -> Iterator[Finding]:
    """Run one check; an `OSError` is a finding too, so that the other checks run."""
    try:
        yield from check(settings)
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        text = f"{check.__name__.replace('_', ' ')}: {error.strerror or error}{place}"
        yield Finding("FAIL", text, "run doctor as the user that runs the server; check owner and mode")
