"""Turns the body of a script (`return` and `await` at the top) into a function.

Lines keep their numbers in the YAML file, and no text inside a string is changed. No syntax tree is
built (see `scripting.compile`): the lines move one column to the right instead.
"""

from __future__ import annotations

import dis
import inspect
import io
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import CodeType
from typing import Any, Final

from gateway.endpoints.routing.model import RouteScript
from gateway.errors import ConfigError
from gateway.plugins.scripting.compile import ScriptSource, compile_source, provide_get_session
from gateway.plugins.scripting.namespace import ScriptContext, run_script
from gateway.plugins.yaml_documents import Document

FUNCTION: Final = "script"
_PATH_CALLS: Final = frozenset({"open", "remove", "unlink", "rename", "rmtree", "move"})
"""Names of calls that take the path of a file."""

_ATTRIBUTES: Final = frozenset({"LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR", "DELETE_ATTR"})
_UNIMPORTANT: Final = frozenset({"EXTENDED_ARG", "COPY"})
"""Steps between an argument and its attribute: `request.path += "x"` copies the argument first."""


def compile_script(document: Document, key: str, arguments: str) -> CodeType:
    """Compile the script body under `key`. Raises `ConfigError` with the line in the YAML."""
    provide_get_session(document.source(key).text)
    return compile_source(function_source(document, key, arguments))


def function_source(document: Document, key: str, arguments: str) -> ScriptSource:
    """Return the script body under `key` as the function that is compiled."""
    source = document.source(key)
    # The `def` is on the line above, where the YAML has the key.
    line = max(source.line, 2)
    text = f"async def {FUNCTION}({arguments}):\n{_indented(source.text)}\n pass\n"
    return replace(source, text=text, line=line - 1)


def make_script(
    code: CodeType, script_context: ScriptContext, document: Document, key: str
) -> RouteScript:
    """Return the function of compiled code in a namespace of its own. Raises `ConfigError`."""
    source = document.source(key)
    function = run_script(code, script_context)[FUNCTION]
    if not inspect.iscoroutinefunction(function):
        raise ConfigError("a script body cannot `yield`: return instead", source.file, source.line)
    place = f"{source.file}:{source.line}"
    return RouteScript(function, reads_body(code, "request"), reads_body(code, "response"), place)


def reads_body(code: CodeType, name: str) -> bool:
    """Tell whether the code may use the `body` of the argument `name`: it does so, or passes it on."""
    for nested in _nested_codes(code):
        steps = [step for step in dis.get_instructions(nested) if step.opname not in _UNIMPORTANT]
        for step, next_step in zip(steps, [*steps[1:], None], strict=True):
            if _loads(step, name) and not _uses_other_attribute(next_step):
                return True
    return False


def script_warnings(document: Document, codes: Mapping[str, CodeType]) -> Iterator[str]:
    """Yield what is doubtful in the scripts of a document, by key."""
    for key, code in codes.items():
        if opens_paths(code):
            yield (
                f"{document.file}:{document.line(key)}: this script opens or removes files"
                " and does not use `files`: a path from the request may lead anywhere"
            )


def opens_paths(code: CodeType) -> bool:
    """Tell whether the code opens or removes files by a name that may come from the request."""
    codes = list(_nested_codes(code))
    names = {name for nested in codes for name in nested.co_names}
    steps = (step for nested in codes for step in dis.get_instructions(nested))
    uses_request = any(_loads(step, "request") for step in steps)
    return bool(names & _PATH_CALLS) and "files" not in names and uses_request


def _nested_codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested_codes(constant)


def _loads(step: dis.Instruction, name: str) -> bool:
    if not step.opname.startswith("LOAD") or step.opname == "LOAD_CLOSURE":
        return False  # a closure is checked where it is read
    names: Any = step.argval if isinstance(step.argval, tuple) else (step.argval,)
    return name in names and step.opname not in {"LOAD_CONST", "LOAD_ATTR", "LOAD_METHOD"}


def _uses_other_attribute(step: dis.Instruction | None) -> bool:
    return step is not None and step.opname in _ATTRIBUTES and step.argval != "body"


def _indented(text: str) -> str:
    """Move every line a column to the right, but not those that begin inside a string."""
    inside = set(_lines_in_strings(text))
    lines = text.splitlines(keepends=True)
    return "".join(line if at in inside else f" {line}" for at, line in enumerate(lines, start=1))


def _lines_in_strings(text: str) -> Iterator[int]:
    """Yield the lines (from 1) that begin inside a string."""
    opened: list[int] = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            kind = tokenize.tok_name[token.type]
            if kind.endswith("STRING_START"):
                opened.append(token.start[0])
            elif kind.endswith("STRING_END"):
                yield from range(opened.pop() + 1, token.end[0] + 1)
            elif kind == "STRING":
                yield from range(token.start[0] + 1, token.end[0] + 1)
    except (tokenize.TokenError, SyntaxError):
        return  # the compiler reports it better
