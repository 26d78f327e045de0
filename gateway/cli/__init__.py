"""The command line: `gateway [VERB] [flags]`. Each verb is one file of this folder.

The rule: a verb's file has `HELP`, `run(settings, args)` that returns the exit code, and maybe
`add_arguments(parser)` (plain arguments, no subparsers, no `dest` that is a setting's name) and
`USAGE`; it is imported only when it is asked for, so that `--help` stays quick. Every verb takes
every setting as a flag. A ConfigError becomes one line on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Final, NoReturn

import gateway
from gateway.errors import ConfigError
from gateway.settings import Settings, add_flags, load, said_on_command_line, with_hyphens

VERBS: Final[Mapping[str, str]] = {
    "serve": "run the server (the verb may be left out)",
    "check": "load settings and plugins, run the plugins' tests",
    "worker": "run handlers only, for gateways elsewhere",
    "token": "make a token: prints it once, and the line for the settings file",
    "sign": "print a signed URL",
    "events": "see and steer events: list, retry, drop, replay, pause",
    "secrets": "make a key, encrypt values for Config plugins",
    "doctor": "tell what is wrong with this installation",
}
"""Every verb and what it is for, in one line."""

DEFAULT_VERB: Final = "serve"
LISTENING: Final = frozenset({"serve", "check", "worker"})
"""Verbs for which the settings must be fit to open a port with."""

_OVERVIEW: Final = """\
Upload Gateway: a self-hosted API gateway whose first job is files. A 2xx means that the
file is whole under its final name, on stable storage, and that its handlers will run.

try it:
  gateway --directory data
  curl -T README.md http://127.0.0.1:8080/upload/README.md

verbs:
{verbs}

`gateway VERB --help` tells more about one. The flags below belong to serve; every other
verb takes them too. Each is also UPLOAD_GATEWAY_<NAME> and a key of the settings file.
"""

Run = Callable[..., int]


class _Parser(argparse.ArgumentParser):
    """Complains in one line instead of a page of usage. Abbreviated flags are not guessed at."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see `{self.prog} --help`")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 2 for a fault in flags, settings or plugins.

    `argv` is without the program's name; None takes it from the process. `--help` and
    `--version` raise SystemExit(0), as argparse does.
    """
    try:
        verb, rest = _verb(list(sys.argv[1:] if argv is None else argv))
        module = importlib.import_module(f"gateway.cli.{verb or DEFAULT_VERB}")
        args = _parsed(_parser(verb, module), rest)
        settings = load(
            said_on_command_line(args), os.environ, listening=(verb or DEFAULT_VERB) in LISTENING
        )
        return _call(module.run, settings, args)
    except* ConfigError as group:  # one fault counts as a group of one
        complain(group)
    return 2


def complain(group: BaseExceptionGroup[ConfigError]) -> int:
    """Print each fault on stderr; return the exit code that says so."""
    for line in (line for error in _leaves(group) for line in str(error).splitlines()):
        print(f"gateway: {line}", file=sys.stderr)
    return 2


def _verb(argv: list[str]) -> tuple[str | None, list[str]]:
    """Split off the verb (None where it is left out). Raises ConfigError for a word that is none."""
    words = with_hyphens(argv)
    if not words or words[0].startswith("-"):
        return None, words
    if words[0] not in VERBS:
        close = difflib.get_close_matches(words[0], VERBS, 1)
        hint = f"did you mean {close[0]}?" if close else "verbs are " + ", ".join(VERBS)
        raise ConfigError(f"there is no verb {words[0]!r}; {hint}")
    return words[0], words[1:]


def _parser(verb: str | None, module: ModuleType) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"gateway {verb}" if verb else "gateway",
        usage=f"gateway {verb or '[VERB]'} {getattr(module, 'USAGE', '[flags]')}",
        description=module.HELP if verb else _overview(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gateway {gateway.__version__}")
    if hasattr(module, "add_arguments"):
        module.add_arguments(parser)
    add_flags(parser)
    return parser


def _overview() -> str:
    width = max(map(len, VERBS))
    lines = (f"  {verb:<{width}}  {what}" for verb, what in VERBS.items())
    return _OVERVIEW.format(verbs="\n".join(lines))


def _parsed(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """Parse; an unknown flag is named without its value, which may be a secret."""
    # Intermixed: in `events retry --directory D ID` the ID still belongs to `retry`.
    args, unknown = parser.parse_known_intermixed_args(words)
    if unknown:
        flags = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        known = [flag for action in parser._actions for flag in action.option_strings]
        close = difflib.get_close_matches(flags[0], known, 1) if flags else []
        hint = f"did you mean {close[0]}?" if close else f"see `{parser.prog} --help`"
        what = f"unknown flag {flags[0]}" if flags else "an argument too many (the verb comes first)"
        raise ConfigError(f"{what}; {hint}")
    return args


def _call(run: Run, settings: Settings, args: argparse.Namespace) -> int:
    """Run the verb; one without arguments of its own may leave `args` out."""
    wants_args = len(inspect.signature(run).parameters) > 1
    return run(settings, args) if wants_args else run(settings)


def _leaves(group: BaseExceptionGroup[ConfigError]) -> Iterator[ConfigError]:
    for error in group.exceptions:
        yield from _leaves(error) if isinstance(error, BaseExceptionGroup) else (error,)
