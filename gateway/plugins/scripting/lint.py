"""Finds names in scripts that nothing defines, before a request does.

It builds syntax trees, which must not happen in two threads at once (see `compile`): call it where no
other thread runs, as `gateway check` and the start of a server do.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Collection, Iterator
from typing import Final

from pyflakes import checker, messages

from gateway.errors import ConfigError
from gateway.plugins.scripting.compile import ScriptSource

_UNDEFINED: Final = (messages.UndefinedName, messages.UndefinedLocal)
_REPLACING: Final = frozenset({"update", "setdefault", "pop", "clear"})
"""Methods that change the keys of a dict."""


def undefined_names(source: ScriptSource, names: Collection[str]) -> Iterator[ConfigError]:
    """Yield an error for each name of a script that neither it, Python nor `names` defines."""
    tree = ast.parse(_padded(source), source.file)
    checked = checker.Checker(tree, source.file, builtins=set(names))
    seen: set[tuple[str, int]] = set()
    for message in checked.messages:
        name, line = str(message.message_args[0]), int(message.lineno)
        if isinstance(message, _UNDEFINED) and (name, line) not in seen:
            seen.add((name, line))
            near = difflib.get_close_matches(name, names, 1, 0.8)
            advice = f"did you mean `{near[0]}`?" if near else "import or define it"
            yield ConfigError(
                f"the script uses `{name}`, which nothing defines: {advice}", source.file, line
            )


def unknown_keys(
    source: ScriptSource, function: str, event_keys: Collection[str]
) -> Iterator[ConfigError]:
    """Yield an error for each `event["key"]` that is read though no such event has that key.

    Only what is certain: `event` is the first parameter of `function` and keeps its name, the key is a
    text without a hyphen (those are headers) and the script itself sets no key of that name.
    """
    for node in ast.parse(_padded(source), source.file).body:
        if isinstance(node, ast.AsyncFunctionDef) and node.name == function and node.args.args:
            yield from _unknown_keys(node, node.args.args[0].arg, source.file, event_keys)


def _unknown_keys(
    function: ast.AsyncFunctionDef, event: str, file: str, event_keys: Collection[str]
) -> Iterator[ConfigError]:
    nodes = list(ast.walk(function))
    arguments = [node.arg for node in nodes if isinstance(node, ast.arg)]
    if arguments.count(event) > 1 or any(_may_change_keys(node, event) for node in nodes):
        return
    items = [node for node in nodes if isinstance(node, ast.Subscript) and _is_name(node.value, event)]
    keys = [(item, item.slice.value) for item in items if isinstance(item.slice, ast.Constant)]
    own = {key for item, key in keys if not isinstance(item.ctx, ast.Load)}
    for item, key in keys:
        if isinstance(key, str) and "-" not in key and key not in own and key not in event_keys:
            near = difflib.get_close_matches(key, event_keys, 1)
            advice = f"did you mean `{near[0]}`?" if near else f"it has {', '.join(sorted(event_keys))}"
            yield ConfigError(f"this event has no key `{key}`: {advice}", file, item.lineno)


def _may_change_keys(node: ast.AST, event: str) -> bool:
    """Tell whether a node gives `event` another value, or changes its keys in a way not looked at."""
    if isinstance(node, ast.Name) and node.id == event:
        return not isinstance(node.ctx, ast.Load)
    if isinstance(node, ast.AugAssign):
        return _is_name(node.target, event)
    if isinstance(node, ast.Call):
        passed = any(_is_name(value, event) for value in (*node.args, *(k.value for k in node.keywords)))
        method = node.func.attr if isinstance(node.func, ast.Attribute) else None
        changed = isinstance(node.func, ast.Attribute) and _is_name(node.func.value, event)
        return (changed and method in _REPLACING) or (passed and not _only_reads(node.func))
    return False


def _only_reads(function: ast.expr) -> bool:
    """Tell whether a call reads an event that it gets: `files.open(event)`, `json.dumps(event)`."""
    names = {"files", "json", "logger"}
    if isinstance(function, ast.Attribute):
        return isinstance(function.value, ast.Name) and function.value.id in names
    return isinstance(function, ast.Name) and function.id in {"print", "repr", "str", "len", "dict"}


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _padded(source: ScriptSource) -> str:
    return "\n" * (source.line - 1) + source.text
