"""YAML files as documents that know the line of each of their keys.

Every error names file and line, and none quotes a value: it may be a secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from gateway.errors import ConfigError
from gateway.plugins.scripting.compile import ScriptSource

_SPECIFICATION: Final = re.compile(r"^[\"']?(openapi|swagger)[\"']?[ \t]*:[ \t]*[\"']?\d", re.MULTILINE)
"""The version at the top of an OpenAPI document; a plugin has a mapping there."""

SUFFIXES: Final = (".yaml", ".yml")
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STANDARD_TAG: Final = "tag:yaml.org,2002:"
_TAG: Final = "!secret"


@dataclass(frozen=True, slots=True, repr=False)
class SecretToken:
    """A value behind the tag `!secret`: still encrypted."""

    text: str

    def __repr__(self) -> str:
        return "<!secret>"


class _Constructor(yaml.constructor.SafeConstructor):
    """Makes Python values of nodes, as YAML's safe schema does, and a `SecretToken` of `!secret`."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return the value of a node."""
        if node.tag == _TAG:
            return SecretToken(str(node.value))
        return super().construct_object(node, deep)


class PluginErrors(ConfigError):
    """All errors of the plugins, one line each in `str()`."""

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        super().__init__("\n".join(map(str, errors)), None, None)
        self.errors = tuple(errors)
        self.file = errors[0].file
        self.line = errors[0].line


@dataclass(frozen=True, slots=True, repr=False)
class Document:
    """One plugin as it was read: its keys and values, and where they stand.

    `spellings` says how the author wrote the last key of a path that is read under its documented name.
    """

    file: Path
    node: yaml.MappingNode
    data: dict[str, Any]
    lines: tuple[str, ...]
    spellings: Mapping[tuple[object, ...], str] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The folder of the file."""
        return str(self.file.parent)

    def line(self, *where: object) -> int:
        """Return the line (from 1) of the key or item that `where` leads to, or the nearest above."""
        node: yaml.Node = self.node
        line: int = node.start_mark.line + 1
        for step in self._spelled(where):
            child = _child(node, step)
            if child is None:
                break
            line, node = child
        return line

    def error(self, message: str, *where: object) -> ConfigError:
        """Return the error `message` at the key that `where` leads to."""
        return ConfigError(message, str(self.file), self.line(*where))

    def dotted(self, where: Sequence[object]) -> str:
        """Return the name of a key such as `proxy.path`, spelled as in the file."""
        return ".".join(map(str, self._spelled(where)))

    def source(self, key: str) -> ScriptSource:
        """Return the script under `key` with its place. A block scalar begins on the next line."""
        text: str = self.data[key]
        child = _child(self.node, self.spellings.get((key,), key))
        node = child[1] if child else self.node
        style = node.style if isinstance(node, yaml.ScalarNode) else None
        first = node.start_mark.line + (2 if style in ("|", ">") else 1)
        indent = self._margin(text, first) if style == "|" else 0
        return ScriptSource(text, str(self.file), first, indent)

    def _spelled(self, where: Sequence[object]) -> Iterator[object]:
        for depth, step in enumerate(where, start=1):
            yield self.spellings.get(tuple(where[:depth]), step)

    def _margin(self, text: str, first: int) -> int:
        for offset, line in enumerate(text.splitlines()):
            if line.strip():
                raw = self.lines[first - 1 + offset].rstrip("\n")
                return len(raw) - len(line) if raw.endswith(line) else 0
        return 0


def find_files(folders: Iterable[Path]) -> list[Path]:
    """Return the YAML files below `folders`, sorted, each once; hidden names are skipped.

    Symbolic links are followed, a loop of them once. Raises `ConfigError` if a folder does not exist.
    """
    files: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            what = "is a file: name its folder with"
            there = what if folder.exists() else "does not exist: create it or correct"
            raise ConfigError(f"this plugins folder {there} --plugins", str(folder))
        for path in sorted(_walk(folder)):
            files.setdefault(os.path.realpath(path), path)
    return list(files.values())


def read_file(file: Path) -> list[Document]:
    """Read a file: one document, several behind `---`, or lists of them. Raises `ConfigError`.

    An OpenAPI document is no plugin: one of the key `openapi` may name it.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        if _SPECIFICATION.search(text):
            return []
        nodes = list(yaml.compose_all(text, _LOADER))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise ConfigError(f"this is not YAML: {error.problem}", str(file), line) from None
    except yaml.YAMLError:
        message = "this is not YAML: it has characters that YAML does not allow"
        raise ConfigError(message, str(file)) from None
    except UnicodeDecodeError:
        raise ConfigError("the file is not UTF-8", str(file)) from None
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}", str(file)) from None
    lines = tuple(text.splitlines())
    return [_document(file, node, lines) for root in nodes for node in _items(root)]


def _walk(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        subfolders[:] = [] if real in seen else [name for name in subfolders if name[0] != "."]
        if real not in seen:
            seen.add(real)
            yield from (Path(parent, n) for n in names if n.endswith(SUFFIXES) and n[0] != ".")


def _items(root: yaml.Node | None) -> list[yaml.Node]:
    if root is None or (isinstance(root, yaml.ScalarNode) and not root.value):
        return []
    return list(root.value) if isinstance(root, yaml.SequenceNode) else [root]


def _document(file: Path, node: yaml.Node, lines: tuple[str, ...]) -> Document:
    if not isinstance(node, yaml.MappingNode):
        raise _error(file, node, "a plugin is a mapping of keys such as `name:` to values")
    for child in _nodes(node, set()):
        _check(file, child)
    _check_secrets(file, node)
    try:
        data = _Constructor().construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = (error.problem_mark or node.start_mark).line + 1
        message = "a value does not have the form that its YAML tag asks for"
        raise ConfigError(message, str(file), line) from None
    except ValueError:
        raise _error(file, node, "a value (a date?) cannot be read: quote it") from None
    return Document(file, node, data, lines)


def _nodes(node: yaml.Node, seen: set[int]) -> Iterator[yaml.Node]:
    """Yield a node and the values below it, each once: an anchor may be used in many places."""
    if id(node) in seen:
        return
    seen.add(id(node))
    yield node
    children: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        children = node.value
    elif isinstance(node, yaml.MappingNode):
        children = [value for _, value in node.value]
    for child in children:
        yield from _nodes(child, seen)


def _check(file: Path, node: yaml.Node) -> None:
    if node.tag == _TAG and not isinstance(node, yaml.ScalarNode):
        raise _error(file, node, "!secret stands before one token: encrypt values one by one")
    if not node.tag.startswith(_STANDARD_TAG) and node.tag != _TAG:
        name = node.tag.split(" ")[0]
        raise _error(file, node, f"this version does not know the YAML tag {name}")
    if isinstance(node, yaml.MappingNode):
        _check_keys(file, node)


def _check_secrets(file: Path, document: yaml.MappingNode) -> None:
    """Only values of a Config are decrypted; elsewhere a script would get the token as it is."""
    message = (
        "!secret belongs into a Config plugin (`config:`), from where scripts read it with"
        " get_service_config"
    )
    for value in (value for key, value in document.value if key.value != "config"):
        for node in _nodes(value, set()):
            if node.tag == _TAG:
                raise _error(file, node, message)


def _check_keys(file: Path, node: yaml.MappingNode) -> None:
    keys: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == _TAG:
            raise _error(file, key, "a key must be a plain word")
        if key.value in keys and key.value != "<<":
            raise _error(file, key, f"the key `{key.value}` stands here twice")
        keys.add(key.value)


def _error(file: Path, node: yaml.Node, message: str) -> ConfigError:
    return ConfigError(message, str(file), node.start_mark.line + 1)


def _child(node: yaml.Node, step: object) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        item = node.value[step]
        return item.start_mark.line + 1, item
    return None
