"""The command line: `gateway [VERB] [flags]`. Each verb is a module here, imported when it is run.

A verb has `HELP`, `run(settings, args)`, which returns the exit code, and optionally `USAGE` and
`add_arguments(parser)`. `args.words` are the words behind the verb. Every verb accepts every setting as
a flag. A `ConfigError` becomes one line on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Final, NoReturn

import gateway
from gateway.errors import ConfigError
from gateway.settings import Settings, add_flags, flag_values, load, with_hyphens

VERBS: Final[Mapping[str, str]] = {
    "serve": "run the server (the verb may be left out)",
    "init": "write a commented settings file and a first plugin, or a copy of a shipped set",
    "check": "load settings and plugins, run the plugins' tests",
    "reload": "let the running server load plugins, tokens and certificates anew",
    "worker": "run handlers only, for gateways on other machines",
    "keys": "create, list, rotate and revoke API keys for programs",
    "links": "create, list and revoke links for people: to send files, or to read a folder",
    "token": "create a token; prints it once, with its line for the settings file",
    "sign": "print a signed URL",
    "status": "one screen of facts about the running server",
    "top": "the same, live: uploads on their way, what waits, dead deliveries",
    "uploads": "list uploads: by whom, when, how they ended; decide about held ones",
    "files": "list, show or remove stored files",
    "events": "list events; retry, drop, replay or pause deliveries",
    "routes": "print routing plugins of an OpenAPI document",
    "secrets": "create a key, encrypt values for Config plugins",
    "doctor": "find problems of this installation",
}
"""Every verb with its one-line help."""

DEFAULT_VERB: Final = "serve"
LISTENING: Final = frozenset({"serve", "check", "worker"})
"""Verbs that refuse settings with which a server must not open its port."""

_OVERVIEW: Final = """\
Upload Gateway: a self-hosted API gateway whose first job is files. A 2xx means that the
file is whole under its final name, on stable storage, and that its handlers will run.

try it:
  gateway init data
  gateway serve --directory data
  curl -T README.md http://127.0.0.1:8080/upload/README.md

verbs:
{verbs}

`gateway VERB --help` shows the help of a verb. Every verb accepts the settings below as flags;
each is also UPLOAD_GATEWAY_<NAME> in the environment and a key of the settings file.
"""

_SETTINGS_HELP: Final = "settings flags: gateway serve --help"

Run = Callable[..., int]


class _Parser(argparse.ArgumentParser):
    """Reports an error in one line instead of the usage."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see `{self.prog} --help`")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 2 for an error in flags, settings or plugins.

    `argv` excludes the program's name and defaults to `sys.argv`. `--help` and `--version` raise
    SystemExit(0), as argparse does.
    """
    try:
        verb, rest = _verb(list(sys.argv[1:] if argv is None else argv))
        module = importlib.import_module(f"gateway.cli.{verb or DEFAULT_VERB}")
        parser = _parser(verb, module)
        args = _parsed(parser, rest)
        args.words = rest
        listening = (verb or DEFAULT_VERB) in LISTENING
        missing: list[ConfigError] | None = [] if verb == "check" else None
        settings = load(flag_values(args), os.environ, listening=listening, missing=missing)
        print_missing(missing or ())
        if (verb or DEFAULT_VERB) == DEFAULT_VERB:
            _require_directory(settings, parser, bare=not rest)
        return _call(module.run, settings, args)
    except* ConfigError as group:  # a single error is wrapped in a group
        print_errors(group)
    return 2


def print_missing(missing: Iterable[ConfigError]) -> None:
    """Print what only a deployment has as warnings on stderr."""
    for error in missing:
        print(f"warning: {error} (an error for `gateway serve`)", file=sys.stderr)


def print_errors(group: BaseExceptionGroup[ConfigError]) -> int:
    """Print each error on stderr; return exit code 2."""
    for line in (line for error in _leaves(group) for line in str(error).splitlines()):
        print(f"gateway: {line}", file=sys.stderr)
    return 2


def _verb(argv: list[str]) -> tuple[str | None, list[str]]:
    """Split off the verb, None if there is none. Raises `ConfigError` for an unknown verb."""
    words = with_hyphens(argv)
    if not words or words[0].startswith("-"):
        return None, words
    if words[0] not in VERBS:
        raise ConfigError(f"unknown verb {words[0]!r}; {_hint_for_verb(words[0])}")
    return words[0], words[1:]


def _hint_for_verb(word: str) -> str:
    if word in {"help", "version"}:
        return f"use `gateway --{word}`"
    if os.path.isdir(word):
        return f"to serve a folder: gateway --directory {word}"
    close = difflib.get_close_matches(word, VERBS, 1)
    return f"did you mean {close[0]}?" if close else "verbs are " + ", ".join(VERBS)


def _parser(verb: str | None, module: ModuleType) -> argparse.ArgumentParser:
    shows_settings = (verb or DEFAULT_VERB) == DEFAULT_VERB
    parser = _Parser(
        prog=f"gateway {verb}" if verb else "gateway",
        usage=f"gateway {verb or '[VERB]'} {getattr(module, 'USAGE', '[flags]')}",
        description=module.HELP if verb else _overview(),
        epilog=None if shows_settings else _SETTINGS_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gateway {gateway.__version__}")
    if hasattr(module, "add_arguments"):
        module.add_arguments(parser)
    add_flags(parser, in_help=shows_settings)
    return parser


def _overview() -> str:
    width = max(map(len, VERBS))
    lines = (f"  {verb:<{width}}  {summary}" for verb, summary in VERBS.items())
    return _OVERVIEW.format(verbs="\n".join(lines))


def _parsed(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """Parse the words. Values of unknown flags and surplus arguments may be secrets: not quoted."""
    # Intermixed: in `events retry --directory D ID` the ID belongs to `retry`.
    args, unknown = parser.parse_known_intermixed_args(words)
    if unknown:
        flags = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        if not flags:
            # Not quoted: `secrets encrypt VALUE` would print the secret.
            before = words[words.index(unknown[0]) - 1 :][:1]
            raise ConfigError(f"unexpected argument; {_hint_for(parser, unknown[0], before)}")
        valid = [flag for action in parser._actions for flag in action.option_strings]
        close = difflib.get_close_matches(flags[0], valid, 1)
        hint = f"did you mean {close[0]}?" if close else f"see `{parser.prog} --help`"
        raise ConfigError(f"unknown flag {flags[0]}; {hint}")
    return args


def _hint_for(parser: argparse.ArgumentParser, word: str, before: Sequence[str]) -> str:
    """Return where an argument belongs that the verb does not take. `before` is the word before it."""
    if word in VERBS:
        return f"the verb comes first: gateway {word} [flags]"
    if before and before[0].startswith("--") and before[0].endswith("=true"):
        flag = before[0].removesuffix("=true")
        return f"{flag} alone means true; its value goes behind `=`: {flag}=false"
    if os.path.isdir(word):
        return f"a folder is named by its flag, such as --directory {word}"
    return f"see `{parser.prog} --help`"


def _require_directory(settings: Settings, parser: argparse.ArgumentParser, *, bare: bool) -> None:
    """Raise `ConfigError` for a server that was given no directory in a folder that is none.

    It would store files, and a private key, wherever its caller happens to be.
    """
    if settings.directory_explicit or settings.state.is_dir():
        return
    if bare:
        parser.print_help()
    raise ConfigError(
        "say where files are stored: gateway --directory DIR (this folder has no .gateway/ of an earlier"
        " start, and no settings in config/gateway.yaml)"
    )


def _call(run: Run, settings: Settings, args: argparse.Namespace) -> int:
    """Run the verb, with `args` if it has a parameter for them."""
    wants_args = len(inspect.signature(run).parameters) > 1
    return run(settings, args) if wants_args else run(settings)


def _leaves(group: BaseExceptionGroup[ConfigError]) -> Iterator[ConfigError]:
    for error in group.exceptions:
        yield from _leaves(error) if isinstance(error, BaseExceptionGroup) else (error,)
