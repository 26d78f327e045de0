"""The settings table as command line flags.

A flag is a text, or a list of texts if repeatable; a switch takes its optional value behind `=`.
`load` validates values, so that a bad flag and a bad line of the file have the same message.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from gateway.settings.table import settings_table


def add_flags(parser: argparse.ArgumentParser, *, in_help: bool = True) -> None:
    """Add a flag for every setting that may be one; `in_help=False` leaves them out of `--help`.

    A flag that is not given is absent from the namespace.
    """
    groups: dict[str, argparse._ArgumentGroup] = {}
    for row in settings_table():
        if not row.option.in_flags:
            continue
        if row.option.group not in groups:
            groups[row.option.group] = parser.add_argument_group(row.option.group)
        default = f" (default: {row.default})" if row.default else ""
        groups[row.option.group].add_argument(
            row.flag,
            dest=row.name,
            metavar=row.option.metavar,
            nargs="?" if row.is_switch else None,
            action="append" if row.is_list else "store",
            default=argparse.SUPPRESS,
            help=(row.option.help + default).replace("%", "%%") if in_help else argparse.SUPPRESS,
        )


def with_hyphens(argv: Sequence[str]) -> list[str]:
    """Spell every flag with hyphens (`--max_bytes=1` is `--max-bytes=1`); values stay.

    A bare switch becomes `--switch=true`, so that the next word is not parsed as its value.
    """
    switches = {row.flag for row in settings_table() if row.is_switch}
    spelled: list[str] = []
    for index, word in enumerate(argv):
        if word == "--":
            return [*spelled, *argv[index:]]
        flag, equals, value = word.partition("=")
        if word.startswith("--"):
            flag = flag.replace("_", "-")
            equals, value = (equals, value) if equals or flag not in switches else ("=", "true")
        spelled.append(flag + equals + value)
    return spelled


def flag_values(args: argparse.Namespace) -> dict[str, Any]:
    """Return the settings among parsed arguments, as `load` takes them."""
    names = {row.name for row in settings_table()}
    return {name: value for name, value in vars(args).items() if name in names}
