"""`gateway check`: loads the plugins, runs their tests and reports errors with file and line.

Nothing is changed or sent. Values of configs are not shown.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gateway.cli import print_missing
from gateway.domain.model import UPLOADING
from gateway.domain.path_template import UploadPathTemplate
from gateway.endpoints.routing.loading.plugin import routing_kind
from gateway.endpoints.routing.loading.route_builder import NO_ISSUER
from gateway.endpoints.routing.loading.script_faults import routes_of, script_faults
from gateway.endpoints.routing.loading.testing import run_route_tests
from gateway.errors import ConfigError
from gateway.plugins import KINDS, Plugins
from gateway.plugins.loader import NO_FILES
from gateway.plugins.scripting.executor import ScriptExecutor
from gateway.plugins.scripting.namespace import Services
from gateway.plugins.secrets import LoadKeys, SecretKeys, secret_keys
from gateway.plugins.shared_names import shared_names_warning
from gateway.plugins.testing import TestResult, run_handler_tests
from gateway.plugins.webhooks.samples import samples
from gateway.settings import Settings
from gateway.telemetry import log_output
from gateway.telemetry.redaction import Mask

UPLOAD_PATH: Final = UploadPathTemplate.parse(Settings.model_fields["file_upload_api_path"].default)

HELP: Final = """\
Load settings and plugins, compile the scripts, run the plugins' `tests:`. Nothing is changed and
nothing is sent. Each error is printed with file and line; exit code 1 if there is one. What only a
deployment has (a variable, a key, an issuer) is a warning here, and an error for `gateway serve`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Accept folders without their flag, to report how they must be given."""
    parser.add_argument("folders", nargs="*", help=argparse.SUPPRESS)


def run(settings: Settings, args: argparse.Namespace | None = None) -> int:
    """Check the plugins of the settings. Return 0, or 1 if there are errors."""
    if args is not None and args.folders:
        flags = " ".join(f"--plugins {folder}" for folder in args.folders)
        raise ConfigError(f"check takes folders as {flags}")
    log_output.configure("text", "warning")
    missing: list[ConfigError] = []
    return check(
        settings.plugins,
        lambda: secret_keys(settings, missing),
        settings.upload_template,
        issuer=settings.jwt_issuer is not None,
        missing=missing,
    )


def check(
    folders: Sequence[Path],
    keys: LoadKeys = SecretKeys,
    upload_path: UploadPathTemplate = UPLOAD_PATH,
    *,
    issuer: bool = True,
    missing: list[ConfigError] | None = None,
) -> int:
    """Load the plugins of `folders`, run their tests, print a line for each. Return the exit code.

    `keys` decrypt their `!secret` values; no route may cover `upload_path`;
    `issuer` is whether the settings have an issuer of JSON Web Tokens. What only a deployment has is
    a warning; `keys` may add to `missing`, the list of these.
    """
    if not folders:
        print("warning: there is nothing to check: name folders with --plugins DIR", file=sys.stderr)
    missing = [] if missing is None else missing
    plugins = Plugins(folders, Services(), (*KINDS, routing_kind(upload_path.text)), keys, missing)
    log_output.set_mask(plugins.mask)
    try:
        plugins.load()
        for line in plugins.describe():
            print(line, flush=True)
        for line in samples(plugins.current.all_handlers, plugins.mask):
            print(line, flush=True)
        _warn(plugins, upload_path, issuer=issuer)
        faults = list(script_faults(plugins.current))
        results = asyncio.run(_run_all(plugins))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        sys.stdout.flush()  # where both streams are one, the lines keep their order
        print_missing(missing)
        plugins.close()
    for fault in faults:
        print(fault, file=sys.stderr)
    for result in results:
        _print_result(result, plugins.mask)
    failed = sum(bool(result.failures) for result in results)
    files, tests = _count(len(plugins.current.files), "file"), _count(len(results), "test")
    print(f"{files}, {tests}, {failed} failed")
    return 1 if failed or faults else 0


def _warn(plugins: Plugins, upload_path: UploadPathTemplate, *, issuer: bool) -> None:
    """Print what is doubtful in the plugins, and what they need of a deployment."""
    warnings = [f"{folder}: {NO_FILES}" for folder in plugins.current.empty_folders]
    warnings += [text for route in routes_of(plugins.current) for text in route.warnings()]
    if shared := shared_names_warning(upload_path, plugins.current.handlers[UPLOADING]):
        warnings.append(shared)
    for route in routes_of(plugins.current):
        if route.route.auth == "jwt" and not issuer:
            place = f"{route.document.file}:{route.document.line('proxy', 'authorization', 'auth')}"
            warnings.append(f"{place}: {NO_ISSUER} (an error for `gateway serve`)")
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


async def _run_all(plugins: Plugins) -> list[TestResult]:
    executor = ScriptExecutor("check")
    results: list[TestResult] = []
    try:
        for handler in plugins.current.all_handlers:
            results += await run_handler_tests(handler, plugins.current.configs, executor)
        for route in routes_of(plugins.current):
            results += await run_route_tests(route, plugins.current.configs, executor)
    finally:
        await executor.close(0)
    return results


def _print_result(result: TestResult, mask: Mask) -> None:
    if not result.failures:
        print(f"ok    {result.plugin}: {result.test}")
    for failure in result.failures:
        print(f"{result.place}: FAILED {result.plugin}: {result.test}: {mask(failure)}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
