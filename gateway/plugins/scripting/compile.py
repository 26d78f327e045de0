"""Compiles the text of a script as code that knows its place in the YAML file.

Tracebacks, syntax errors and column marks of Python name the YAML file and its line, and show the line
as it was loaded.
"""

from __future__ import annotations

import linecache
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import CodeType

from gateway.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ScriptSource:
    """A script in its file: `line` (from 1) is its first line, `indent` its margin."""

    text: str
    file: str
    line: int
    indent: int = 0


def compile_source(source: ScriptSource) -> CodeType:
    """Compile a script. Raises `ConfigError` with the line inside the YAML on a syntax error."""
    # Empty lines rather than a moved syntax tree: building trees in two threads at once (the
    # standard library does it for every traceback) makes CPython 3.11 raise SystemError.
    padded = "\n" * (source.line - 1) + source.text
    try:
        return compile(padded, source.file, "exec", dont_inherit=True)
    except SyntaxError as error:
        line = max(error.lineno or 0, source.line)
        raise ConfigError(f"syntax error in the script: {error.msg}", source.file, line) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"the script cannot be compiled: {error}", source.file, source.line) from None


def show_lines(file: str, lines: Sequence[str], sources: Iterable[ScriptSource]) -> None:
    """Make tracebacks show the lines of `file` as they were loaded, not as they are on the disk now.

    The lines of block scalars lose their margin, so that the marks under a line are in place.
    """
    shown = list(lines)
    for source in sources:
        if source.indent:
            script = source.text.splitlines()
            shown[source.line - 1 : source.line - 1 + len(script)] = script
    text = [f"{line}\n" for line in shown]
    linecache.cache[file] = (sum(map(len, text)), None, text, file)
