"""`gateway init`: writes a settings file and first plugins, or a copy of a shipped set."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.errors import ConfigError
from gateway.settings import Settings
from gateway.settings.reference import example
from gateway.settings.values import builtin_names, builtin_root

USAGE = "[DIR] [--set NAME] [flags]"
HELP: Final = """\
Write a commented settings file and a first plugin with tests into DIR (this folder if none is named),
or with --set a copy of a shipped set of plugins:

  DIR/config/gateway.yaml     the settings; every key is there, as a comment
  DIR/plugins/NAME/           the plugins, with their README

Nothing is overwritten: an existing settings file is kept, a set whose folder exists is refused.

Exit codes: 0; 2 if nothing was written.
"""

STARTER: Final = "starter"
"""The set that is written where none is named."""

SETTINGS_FILE: Final = Path("config/gateway.yaml")

_HEAD: Final = """\
# Settings of this gateway. `gateway serve` in this folder, or with --directory, finds the file.
# Files are stored in this folder; the state of the gateway is in .gateway/ beside them.
# A flag or UPLOAD_GATEWAY_<KEY> overrides a line. Relative paths start at this folder.
# Sizes take suffixes (64M, 10GiB), and so do times (30s, 15m, 7d).

#   folders of YAML plugins, read recursively
plugins:
- plugins

# Every other key follows, at its default.

"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("folder", nargs="?", default=".", metavar="DIR", help="folder to write into")
    parser.add_argument(
        "--set", dest="plugin_set", metavar="NAME", help=f"copy this set: {', '.join(builtin_names())}"
    )


def run(_: Settings, args: argparse.Namespace) -> int:
    """Write the files and print what to do next. Raises `ConfigError`; then nothing was written."""
    folder, name = Path(args.folder), args.plugin_set or STARTER
    if name not in (names := builtin_names()):
        raise ConfigError(f"there is no set {name!r}; the sets are {', '.join(names)}")
    copy = folder / "plugins" / name
    if copy.exists():
        raise ConfigError("this folder exists, and nothing is overwritten: remove it first", str(copy))
    try:
        kept = (folder / SETTINGS_FILE).exists()
        shutil.copytree(builtin_root() / name, copy, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        if not kept:
            (folder / SETTINGS_FILE).parent.mkdir(exist_ok=True)
            with (folder / SETTINGS_FILE).open("x", encoding="utf-8") as file:
                file.write(settings_text())
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", str(error.filename)) from None
    for line in _report(folder, copy, kept=kept):
        print(line)
    return 0


def settings_text() -> str:
    """Return the settings file: the plugins' folder, and every other key as a comment."""
    _, _, keys = example().partition("\n\n")
    return _HEAD + re.sub(r"#   [^\n]*\n#plugins: \[\]\n\n", "", keys)


def _report(folder: Path, copy: Path, *, kept: bool) -> Iterator[str]:
    settings = folder / SETTINGS_FILE
    yield f"kept     {settings}: its `plugins:` must name plugins" if kept else f"wrote    {settings}"
    yield from (f"wrote    {file}" for file in sorted(copy.rglob("*")) if file.is_file())
    where = "" if str(folder) == "." else f" --directory {shlex.quote(str(folder))}"
    yield ""
    yield "next:"
    yield f"  gateway check{where}"
    yield f"  gateway serve{where} --watch"
    yield f"  curl -T {shlex.quote(str(copy / 'README.md'))} http://127.0.0.1:8080/upload/README.md"
