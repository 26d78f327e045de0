"""The layout: few entries, small files, one vocabulary, an event word in every log call."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.measure import (
    MAX_FILE_LINES,
    MAX_FUNCTION_LINES,
    Module,
    Project,
    retired,
)
from tests.support import PROJECT

GATEWAY = Project.read(PROJECT)

MAX_ENTRIES = 17
MAX_LAYERS = 10

LOGGERS = {"log", "access_log", "logger", "_log", "_logger", "LOG", "getLogger"}
LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
EVENT_FUNCTIONS = {"event", "log_event"}
EVENT_WORD = re.compile(r"[a-z]+(_[a-z]+)*\.[a-z]+(_[a-z]+)*")


def test_few_entries_stand_at_the_top_of_the_package() -> None:
    assert len(GATEWAY.entries()) <= MAX_ENTRIES, GATEWAY.entries()


def test_the_layer_contracts_are_short() -> None:
    assert len(GATEWAY.contracts) >= 2
    for contract in GATEWAY.contracts:
        assert len(contract.rows) <= MAX_LAYERS, contract.containers


def test_a_class_name_is_defined_once() -> None:
    assert GATEWAY.repeated_classes() == {}


def test_files_stay_small() -> None:
    large = {str(m.path): m.lines for m in GATEWAY.modules if m.lines > MAX_FILE_LINES}
    assert large == {}


def test_functions_stay_short() -> None:
    long = [
        f"{module.path}:{function.line} {function.name}"
        for module in GATEWAY.modules
        for function in module.functions()
        if function.lines > MAX_FUNCTION_LINES
    ]
    assert long == []


def test_every_module_has_a_docstring_that_leaves_imports_to_the_linter() -> None:
    assert [str(module.path) for module in GATEWAY.modules if not ast.get_docstring(module.tree)] == []
    named: dict[str, list[str]] = defaultdict(list)
    for module in GATEWAY.modules:
        if "may import" in (ast.get_docstring(module.tree) or "").lower():
            named[module.package].append(str(module.path))
    assert named == {}


def test_no_identifier_has_a_retired_word() -> None:
    assert GATEWAY.retired_identifiers() == {}


def test_every_log_call_has_a_fixed_event_word() -> None:
    wordless: dict[str, list[str]] = defaultdict(list)
    for module in GATEWAY.modules:
        for call in log_calls(module):
            if event_word(call) is None:
                wordless[module.package].append(f"{module.path}:{call.lineno}")
    assert dict(wordless) == {}


def log_calls(module: Module) -> Iterator[ast.Call]:
    """Yield the calls that write a log line."""
    for node in ast.walk(module.tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in LOG_METHODS
            and name_of(node.func.value) in LOGGERS
        ):
            yield node


def event_word(call: ast.Call) -> str | None:
    """Return the word of `extra=event("noun.past_participle", ...)`; any fixed one of several."""
    for keyword in call.keywords:
        extra = keyword.value
        if (
            keyword.arg == "extra"
            and isinstance(extra, ast.Call)
            and name_of(extra.func) in EVENT_FUNCTIONS
            and extra.args
        ):
            return fixed_word(extra.args[0])
    return None


def fixed_word(node: ast.expr) -> str | None:
    """Return a literal word; of a conditional its first one, of a lookup the name of the table."""
    match node:
        case ast.Constant(value=str(word)) if EVENT_WORD.fullmatch(word):
            return word
        case ast.IfExp(body=first, orelse=second):
            return fixed_word(first) and fixed_word(second) and fixed_word(first)
        case ast.Subscript(value=ast.Name(id=table)) if table.isupper():
            return table
    return None


def name_of(node: ast.AST) -> str:
    """Return the last name of `log`, `self._log` or `logging.getLogger(...)`."""
    match node:
        case ast.Call(func=function):
            return name_of(function)
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ('log.warning("upload failed", extra=event("upload.failed", reason=code))', "upload.failed"),
        ('self._log.info("x", extra=logs.event("worker.restarted"))', "worker.restarted"),
        ('logging.getLogger("a").error("x", extra=event("Failed"))', None),
        ('log.log(level, "x", extra={"event": "upload.failed"})', None),
        ('log.exception("x")', None),
        ('log.log(level, "x", extra=log_event("run.failed" if bad else "run.ended"))', "run.failed"),
        ('log.log(level, "x", extra=event("run.failed" if bad else word))', None),
        ('log.info("x", extra=event(_WORDS[verb]))', "_WORDS"),
        ('log.info("x", extra=event(f"handler.{verb}d"))', None),
    ],
)
def test_the_event_word_of_a_call_is_read(source: str, word: str | None) -> None:
    [call] = log_calls(Module(Path("x.py"), "x", source))
    assert event_word(call) == word


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("_found", True),
        ("found_at", False),
        ("FileShelf", True),
        ("lane_count", True),
        ("planes", False),
        ("lookup", False),
        ("MOST_ROWS", True),
        ("most_rows", False),
        ("LINGER_TIMEOUT", False),
        ("PATIENCE", True),
        ("SECONDS", True),
        ("POLL_SECONDS", False),
        ("upload", False),
    ],
)
def test_retired_words_are_seen_as_parts_of_a_name_and_not_inside_another_word(
    name: str, expected: bool
) -> None:
    assert retired(name) == expected


def test_every_kind_of_name_is_seen() -> None:
    source = """
import a as b
def c(d, *e, f=1, **g): h = 1; self.i: int = 2
class J: pass
try: pass
except E as k: pass
for l in (m := []): pass
match x:
    case {"a": n, **o}: pass
    case [*p]: pass
"""
    names = {name for name, _ in Module(Path("z.py"), "y.z", source).identifiers()}
    assert names == set("zbcdefghiJklmnop")


def test_the_report_runs_on_any_checkout(tmp_path: Path) -> None:
    (tmp_path / "gateway" / "events").mkdir(parents=True)
    (tmp_path / "gateway/__init__.py").write_text("")
    (tmp_path / "gateway/events/__init__.py").write_text("from gateway.errors import Refusal\n")
    (tmp_path / "gateway/errors.py").write_text("class Refusal: pass\n\n\nfound = 1\n")
    (tmp_path / "setup.cfg").write_text(
        "[importlinter:contract:layers]\ntype = layers\ncontainers = gateway\n"
        "layers =\n  events\n  errors\n"
    )
    done = subprocess.run(
        [PROJECT / "scripts/measure", tmp_path], capture_output=True, text=True, check=True
    )
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "files 3, lines 5" in lines
    assert "entries 2 at the top: errors events" in lines
    assert "layers 2 rows in gateway" in lines
    assert "levels 2 in the longest chain of imports between entries" in lines
    assert "retired 1 identifiers with a retired word" in lines


def test_a_folder_without_the_package_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [PROJECT / "scripts/measure", tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == f"measure: {tmp_path} has no folder gateway/\n"
