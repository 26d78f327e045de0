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

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Final

from gateway.cli.doctor import bucket, buffering, deployment, disk, events, machine
from gateway.cli.doctor.finding import Finding
from gateway.settings import Settings

__all__ = ["CHECKS", "HELP", "USAGE", "Finding", "add_arguments", "run"]

USAGE = "[--json] [flags]"

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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(settings: Settings, args: argparse.Namespace | None = None) -> int:
    """Print every finding; return 1 if there is a failure, else 0."""
    findings: list[Finding] = []
    as_json = args is not None and args.json
    for finding in all_findings(settings):
        findings.append(finding)
        if not as_json:
            print(finding, flush=True)
    if as_json:
        print(json.dumps(list(map(asdict, findings)), indent=2, ensure_ascii=False))
    return int(any(finding.level == "FAIL" for finding in findings))


def all_findings(settings: Settings) -> Iterator[Finding]:
    """Yield what the checks find, one check after the other."""
    for check in CHECKS:
        yield from _findings(check, settings)


def _findings(check: Callable[[Settings], Iterator[Finding]], settings: Settings) -> Iterator[Finding]:
    """Run one check; an `OSError` is a finding too, so that the other checks run."""
    try:
        yield from check(settings)
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        text = f"{check.__name__.replace('_', ' ')}: {error.strerror or error}{place}"
        yield Finding("FAIL", text, "run doctor as the user that runs the server; check owner and mode")
