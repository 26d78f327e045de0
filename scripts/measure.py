"""Size, structure and vocabulary of a package, read from its source; nothing of it is imported.

`scripts/measure [ROOT]` prints a report about ROOT/gateway and the layer contract in ROOT/setup.cfg.
The lists of retired words stand here; tests/unit/test_layout.py holds the package to them.
"""

from __future__ import annotations

import ast
import configparser
import re
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

PACKAGE: Final = "gateway"

MAX_FUNCTION_LINES: Final = 50
MAX_FILE_LINES: Final = 300

SPLIT_PACKAGES: Final = frozenset({"endpoints"})
"""Packages that are measured by their subpackages."""

RETIRED_NAMES: Final = frozenset({
    "asked", "found", "known", "made", "one", "reach", "said", "some", "somebody", "something",
    "taken", "told", "whoever",
})  # fmt: skip
"""Whole names without a noun: no variable, parameter, attribute or function is called so."""

RETIRED_WORDS: Final = frozenset({
    "adopt", "adopted", "adopting", "away", "bell", "blame", "bury", "chore", "chores", "crossing",
    "deed", "deeds", "depot", "door", "doors", "entrance", "errand", "errands", "feeder",
    "gathered", "gathering", "ground", "hall", "handing", "hasten", "house", "houses", "landing",
    "lane", "lanes", "limbo", "look", "looked", "looking", "looks", "meet", "nobody", "office",
    "premises", "quiet", "road", "roads", "room", "rooms", "seat", "seats", "shelf", "shelves",
    "steering", "tell", "telling", "told", "visitor", "visitors", "vouch", "vouches", "whoever",
})  # fmt: skip
"""Words that may not be a part of any identifier or module name: each has a term of the field."""

RETIRED_LIMITS: Final = frozenset({
    "again", "busy", "fewest", "greatest", "largest", "linger", "longest", "look", "most",
    "patience", "shortest", "silence", "turn",
})  # fmt: skip
"""First words of no constant but a time: limits are MAX_ and MIN_."""

TIME_WORDS: Final = frozenset({"delay", "delays", "interval", "timeout", "ttl"})
"""Last words of constants that are times (`LINGER_TIMEOUT`)."""

FILE_METHODS: Final = frozenset({"tell"})
"""Methods of Python's file protocol, which a class may have to implement."""

_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@dataclass(frozen=True)
class Function:
    """A function or method and its length, decorators left out."""

    name: str
    line: int
    lines: int


@dataclass(frozen=True)
class Module:
    """One source file. `name` is dotted, below the package."""

    path: Path
    name: str
    source: str

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed source."""
        return ast.parse(self.source)

    @property
    def lines(self) -> int:
        """Lines of the file, blank ones and comments included."""
        return len(self.source.splitlines())

    @property
    def package(self) -> str:
        """The entry at the top of the package, or `endpoints.NAME`."""
        first, *rest = self.name.split(".")
        return f"{first}.{rest[0]}" if first in SPLIT_PACKAGES and rest else first

    def functions(self) -> Iterator[Function]:
        """Yield every function and method, nested ones too."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield Function(node.name, node.lineno, (node.end_lineno or 0) - node.lineno + 1)

    def classes(self) -> Iterator[str]:
        """Yield the names of all classes, nested ones too."""
        return (node.name for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef))

    def identifiers(self) -> Iterator[tuple[str, int]]:
        """Yield every name that the file gives, with its line: definitions, parameters, assignments."""
        yield self.name.rpartition(".")[2], 1
        for node in ast.walk(self.tree):
            for name in _given_names(node):
                yield name, getattr(node, "lineno", 1)


def _given_names(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.arg(arg=name):
            yield name
        case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
            yield name
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
            yield name
        case ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
            yield name
        case ast.alias(asname=str(name)):
            yield name


def retired(identifier: str) -> bool:
    """Return whether an identifier is, or contains, a retired word."""
    plain = identifier.strip("_")
    words = [word.lower() for word in _WORDS.findall(plain)]
    constant = plain.isupper() and len(plain) > 1
    if identifier in FILE_METHODS:
        return False
    return (
        plain.lower() in RETIRED_NAMES
        or not RETIRED_WORDS.isdisjoint(words)
        or (constant and words[0] in RETIRED_LIMITS and words[-1] not in TIME_WORDS)
        or plain == "SECONDS"
    )


@dataclass(frozen=True)
class Contract:
    """A layer contract of import-linter: its containers and its rows, the top one first."""

    containers: str
    rows: tuple[str, ...]


@dataclass(frozen=True)
class Project:
    """The modules of ROOT/gateway and the layer contracts of ROOT/setup.cfg."""

    root: Path
    modules: tuple[Module, ...]
    contracts: tuple[Contract, ...]

    @classmethod
    def read(cls, root: Path) -> Project:
        """Read the sources below `root`."""
        package = root / PACKAGE
        modules = []
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package).with_suffix("").parts
            dotted = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
            modules.append(Module(path.relative_to(root), dotted, path.read_text(encoding="utf-8")))
        return cls(root, tuple(modules), tuple(_contracts(root / "setup.cfg")))

    def entries(self) -> list[str]:
        """Return what stands at the top of the package, `__init__` and `__main__` left out."""
        names = {module.name.partition(".")[0] for module in self.modules}
        return sorted(names - {"__init__", "__main__"})

    def repeated_classes(self) -> Mapping[str, Sequence[str]]:
        """Return the class names that are defined more than once, with their modules."""
        places: dict[str, list[str]] = defaultdict(list)
        for module in self.modules:
            for name in module.classes():
                places[name].append(module.name)
        return {name: modules for name, modules in sorted(places.items()) if len(modules) > 1}

    def retired_identifiers(self) -> Mapping[str, Sequence[str]]:
        """Return `path:line name` of every identifier with a retired word, by package."""
        uses: dict[str, list[str]] = defaultdict(list)
        for module in self.modules:
            uses[module.package] += [
                f"{module.path}:{line} {name}" for name, line in module.identifiers() if retired(name)
            ]
        return {package: places for package, places in sorted(uses.items()) if places}

    def levels(self) -> int:
        """Return the length of the longest chain of imports between entries at the top."""
        imports: dict[str, set[str]] = defaultdict(set)
        entries = set(self.entries())
        for module in self.modules:
            top = module.name.partition(".")[0]
            imports[top] |= (set(_imported(module.tree)) & entries) - {top}
        return max((_depth(entry, imports, ()) for entry in entries), default=0)


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            first, _, rest = name.partition(".")
            if first == PACKAGE and rest:
                yield rest.partition(".")[0]


def _depth(entry: str, imports: Mapping[str, set[str]], above: tuple[str, ...]) -> int:
    below = [name for name in imports.get(entry, ()) if name not in above]
    return 1 + max((_depth(name, imports, (*above, entry)) for name in below), default=0)


def _contracts(path: Path) -> Iterator[Contract]:
    config = configparser.ConfigParser()
    config.read(path, encoding="utf-8")
    for section in config.sections():
        if section.startswith("importlinter:contract:") and config[section].get("type") == "layers":
            rows = config[section]["layers"].split("\n")
            containers = " ".join(config[section].get("containers", "").split())
            yield Contract(containers, tuple(row.strip() for row in rows if row.strip()))


def _percentiles(sizes: Sequence[int]) -> str:
    ordered = sorted(sizes) or [0]
    p90 = ordered[min(len(ordered) - 1, len(ordered) * 9 // 10)]
    return f"median {statistics.median(ordered):g}, p90 {p90}, max {ordered[-1]}"


def report(project: Project) -> Iterator[str]:
    """Yield the lines of the report."""
    modules = project.modules
    functions = [(module, function) for module in modules for function in module.functions()]
    over = [pair for pair in functions if pair[1].lines > MAX_FUNCTION_LINES]
    entries, repeated, words = (
        project.entries(),
        project.repeated_classes(),
        project.retired_identifiers(),
    )
    yield f"files      {len(modules)}, lines {sum(module.lines for module in modules)}"
    yield f"           {_percentiles([module.lines for module in modules])}"
    yield f"functions  {len(functions)}, over {MAX_FUNCTION_LINES} lines {len(over)}"
    yield f"           {_percentiles([function.lines for _, function in functions])}"
    for module, function in over:
        yield f"           {module.path}:{function.line} {function.name} {function.lines}"
    yield f"entries    {len(entries)} at the top: {' '.join(entries)}"
    for contract in project.contracts:
        yield f"layers     {len(contract.rows)} rows in {contract.containers or 'the package'}"
    yield f"levels     {project.levels()} in the longest chain of imports between entries"
    yield f"classes    {len(repeated)} names defined more than once"
    for name, places in repeated.items():
        yield f"           {name}: {', '.join(places)}"
    yield f"retired    {sum(map(len, words.values()))} identifiers with a retired word"
    for package, places in words.items():
        common = Counter(place.rpartition(" ")[2] for place in places).most_common(8)
        shown = ", ".join(f"{name} {count}" for name, count in common)
        yield f"           {package:24} {len(places):4}: {shown}"


def main() -> int:
    """Print the report about the folder that is given, by default this project."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]
    if not (root / PACKAGE).is_dir():
        print(f"measure: {root} has no folder {PACKAGE}/", file=sys.stderr)
        return 2
    for line in report(Project.read(root)):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
